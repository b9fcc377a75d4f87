"""Asking: search, SQL, numbers, export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, Unpack

import numpy as np
from numpy.typing import NDArray

from embedstore import timing
from embedstore.backbones.runtimes.runtime import Tower
from embedstore.classify import heads
from embedstore.errors import BadBackbone, QueryError
from embedstore.media.image import preprocess
from embedstore.operations.info import Counting
from embedstore.operations.query_encoder import Encoding
from embedstore.operations.session import FaceOptions
from embedstore.reports.item_images import read_item_images
from embedstore.reports.map_page import EmbeddingMap
from embedstore.reports.results import Hits
from embedstore.search.execute import item_vector
from embedstore.search.options import SearchOptions
from embedstore.search.projection import project
from embedstore.search.query_arithmetic import combine_vectors, query_from_examples
from embedstore.sources.local_files import load_image
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import export

if TYPE_CHECKING:
    from PIL.Image import Image


Query: TypeAlias = "str | Path | int | Image | NDArray[Any]"
Part: TypeAlias = "Query | tuple[Query, float]"


class AskOptions(TypedDict, total=False):
    """How many hits, which, and how: the fields of :class:`embedstore.search.options.SearchOptions`."""

    k: int | None
    offset: int
    where: str | None
    min_score: float | None
    group_by: str | None
    diversity: float
    exact: bool


@dataclass(frozen=True)
class Parts:
    """What a query is made of beside its first part."""

    plus: Sequence[Part]
    minus: Sequence[Part]
    like: Sequence[Query]
    unlike: Sequence[Query]


def asking(path: str | Path, **how: Unpack[FaceOptions]) -> Asking:
    """A store opened for asking only; arguments as of :func:`embedstore.open`.

    Raises:
        StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: as their names say.
    """
    return Asking(Storage.open(path), **how)


class Asking(Encoding, Counting):
    """Verbs that answer."""

    def search(
        self,
        query: Query | None = None,
        *,
        image: str | Path | bytes | Image | NDArray[np.uint8] | None = None,
        plus: Sequence[Part] = (),
        minus: Sequence[Part] = (),
        like: Sequence[Query] = (),
        unlike: Sequence[Query] = (),
        template: str | None = None,
        space: str | None = None,
        **options: Unpack[AskOptions],
    ) -> Hits:
        """The nearest items; with a filter, the nearest among those that match: if k match, k come back.

        Args:
            query: words (str), an image (Path, PIL image or uint8 ``(H, W, 3)`` array), a vector (1-D array) or an
                item's id (int).
            image: the query as an image: a path, encoded bytes, a PIL image or an array.
            plus, minus: parts to add and to take away (``a + b - c``), each a query or ``(query, weight)``.
            like, unlike: examples: more like these, less like those (Rocchio; with eight or more of either and no
                other query, a logistic regression between them).
            template: a prompt for words: a text with ``{}``, or a set: name, photo, simple, imagenet.
            space: name or key; by default the current one.
            **options: see :class:`AskOptions`.

        Raises:
            NoTextTower: words, in a space that knows images only.
            QueryError, BadFilter, UnknownColumn, ImageError: as their names say.
        """
        ask = SearchOptions(**options)
        row = self._storage.space(space)
        asked, words = self._asked(row, query, image, Parts(plus, minus, like, unlike), template)
        begin = time.perf_counter()
        found = self._searcher.search(row, asked, ask)
        seconds = time.perf_counter() - begin
        timing.add_step("the search itself", seconds)
        images = partial(read_item_images, self._storage)
        return Hits(found.hits, words, row.name, seconds, found.plan, images, found.notes)

    def map(
        self,
        *,
        colour: str = "label",
        where: str | None = None,
        space: str | None = None,
        most: int = 2000,
        seed: int = 0,
    ) -> EmbeddingMap:
        """The collection in the plane, coloured by a column; ``.html()`` and ``.png(path)`` draw it.

        Args:
            colour: a column of the items. where: a filter. space: name or key.
            most: of more items a random sample is shown. seed: of the sample and the projection.

        Raises:
            UnknownColumn, BadFilter: as their names say. QueryError: fewer than five items match.
        """
        row = self._storage.space(space)
        begin = time.perf_counter()
        found = project(self._storage, row, color=colour, where=where, max_items=most, seed=seed)
        images = partial(read_item_images, self._storage)
        return EmbeddingMap(found, colour, row.name, time.perf_counter() - begin, images)

    def export(self, path: str | Path, *, space: str | None = None, where: str | None = None) -> int:
        """Write items and vectors to a Parquet file, or vectors to ``.npy`` with a Parquet of the items beside it.

        Returns:
            The number of rows.
        """
        return export.export_items(self._storage, self._storage.space(space), Path(path), where=where)

    def _asked(
        self, row: SpaceRecord, query: Query | None, image: Any, parts: Parts, template: str | None
    ) -> tuple[NDArray[np.float32], str]:
        """Everything that was asked as one vector, and how to call it."""
        if query is not None and image is not None:
            raise QueryError("ask with words, an image, a vector or an item: one of them; add others with plus")
        terms: list[tuple[float, NDArray[np.float32]]] = []
        names: list[str] = []
        if image is not None:
            terms.append((1.0, self._image_vector(row, image)))
            names.append(_named(image))
        given: list[tuple[float, Any]] = [(1.0, query)] if query is not None else []
        for weight, part in (
            given + [_weighted(p) for p in parts.plus] + [(-w, p) for w, p in map(_weighted, parts.minus)]
        ):
            vector, name = self._vector(row, part, template)
            terms.append((weight, vector))
            names.append(("- " if weight < 0 else "+ " if names else "") + name)
        base = None if not terms else terms[0][1] if terms[0][0] == 1 and len(terms) == 1 else combine_vectors(terms)
        if not parts.like and not parts.unlike:
            if base is None:
                raise QueryError("ask with words, an image, a vector or an item")
            return base, " ".join(names)
        examples = [[self._vector(row, p, template)[0] for p in side] for side in (parts.like, parts.unlike)]
        vector, how = query_from_examples(base, *examples)
        names.append(f"{how} of {len(parts.like)} like and {len(parts.unlike)} unlike")
        return vector, " ".join(names)

    def _vector(self, row: SpaceRecord, query: Any, template: str | None) -> tuple[NDArray[np.float32], str]:
        """A query of any kind as a vector, and how to call it."""
        if isinstance(query, str):
            if not query.strip():
                raise QueryError("the query has no words")
            return self._text_vector(row, query, template), query
        if isinstance(query, int | np.integer) and not isinstance(query, bool):
            return item_vector(self._storage, row, int(query)), f"item {query}"
        if isinstance(query, np.ndarray) and query.ndim == 1:
            vector: NDArray[np.float32] = query
            return vector, "vector"
        return self._image_vector(row, query), _named(query)

    def _text_vector(self, row: SpaceRecord, words: str, template: str | None) -> NDArray[np.float32]:
        """Words through the text tower, in every sentence of a template set."""
        network = self._encoder(row, Tower.TEXT)
        if template is None:
            with timing.time_step("the words as a vector"):
                plain: NDArray[np.float32] = network.encode_texts([words])[0]
            return plain
        sentences = heads.build_prompts([words], [template] if "{}" in template else template)[words]
        mean: NDArray[np.float32] = heads.encode_class_vectors(network.encode_texts, {words: sentences})[0]
        return mean

    def _image_vector(self, row: SpaceRecord, image: Any) -> NDArray[np.float32]:
        """One image through the space's own preprocessing and backbone."""
        network = self._encoder(row, Tower.IMAGE)
        wanted = network.space.preprocess
        if wanted is None:
            raise BadBackbone(f"space {row.name} has no preprocessing for images")
        with timing.time_step("the image as a vector"):
            pixels = preprocess.resize_and_crop(load_image(image), wanted)
            vector: NDArray[np.float32] = network.encode_images(pixels[None])[0]
        return vector


def _weighted(part: Any) -> tuple[float, Any]:
    """A part and its weight, 1 where none is given."""
    query, weight = part if isinstance(part, tuple) else (part, 1.0)
    return float(weight), query


def _named(image: Any) -> str:
    """How to call an image query."""
    return str(image) if isinstance(image, str | Path) else "image"
