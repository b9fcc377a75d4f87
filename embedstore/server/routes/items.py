"""Items: pages of them, one of them, its image, facets and completion."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import Field

from embedstore.media.text.decode import decode_text
from embedstore.modality import Modality
from embedstore.operations.browse import ListOrder
from embedstore.server.context import Context
from embedstore.server.models import (
    MAX_PAGE,
    MAX_TEXT,
    CompletionBody,
    CompletionsBody,
    FacetBody,
    FacetsBody,
    FailureBody,
    Ids,
    ImageFacts,
    ItemBody,
    ItemDetails,
    ItemPreview,
    ItemsBody,
    Model,
    PredictionBody,
    ValueCount,
)
from embedstore.server.sounds import PLAYED_RATE, ranged_response
from embedstore.server.thumbnails import IMAGE_SIZE, THUMBNAIL_SIZES, content_etag
from embedstore.sources.locations import read_item
from embedstore.sources.parquet.row_uri import split_table_row
from embedstore.tables import to_json_value

router = APIRouter(tags=["items"])

ItemId = Annotated[int, Path(ge=0, le=2**63 - 1)]
Where = Annotated[str | None, Query(max_length=MAX_TEXT, description="A filter, as on the command line.")]
Columns = Annotated[list[str], Query(max_length=50, description="Columns to return. Repeatable.")]
_FACT_NAMES = ("item", "uri", "label", "split", "content")
_BYTES = {"schema": {"type": "string", "format": "binary"}}
_WEBP = {"image/webp": _BYTES}
_WAVE = {"audio/wav": _BYTES}
_CACHED = "private, max-age=300"


class ItemsRequest(Model):
    """The ids of items to return, and further columns."""

    ids: Ids
    columns: list[str] = Field(default_factory=list, max_length=50)


@router.get("/items")
def list_items(
    context: Context,
    where: Where = None,
    order: Annotated[str | None, Query(max_length=200, description="The column to sort by; by default the id.")] = None,
    descending: bool = False,
    offset: Annotated[int, Query(ge=0, le=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    selection: str | None = None,
    columns: Columns = [],  # noqa: B006 - FastAPI copies it
) -> ItemsBody:
    """Return a part of the items that match a filter, in an order."""
    page = context.browser.page(
        ListOrder(where, order, descending),
        offset=offset,
        limit=limit,
        columns=columns,
        within=context.selected(selection),
    )
    items = [item_body(row) for row in page.rows]
    return ItemsBody(total=page.total, generation=page.generation, offset=offset, items=items)


@router.post("/items")
def get_items(request: ItemsRequest, context: Context) -> ItemsBody:
    """Return items by their ids, in this order; those that do not exist are left out."""
    rows = context.browser.rows(np.array(request.ids, np.int64), request.columns)
    generation = context.browser.generation()
    return ItemsBody(total=len(rows), generation=generation, offset=0, items=[item_body(row) for row in rows])


@router.get("/items/{item}")
def get_item(item: ItemId, context: Context) -> ItemDetails:
    """Return all that is known of one item."""
    facts = context.browser.facts(item)
    return ItemDetails(
        **_names(facts.columns),
        columns={name: to_json_value(v) for name, v in facts.columns.items() if name not in _FACT_NAMES},
        image=ImageFacts(**facts.image),
        predictions=[PredictionBody(head=h, label=label, score=score) for h, label, score in facts.predictions],
        failures=[FailureBody(reason=reason, detail=detail) for reason, detail in facts.failures],
    )


@router.get("/items/{item}/thumbnail", response_class=Response, responses={200: {"content": _WEBP}})
async def get_thumbnail(
    item: ItemId,
    context: Context,
    request: Request,
    size: Annotated[int, Query(ge=THUMBNAIL_SIZES[0], le=THUMBNAIL_SIZES[-1], description="Pixels.")] = 256,
) -> Response:
    """Return the image of an item as a small WebP; the longer side has the next larger of a few sizes."""
    pixels = next(s for s in THUMBNAIL_SIZES if s >= size)
    return await context.thumbnails.run(partial(_image, item, context, request, pixels))


@router.get("/items/{item}/image", response_class=Response, responses={200: {"content": _WEBP}})
async def get_image(item: ItemId, context: Context, request: Request) -> Response:
    """Return the image of an item, encoded again as a WebP of at most 2,048 pixels."""
    return await context.thumbnails.run(partial(_image, item, context, request, IMAGE_SIZE))


@router.get("/items/{item}/preview")
async def get_preview(
    item: ItemId,
    context: Context,
    characters: Annotated[int, Query(ge=1, le=MAX_TEXT, description="The most characters of a text.")] = 300,
) -> ItemPreview:
    """Return whether an item is an image, a text or a sound, and the begin of a text."""
    return await context.thumbnails.run(partial(_preview, item, context, characters))


@router.get("/items/{item}/sound", response_class=Response, responses={200: {"content": _WAVE}})
async def get_sound(item: ItemId, context: Context, request: Request) -> Response:
    """Return the sound of an item, decoded: one channel, as a WAV file of at most ten minutes."""
    return await context.thumbnails.run(partial(_sound, item, context, request))


@router.get("/facets")
def get_facets(
    context: Context,
    columns: Columns = ["label", "split"],  # noqa: B006 - FastAPI copies it
    where: Where = None,
    selection: str | None = None,
) -> FacetsBody:
    """Return the most frequent values of columns among the items that match a filter."""
    facets = context.browser.facets(columns, where, context.selected(selection))
    return FacetsBody(
        facets=[
            FacetBody(
                column=f.column,
                values=[ValueCount(value=to_json_value(v), count=n) for v, n in f.values],
                distinct=f.distinct,
                absent=f.absent,
                low=to_json_value(f.low),
                high=to_json_value(f.high),
            )
            for f in facets
        ]
    )


@router.get("/complete")
def complete(context: Context, text: Annotated[str, Query(max_length=MAX_TEXT)] = "") -> CompletionsBody:
    """Return how a filter could go on at its end."""
    found = context.browser.complete(text)
    return CompletionsBody(completions=[CompletionBody(text=c.text, kind=c.kind.value, start=c.start) for c in found])


def item_body(row: dict[str, Any]) -> ItemBody:
    """Return a row of the catalog as the body of an item."""
    return ItemBody(
        **_names(row), columns={name: to_json_value(v) for name, v in row.items() if name not in _FACT_NAMES}
    )


def _names(row: dict[str, Any]) -> dict[str, Any]:
    """Return what every body of an item begins with."""
    return {"id": row["item"], "uri": row["uri"], "name": item_name(row["uri"])} | {
        "label": row["label"],
        "split": row["split"],
    }


def item_name(uri: str) -> str:
    """Return the last part of a uri; the number of a row of a table comes before the name of its file."""
    name = uri.rstrip("/").rsplit("/", 1)[-1] or uri
    found = split_table_row(name)
    return f"row {found[1]} of {found[0]}" if found else name


def _image(item: int, context: Context, request: Request, size: int) -> Response:
    """Return the image of an item at one size; nothing is sent where the browser has it already."""
    content, uri, path = context.browser.content(item)
    headers = {"etag": content_etag(content, size), "cache-control": _CACHED}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    data = context.thumbnails.get(content, size, lambda: read_item(uri, path))
    return Response(data, media_type="image/webp", headers=headers)


def _preview(item: int, context: Context, characters: int) -> ItemPreview:
    """Return what is shown of an item in place of a picture."""
    _, uri, path = context.browser.content(item)
    match context.browser.modality(item):
        case Modality.IMAGE:
            return ItemPreview(kind="image")
        case Modality.AUDIO:
            return ItemPreview(kind="sound")
    text = decode_text(read_item(uri, path)).strip()
    return ItemPreview(kind="text", text=text[:characters], is_cut=len(text) > characters)


def _sound(item: int, context: Context, request: Request) -> Response:
    """Return the sound of an item, or the part of it that a player asks for."""
    content, uri, path = context.browser.content(item)
    headers = {"etag": content_etag(content, PLAYED_RATE), "cache-control": _CACHED}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    data = context.sounds.get(content, lambda: read_item(uri, path))
    return ranged_response(data, request.headers.get("range", ""), headers)
