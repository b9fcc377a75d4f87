"""The token becomes a cookie that scripts cannot read."""

from __future__ import annotations

from fastapi import APIRouter, Response

from embedstore.server.context import Context
from embedstore.server.errors import Refusal
from embedstore.server.models import Done, LoginRequest

router = APIRouter(tags=["session"])


@router.post("/session")
def log_in(request: LoginRequest, context: Context, response: Response) -> Done:
    """Exchange the token, which the page reads from the fragment of its address, for a cookie."""
    access = context.access
    if not access.accepts_token(request.token):
        raise Refusal(401, "the token is wrong", "open the address that `serve` printed, with its token")
    response.set_cookie(access.cookie_name, access.cookie, httponly=True, samesite="strict", path="/")
    return Done()
