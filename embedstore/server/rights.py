"""The context for routes that change the store: a server that is read-only refuses them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends

from embedstore.server.context import Context, ServerContext
from embedstore.server.errors import Refusal


async def writable_context(context: Context) -> ServerContext:
    """Return the context, unless the server is read-only.

    Raises:
        Refusal: if it is.
    """
    if context.access.read_only:
        raise Refusal(403, "this server is read-only and changes nothing", "start it again without --read-only")
    return context


Writable = Annotated[ServerContext, Depends(writable_context)]
