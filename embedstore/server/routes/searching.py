"""Search by words, an item, examples, or an image that is sent."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request
from numpy.typing import NDArray

from embedstore.operations.search import QueryParts, search
from embedstore.reports.results import Hits
from embedstore.search.options import SearchOptions
from embedstore.server.context import Context, ServerContext
from embedstore.server.errors import Refusal
from embedstore.server.models import MAX_TEXT, HitBody, HitsBody, SearchBody
from embedstore.server.replica import ReplicaChoice
from embedstore.server.routes.items import item_name

router = APIRouter(tags=["search"])

BINARY_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


@router.post("/search")
def search_items(request: SearchBody, context: Context) -> HitsBody:
    """Return the items nearest to words, an item, or examples of what is wanted and what is not."""
    return run_search(context, request, None)


@router.post("/search/image", openapi_extra=BINARY_BODY)
async def search_by_image(
    request: Request,
    context: Context,
    k: Annotated[int, Query(ge=1, le=10_000)] = 100,
    where: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    selection: str | None = None,
    space: str | None = None,
    strictness: Annotated[float | None, Query(ge=0, le=1)] = None,
    replica: Annotated[str | None, Query(max_length=100)] = None,
) -> HitsBody:
    """Return the items nearest to an image, whose bytes are the body of the request."""
    data = await request.body()
    if not data:
        raise Refusal(400, "the body is empty", "send the bytes of an image file")
    options = SearchBody(k=k, where=where, selection=selection, space=space, strictness=strictness, replica=replica)
    return await context.thumbnails.run(partial(_search_by_bytes, context, options, data))


def run_search(context: ServerContext, request: SearchBody, image: bytes | None) -> HitsBody:
    """Return the answer to a search."""
    choice = _choose_replica(context, request)
    hits = _find(context, request, image, choice.name)
    has_similarities = request.hybrid is None and not (request.more_like or request.less_like)
    is_text = image is None and request.words is not None and has_similarities
    cut_off = context.fitting.cut_off(request.space, request.strictness) if is_text else None
    return HitsBody(
        query=hits.query,
        space=hits.space,
        replica=choice.name,
        seconds=round(hits.seconds, 4),
        hits=[
            HitBody(
                id=hit.item,
                rank=hit.rank,
                score=round(hit.score, 6),
                uri=hit.uri,
                name=item_name(hit.uri),
                label=hit.label,
                split=hit.split,
                fits=cut_off is None or hit.score >= cut_off,
            )
            for hit in hits
        ],
        nothing_fits=cut_off is not None and all(hit.score < cut_off for hit in hits),
        cut_off=None if cut_off is None else round(cut_off, 6),
        notes=[*choice.notes, *hits.notes],
    )


def find_hits(context: ServerContext, request: SearchBody) -> Hits:
    """Return the hits of a search by words, an item or examples."""
    return _find(context, request, None, _choose_replica(context, request).name)


def _choose_replica(context: ServerContext, request: SearchBody) -> ReplicaChoice:
    """Return what a search goes by: what the request names, else the replica of the server."""
    if request.replica is not None or context.replica is None:
        return ReplicaChoice(request.replica or None)
    return context.replica.choose(request.space, is_hybrid=request.hybrid is not None)


def _find(context: ServerContext, request: SearchBody, image: bytes | None, replica: str | None) -> Hits:
    """Return the hits of a search by a replica, or by the store itself."""
    parts = QueryParts.parse(
        request.words if request.words is not None else request.item,
        image,
        plus=(),
        minus=(),
        like=request.more_like,
        unlike=request.less_like,
        templates=None,
    )
    within = context.selected(request.selection)
    options = SearchOptions(k=request.k, where=request.where, within=_as_set(within), words=parts.words(request.hybrid))
    return search(context.session, parts, space=request.space, options=options, replica=replica)


def _search_by_bytes(context: ServerContext, request: SearchBody, data: bytes) -> HitsBody:
    """Search by an image that was sent: it is decoded in a process of its own first."""
    return run_search(context, request, context.thumbnails.decode(data))


def _as_set(items: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Return ids in ascending order, each once."""
    return None if items is None else np.unique(items)
