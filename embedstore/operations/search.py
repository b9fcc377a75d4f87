"""Search, map and export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from embedstore import timing
from embedstore.backbones.runtimes.runtime import Tower
from embedstore.classify import heads
from embedstore.errors import BadBackbone, ImageError, ItemError, QueryError
from embedstore.exports.formats import export_options
from embedstore.exports.run import ExportReport, export_items
from embedstore.media.image import preprocess
from embedstore.modality import Modality
from embedstore.operations.point_map import PointMaps
from embedstore.operations.query_arguments import (
    ImageQuery,
    Query,
    QueryImage,
    QueryPart,
    parse_image,
    parse_parts,
    parse_query,
    parse_weighted,
)
from embedstore.operations.query_encoder import encoder
from embedstore.operations.replicas import search_replica
from embedstore.operations.session import Session
from embedstore.operations.text_encoder import TextEncoder, cut_notes
from embedstore.reports.item_images import read_item_images
from embedstore.reports.map_page import EmbeddingMap
from embedstore.reports.progress import Progress, message_progress
from embedstore.reports.results import Hits
from embedstore.search.execute import item_vector, unit_query
from embedstore.search.index import build
from embedstore.search.options import SearchOptions, Words
from embedstore.search.projection import project, show_places
from embedstore.search.query_arithmetic import combine_vectors, query_from_examples
from embedstore.sources.locations import load_image, read_location
from embedstore.storage.spaces import SpaceRecord
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.backbones.sequence import SequenceBackbone

Vector: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class QueryParts:
    """All that one query consists of.

    Attributes:
        query: text, an image, a vector or an item id.
        image: the query as an image.
        plus: parts that are added.
        minus: parts that are subtracted.
        like: examples of what is wanted.
        unlike: examples of what is not wanted.
        templates: a prompt template with ``{}``, or the name of a template set, for text.
    """

    query: Query | None = None
    image: ImageQuery | None = None
    plus: Sequence[QueryPart] = ()
    minus: Sequence[QueryPart] = ()
    like: Sequence[Query] = ()
    unlike: Sequence[Query] = ()
    templates: str | None = None

    @classmethod
    def parse(
        cls, query: Any, image: Any, *, plus: Any, minus: Any, like: Any, unlike: Any, templates: str | None
    ) -> QueryParts:
        """Return the parts that a caller passed in any form.

        Raises:
            QueryError: if a part is none of what a query can be.
        """
        return cls(
            query,
            image,
            parse_parts(plus, "plus"),
            parse_parts(minus, "minus"),
            parse_parts(like, "like"),
            parse_parts(unlike, "unlike"),
            templates,
        )

    def words(self, column: str | None) -> Words | None:
        """Return what a hybrid search looks for in a column; None without a column.

        Raises:
            QueryError: if the query is no text.
        """
        if column is None:
            return None
        if not isinstance(self.query, str):
            raise QueryError(
                f"a hybrid search of column {column} needs a text as the query; give one, or leave out hybrid"
            )
        return Words(self.query, column)


def search(
    session: Session, parts: QueryParts, *, space: str | None, options: SearchOptions, replica: str | None = None
) -> Hits:
    """Search a space; see :meth:`embedstore.Store.search`."""
    record = session.space(space)
    text = _QueryText(parts.templates, [])
    vector, description = _query_vector(session, record, parts, text)
    begin = time.perf_counter()
    if replica is None:
        result = session.searcher.search(record, vector, options)
    else:
        result = search_replica(session, record, vector, options, replica)
    seconds = time.perf_counter() - begin
    timing.add_step("search", seconds)
    images = partial(read_item_images, session.storage)
    notes = (*cut_notes(text.cut_texts), *result.notes)
    return Hits(result.hits, description, record.name, seconds, result.plan, images, notes)


def project_items(
    session: Session, *, color_by: str, where: str | None, space: str | None, max_items: int | None, seed: int
) -> EmbeddingMap:
    """Project items onto a plane; see :meth:`embedstore.Store.map`."""
    record = session.space(space)
    begin = time.perf_counter()
    if max_items is None and where is None and seed == 0:
        projection = show_places(session.storage, record, PointMaps(session).places(space), color=color_by)
    else:
        projection = project(session.storage, record, color=color_by, where=where, max_items=max_items, seed=seed)
    images = partial(read_item_images, session.storage)
    return EmbeddingMap(projection, color_by, record.name, time.perf_counter() - begin, images)


def build_index(
    session: Session,
    *,
    recall: float,
    max_memory: str | int | None,
    kind: str | None,
    space: str | None,
    wait: float,
    progress: Progress,
) -> build.IndexBuild:
    """Build an approximate index; see :meth:`embedstore.Store.build_index`."""
    record = session.space(space)
    with message_progress(progress) as callback:
        target = build.IndexTarget(recall, max_memory, kind)
        return build.build_index(session.storage, record, target, progress=callback, wait=wait)


def export(
    session: Session,
    path: Path,
    *,
    file_format: str | None,
    vectors: bool | None,
    dtype: str | None,
    space: str | None,
    where: str | None,
) -> ExportReport:
    """Export items, vectors and images; see :meth:`embedstore.Store.export`."""
    record = session.space(space)
    options = export_options(path, format_name=file_format, vectors=vectors, dtype=dtype, stored=record.dtype)
    return export_items(session.storage, record, path, options, where=where)


@dataclass(frozen=True)
class _QueryText:
    """How the texts of a query are encoded.

    Attributes:
        templates: a prompt template, or the name of a set.
        cut_texts: the texts whose end the network did not read.
    """

    templates: str | None
    cut_texts: list[str]


def _query_vector(session: Session, record: SpaceRecord, parts: QueryParts, text: _QueryText) -> tuple[Vector, str]:
    """Return all parts of a query as one vector, and a description of it."""
    if parts.query is not None and parts.image is not None:
        raise QueryError("give one of text, an image, a vector or an item; add others with plus")
    terms: list[tuple[float, Vector]] = []
    names: list[str] = []
    if parts.image is not None:
        image = parse_image(parts.image)
        terms.append((1.0, _image_vector(session, record, image)))
        names.append(image.name)
    for weight, part in _weighted_parts(parts):
        vector, name = _part_vector(session, record, part, text)
        terms.append((weight, vector))
        names.append(("- " if weight < 0 else "+ " if names else "") + name)
    base = None if not terms else terms[0][1] if terms[0][0] == 1 and len(terms) == 1 else combine_vectors(terms)
    if not parts.like and not parts.unlike:
        if base is None:
            raise QueryError("the query is empty; give text, an image, a vector or an item")
        return base, " ".join(names)
    examples = [[_part_vector(session, record, p, text)[0] for p in side] for side in (parts.like, parts.unlike)]
    vector, method = query_from_examples(base, *examples)
    sides = [
        counted(len(side), f"example {how}", f"examples {how}")
        for side, how in ((parts.like, "like this"), (parts.unlike, "not like this"))
        if side
    ]
    names.append(f"{'+ ' if names else ''}{' and '.join(sides)} ({method})")
    return vector, " ".join(names)


def _weighted_parts(parts: QueryParts) -> list[tuple[float, Any]]:
    """Return the query and its plus and minus parts with their signed weights."""
    query = [(1.0, parts.query)] if parts.query is not None else []
    plus, minus = (list(map(parse_weighted, side)) for side in (parts.plus, parts.minus))
    return query + [(w, part) for part, w in plus] + [(-w, part) for part, w in minus]


def _part_vector(session: Session, record: SpaceRecord, part: Any, text: _QueryText) -> tuple[Vector, str]:
    """Return the vector and the description of one part of a query."""
    query = parse_query(part)
    if isinstance(query, str):
        if not query.strip():
            raise QueryError("the query text is empty")
        return _text_vector(session, record, query, text), query
    if isinstance(query, int):
        return item_vector(session.storage, record, query), f"item {query}"
    if isinstance(query, QueryImage):
        return _image_vector(session, record, query), query.name
    return unit_query(record, query), "vector"


def _text_vector(session: Session, record: SpaceRecord, query: str, text: _QueryText) -> Vector:
    """Encode text, alone or as the mean over prompt templates."""
    text_encoder = TextEncoder(encoder(session, record, Tower.TEXT), text.cut_texts)
    templates = text.templates
    if templates is None:
        with timing.time_step("encode the text"):
            plain: Vector = text_encoder.encode_texts([query])[0]
        return plain
    sentences = heads.build_prompts([query], [templates] if "{}" in templates else templates)[query]
    mean: Vector = heads.encode_class_vectors(text_encoder.encode_texts, {query: sentences})[0]
    return mean


def _image_vector(session: Session, record: SpaceRecord, image: QueryImage) -> Vector:
    """Encode one image, or one file of what the space is of, with the preprocessing and backbone of the space."""
    if record.space.modality is not Modality.IMAGE:
        return _file_vector(session, record, image)
    image_encoder = encoder(session, record, Tower.IMAGE)
    wanted = image_encoder.space.preprocess
    if wanted is None:
        raise BadBackbone(f"space {record.name} has no image preprocessing; search with a vector or an item id")
    with timing.time_step("encode the image"):
        try:
            decoded = load_image(image.source, wanted.decoding_settings)
        except ImageError as e:
            raise ImageError(e.reason, f"{image.name}: {e.detail}") from e
        pixels = preprocess.resize_and_crop(decoded, wanted)
        vector: Vector = image_encoder.encode_images(pixels[None])[0]
    return vector


def _file_vector(session: Session, record: SpaceRecord, file: QueryImage) -> Vector:
    """Encode one clip or one file of text as an item of its space."""
    plural = record.space.modality.plural
    if not isinstance(file.source, str | bytes):
        raise BadBackbone(f"space {record.name} is of {plural}, not of images; search it with a file of {plural}")
    backbone = cast("SequenceBackbone", session.any_backbone(record.key))
    with timing.time_step("encode the file"):
        try:
            data = file.source if isinstance(file.source, bytes) else read_location(file.source)
            prepared, _ = backbone.prepare(data)
        except ItemError as e:
            raise type(e)(e.reason, f"{file.name}: {e.detail}") from e
        vector: Vector = backbone.encode([prepared])[0]
    return vector
