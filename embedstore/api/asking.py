"""Asking: search, SQL, numbers, export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore import decode, exporting
from embedstore.api.base import Face
from embedstore.decode import preprocess
from embedstore.errors import BadBackbone, QueryError
from embedstore.results import Hits, Rows
from embedstore.search import item_vector, search
from embedstore.store.info import info
from embedstore.store.storage import SpaceRow

if TYPE_CHECKING:
    from PIL.Image import Image


class Asking(Face):
    """Verbs that answer."""

    def search(
        self,
        query: str | Path | int | Image | NDArray[Any] | None = None,
        *,
        k: int = 10,
        image: str | Path | bytes | Image | NDArray[np.uint8] | None = None,
        where: str | None = None,
        space: str | None = None,
    ) -> Hits:
        """The k nearest items, exactly; with a filter, the k nearest among those that match.

        Args:
            query: words (str), an image (Path, PIL image or uint8 ``(H, W, 3)`` array), a vector (1-D array) or an
                item's id (int).
            k: hits wanted. image: the query as an image: a path, encoded bytes, a PIL image or an array.
            where: a boolean SQL expression over the items, e.g. ``"split = 'val' and label <> 'cat'"``.
            space: name or key; by default the current one.

        Raises:
            NoTextTower: words, in a space that knows images only.
            QueryError, BadFilter, UnknownColumn, ImageError: as their names say.
        """
        if (query is None) == (image is None):
            raise QueryError("ask with words, an image, a vector or an item: exactly one of them")
        row = self._storage.space(space)
        asked, words = (
            (self._image_vector(row, image), _named(image)) if image is not None else self._vector(row, query)
        )
        begin = time.perf_counter()
        hits = search(self._storage, row, asked, k=k, where=where)
        return Hits(tuple(hits), words, row.name, time.perf_counter() - begin)

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> Rows:
        """A read-only DuckDB query over the catalog's tables: items, contents, spaces, failures, runs …."""
        names, rows = self._storage.sql(query, parameters)
        return Rows(tuple(names), tuple(rows))

    def failures(self) -> Rows:
        """Every image that could not be embedded, with the reason."""
        return self.sql("SELECT uri, reason, detail, size, failed FROM failures ORDER BY uri")

    def info(self) -> dict[str, Any]:
        """Counts and sizes: items, contents, failures, spaces, indexes, heads, bytes."""
        return info(self._storage)

    def export(self, path: str | Path, *, space: str | None = None, where: str | None = None) -> int:
        """Write items and vectors to a Parquet file, or vectors to ``.npy`` with a Parquet of the items beside it.

        Returns:
            The number of rows.
        """
        return exporting.export(self._storage, self._storage.space(space), Path(path), where=where)

    def _vector(self, row: SpaceRow, query: Any) -> tuple[NDArray[np.float32], str]:
        """A query of any kind as a vector, and how to call it."""
        if isinstance(query, str):
            if not query.strip():
                raise QueryError("the query has no words")
            return self._text_backbone(row).encode_texts([query])[0], query
        if isinstance(query, int | np.integer) and not isinstance(query, bool):
            return item_vector(self._storage, row, int(query)), f"item {query}"
        if isinstance(query, np.ndarray) and query.ndim == 1:
            vector: NDArray[np.float32] = query
            return vector, "vector"
        return self._image_vector(row, query), _named(query)

    def _image_vector(self, row: SpaceRow, image: Any) -> NDArray[np.float32]:
        """One image through the space's own preprocessing and backbone."""
        network = self.backbone(row.name)
        wanted = network.space.preprocess
        if wanted is None:
            raise BadBackbone(f"space {row.name} has no preprocessing for images")
        pixels = preprocess.apply(decode.as_image(image), wanted)
        vector: NDArray[np.float32] = network.encode_images(pixels[None])[0]
        return vector


def _named(image: Any) -> str:
    """How to call an image query."""
    return str(image) if isinstance(image, str | Path) else "image"
