"""What happens to the store, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from embedstore.errors import StoreError
from embedstore.server.context import Context, ServerContext
from embedstore.server.models import Counts, Model, WriterBody

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.5
KEEP_ALIVE_POLLS = 30  # polls after which a comment is sent, so that a broken connection ends
MAX_LISTENERS = 32


class StateBody(Model):
    """The state of the store, sent at first and after every change."""

    generation: int
    counts: Counts
    writer: WriterBody | None


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def get_events(request: Request, context: Context) -> StreamingResponse:
    """Send an event `state` with generation, counts and writer at first, and after every change of one of them.

    While another process embeds, each of its commits is a change: the counts are its progress.
    """
    return StreamingResponse(_events(request, context), media_type="text/event-stream")


async def _events(request: Request, context: ServerContext) -> AsyncIterator[str]:
    """Yield the events of one listener."""
    seen: object = None
    quiet = 0
    while not await request.is_disconnected():
        now = (context.session.storage.catalog.stamp, context.browser.writer())
        if now != seen:
            try:
                state = await run_in_threadpool(_state, context)
            except StoreError:
                state = None  # a writer has the catalog; the next poll asks again
            if state is not None:
                seen, quiet = now, 0
                yield f"event: state\ndata: {state.model_dump_json()}\n\n"
        elif quiet >= KEEP_ALIVE_POLLS:
            quiet = 0
            yield ": nothing new\n\n"
        quiet += 1
        await asyncio.sleep(POLL_SECONDS)


def _state(context: ServerContext) -> StateBody:
    """Return the state of the store now."""
    overview = context.browser.overview()
    counts = Counts(
        items=overview.items,
        contents=overview.contents,
        failures=overview.failures,
        unlabelled=overview.unlabelled,
    )
    writer = None if overview.writer is None else WriterBody(**asdict(overview.writer))
    return StateBody(generation=overview.generation, counts=counts, writer=writer)
