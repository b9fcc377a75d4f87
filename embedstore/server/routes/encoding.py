"""Vectors of words and images that are sent, and classes of images that are sent."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field

from embedstore.server.context import Context, ServerContext
from embedstore.server.errors import Refusal
from embedstore.server.models import Model, Text
from embedstore.server.routes.searching import BINARY_BODY
from embedstore.tables import to_json_value

router = APIRouter(tags=["encode"])

SpaceName = Annotated[str | None, Query(max_length=200)]


class WordsRequest(Model):
    """Texts to encode."""

    words: Annotated[list[Text], Field(min_length=1, max_length=256)]
    space: str | None = None


class VectorsBody(Model):
    """Vectors of length 1 of one space."""

    space: str
    key: str = Field(description="The key of the space: only vectors of the same key can be compared.")
    vectors: list[list[float]]


class ClassBody(Model):
    """What a saved classifier says of an image."""

    head: str
    records: list[dict[str, Any]] = Field(description="As `classify --json` of the command line.")


@router.post("/encode")
def encode_words(request: WordsRequest, context: Context) -> VectorsBody:
    """Return the vectors of texts; the requests of several clients are encoded together."""
    record = context.session.space(request.space)
    vectors = context.encoders.words(request.words, record.key)
    return VectorsBody(space=record.name, key=record.key, vectors=vectors.tolist())


@router.post("/encode/image", openapi_extra=BINARY_BODY)
async def encode_image(request: Request, context: Context, space: SpaceName = None) -> VectorsBody:
    """Return the vector of an image, whose bytes are the body, with the preprocessing of the space."""
    data = await _body(request)
    return await context.thumbnails.run(partial(_encode_image, context, data, space))


@router.post("/classify/image", openapi_extra=BINARY_BODY)
async def classify_image(
    request: Request, context: Context, head: Annotated[str, Query(min_length=1, max_length=200)]
) -> ClassBody:
    """Return what a saved classifier says of an image, whose bytes are the body."""
    data = await _body(request)
    return await context.thumbnails.run(partial(_classify_image, context, data, head))


async def _body(request: Request) -> bytes:
    """Return the body of a request."""
    data = await request.body()
    if not data:
        raise Refusal(400, "the body is empty", "send the bytes of an image file")
    return data


def _encode_image(context: ServerContext, data: bytes, space: str | None) -> VectorsBody:
    """Encode one image; a process of its own decodes it first, without loss."""
    record = context.session.space(space)
    vectors = context.encoders.images([context.thumbnails.decode(data)], record.key)
    return VectorsBody(space=record.name, key=record.key, vectors=vectors.tolist())


def _classify_image(context: ServerContext, data: bytes, head: str) -> ClassBody:
    """Classify one image."""
    found = context.store.classify(context.thumbnails.decode(data), head, evidence=0, progress=False)
    return ClassBody(head=head, records=to_json_value(found.records()))
