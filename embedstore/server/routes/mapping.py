"""The map: places, codes of a column and masks, as binary columns in one order of the items."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Response

from embedstore.operations.browse import ListOrder
from embedstore.server.context import Context
from embedstore.server.models import MAX_TEXT, LegendEntry, MapColumnLegend

router = APIRouter(prefix="/map", tags=["map"])

COLUMN_MAGIC, MASK_MAGIC = b"ESCOD001", b"ESMSK001"
BINARY = "application/octet-stream"
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {"content": {BINARY: {"schema": {"type": "string", "format": "binary"}}}}
}
SpaceName = Annotated[str | None, Query(max_length=200)]
ColumnName = Annotated[str, Query(min_length=1, max_length=200)]


@router.get("", response_class=Response, responses=_BINARY)
def get_map(context: Context, space: SpaceName = None, again: bool = False) -> Response:
    """Return ids and places of all items.

    Little-endian: 8 bytes `ESMAP001`, the number of items n (uint64), the generation (uint64), n ids (int64,
    ascending), then n pairs x, y (float32, about the unit square, y down). `again` projects again, so that items move.
    """
    return Response(context.maps.places(space, again=again).to_bytes(), media_type=BINARY)


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
    places = context.maps.places(space)
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
