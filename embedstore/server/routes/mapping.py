"""The map: places, codes of a column and masks, as binary columns in one order of the items."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from embedstore.operations.browse import ListOrder
from embedstore.operations.map_work import MapProgress, MapWork
from embedstore.server.context import Context
from embedstore.server.errors import Refusal
from embedstore.server.models import MAX_TEXT, LegendEntry, MapColumnLegend, Model

router = APIRouter(prefix="/map", tags=["map"])

COLUMN_MAGIC, MASK_MAGIC = b"ESCOD001", b"ESMSK001"
BINARY = "application/octet-stream"
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}
}
SpaceName = Annotated[str | None, Query(max_length=200)]
ColumnName = Annotated[str, Query(min_length=1, max_length=200)]


class MapProgressBody(Model):
    """How far the drawing of a map is."""

    space: str = Field(description="The key of the space.")
    state: Literal["running", "done", "cancelled", "failed"]
    share: Annotated[float, Field(ge=0, le=1)]
    error: str | None = None


@router.get(
    "",
    response_class=Response,
    responses={
        **_BINARY,
        202: {"model": MapProgressBody, "description": "The map is being drawn (only with `wait=false`)"},
        204: {"description": "The map is still the one of `known`"},
    },
)
def get_map(
    context: Context,
    space: SpaceName = None,
    again: bool = False,
    wait: bool = True,
    known: Annotated[
        int | None, Query(ge=0, le=2**63 - 1, description="The generation of the map that is here.")
    ] = None,
) -> Response:
    """Return ids and places of all items. The map is kept; a large one takes a minute when it is drawn first.

    Little-endian: 8 bytes `ESMAP001`, the number of items n (uint64), the generation (uint64), n ids (int64,
    ascending), then n pairs x, y (float32, about the unit square, y down). `again` projects again, so that items move.
    With `wait=false` the answer is 202 while the map is drawn, and events `map` of `GET /events` say how far that is.
    """
    found = context.maps.places_or_work(space, again=again)
    if isinstance(found, MapWork):
        if not wait:
            return JSONResponse(progress_body(found.progress).model_dump(), status_code=202)
        found = found.result()
    if known == found.generation:
        return Response(status_code=204)
    return Response(found.to_bytes(), media_type=BINARY)


@router.delete("/work")
def cancel_map(context: Context, space: SpaceName = None) -> MapProgressBody:
    """End the drawing of a map. Nothing of it is kept, and the next `GET /map` begins again."""
    progress = context.maps.cancel(space)
    if progress is None:
        raise Refusal(404, "no map of this space is being drawn")
    return progress_body(progress)


def progress_body(progress: MapProgress) -> MapProgressBody:
    """Return how far a map is as a body."""
    return MapProgressBody(space=progress.space, state=progress.state.value, share=progress.share, error=progress.error)


@router.get("/column", response_class=Response, responses=_BINARY)
def get_map_column(context: Context, name: ColumnName, space: SpaceName = None) -> Response:
    """Return a code per item of the map for its value of a column; `/map/legend` says what the codes mean.

    Little-endian: 8 bytes `ESCOD001`, the number of items n (uint64), the generation (uint64), n codes (uint16).
    """
    places, codes, _ = context.maps.codes(space, name)
    return _binary(COLUMN_MAGIC, len(codes), places.generation, codes.astype("<u2").tobytes())


@router.get("/legend")
def get_map_legend(context: Context, name: ColumnName, space: SpaceName = None) -> MapColumnLegend:
    """Return what the codes of a column mean, the most frequent value first."""
    _, _, legend = context.maps.codes(space, name)
    entries = [LegendEntry(code=code, value=value, count=n) for code, (value, n) in enumerate(legend, 1)]
    return MapColumnLegend(column=name, entries=entries)


@router.get("/mask", response_class=Response, responses=_BINARY)
def get_map_mask(
    context: Context,
    where: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    selection: str | None = None,
    space: SpaceName = None,
) -> Response:
    """Return a bit per item of the map: whether it matches a filter and is in a selection.

    Little-endian: 8 bytes `ESMSK001`, the number of items n (uint64), the generation (uint64), then n bits, the first
    item in the lowest bit of the first byte.
    """
    places = context.maps.latest(space)
    mask = np.ones(len(places.items), np.bool_)
    if where is not None:
        mask &= np.isin(places.items, context.browser.ordered(ListOrder(where))[1])
    selected = context.selected(selection)
    if selected is not None:
        mask &= np.isin(places.items, selected)
    return _binary(MASK_MAGIC, len(mask), places.generation, np.packbits(mask, bitorder="little").tobytes())


def _binary(magic: bytes, count: int, generation: int, data: bytes) -> Response:
    """Return a binary column with its header."""
    return Response(magic + np.array([count, generation], "<u8").tobytes() + data, media_type=BINARY)
