"""What happens to the store, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from embedstore.errors import StoreError
from embedstore.replicas.state import ReplicaState
from embedstore.server.context import Context, ServerContext
from embedstore.server.models import Counts, Model, ReplicaBody, WriterBody
from embedstore.server.routes.mapping import progress_body
from embedstore.server.routes.stores import replica_body, writer_body

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.5
KEEP_ALIVE_POLLS = 30  # polls after which a comment is sent, so that a broken connection ends


class StateBody(Model):
    """The state of the store, sent at first and after every change."""

    generation: int
    counts: Counts
    writer: WriterBody | None
    replica: ReplicaBody | None


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def get_events(request: Request, context: Context) -> StreamingResponse:
    """Send an event `state` with generation, counts, writer and replica at first, and after each change of one of them.

    While another process embeds, its progress and each of its commits are changes, as is an update of the replica.
    While a map is drawn, an event `map` says after every step how far that is.
    """
    return StreamingResponse(_events(request, context), media_type="text/event-stream")


async def _events(request: Request, context: ServerContext) -> AsyncIterator[str]:
    """Yield the events of one listener."""
    seen: object = None
    maps = {progress.space: progress for progress in context.maps.progress()}
    quiet = 0
    while not await request.is_disconnected():
        quiet += 1
        now = (context.session.storage.catalog.stamp, context.browser.activity(), await _replica(context))
        if now != seen and (state := await _try_state(context)) is not None:
            seen, quiet = now, 0
            yield _event("state", state)
        for progress in context.maps.progress():
            if maps.get(progress.space) != progress:
                maps[progress.space], quiet = progress, 0
                yield _event("map", progress_body(progress))
        if quiet >= KEEP_ALIVE_POLLS:
            quiet = 0
            yield ": nothing new\n\n"
        await asyncio.sleep(POLL_SECONDS)


async def _replica(context: ServerContext) -> ReplicaState | None:
    """Return what is known of the replica of the server; None for none, or while a writer has the catalog."""
    if context.replica is None:
        return None
    try:
        return await run_in_threadpool(context.replica.state)
    except StoreError:
        return None


def _event(name: str, data: Model) -> str:
    """Return one event as it is sent."""
    return f"event: {name}\ndata: {data.model_dump_json()}\n\n"


async def _try_state(context: ServerContext) -> StateBody | None:
    """Return the state of the store now; None while a writer has the catalog, and the next poll asks again."""
    try:
        return await run_in_threadpool(_state, context)
    except StoreError:
        return None


def _state(context: ServerContext) -> StateBody:
    """Return the state of the store now."""
    overview = context.browser.overview()
    counts = Counts(
        items=overview.items,
        contents=overview.contents,
        failures=overview.failures,
        unlabelled=overview.unlabelled,
    )
    return StateBody(
        generation=overview.generation,
        counts=counts,
        writer=writer_body(overview),
        replica=replica_body(context.replica, overview.generation),
    )
