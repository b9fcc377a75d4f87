"""Selections: sets of items that stay on the server, by handle."""

from __future__ import annotations

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray

from embedstore.operations.browse import ListOrder
from embedstore.server.context import Context, ServerContext
from embedstore.server.errors import Refusal
from embedstore.server.models import SelectionBody, SelectionRequest
from embedstore.server.routes.searching import find_hits

router = APIRouter(tags=["selections"])


@router.post("/selections")
def select(request: SelectionRequest, context: Context) -> SelectionBody:
    """Keep a set of items: ids, a filter, the hits of a search, or a polygon on the map."""
    items = _items(request, context)
    within = context.selected(request.within)
    if within is not None:
        items = items[np.isin(items, within)]
    handle = context.selections.add(items)
    return SelectionBody(handle=handle, count=len(items), generation=context.browser.generation())


@router.get("/selections/{handle}")
def get_selection(handle: str, context: Context) -> SelectionBody:
    """Return how many items a selection has."""
    items = context.selections.items(handle)
    return SelectionBody(handle=handle, count=len(items), generation=context.browser.generation())


def _items(request: SelectionRequest, context: ServerContext) -> NDArray[np.int64]:
    """Return the ids that a request selects."""
    given = [name for name in ("ids", "where", "hits", "polygon") if getattr(request, name) is not None]
    if len(given) != 1:
        raise Refusal(400, f"a selection is one of ids, where, hits and polygon, not {len(given)} of them")
    if request.ids is not None:
        return context.browser.known(np.array(request.ids, np.int64))
    if request.where is not None:
        return context.browser.ordered(ListOrder(request.where))[1]
    if request.hits is not None:
        return np.array([hit.item for hit in find_hits(context, request.hits)], np.int64)
    polygon = [(point.x, point.y) for point in request.polygon or ()]
    return context.maps.inside(request.space, np.array(polygon, np.float64))
