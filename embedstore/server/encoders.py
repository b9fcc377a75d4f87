"""The encoders of a server: words and images to vectors, per space, batched across requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedstore.server.batching import Batcher

if TYPE_CHECKING:
    from embedstore.store import Store

Vector = NDArray[np.float32]


class Encoders:
    """Encodes for all routes of one server. Threads may share it.

    Args:
        store: whose spaces encode.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._batchers: dict[tuple[str, str], Batcher[Any]] = {}
        self._lock = threading.Lock()

    def words(self, texts: Sequence[str], space: str) -> Vector:
        """Return the vectors of texts: float32 ``(n, D)``.

        Args:
            texts: the texts.
            space: the key of the space.

        Raises:
            NoTextTower: if the space has no text tower.
        """
        return self._batcher("words", space, lambda q: self._store.encode(texts=list(q), space=space)).encode(texts)

    def images(self, files: Sequence[bytes], space: str) -> Vector:
        """Return the vectors of image files, float32 ``(n, D)``, preprocessed as the space does.

        Args:
            files: the bytes of each, decoded before in a process of its own.
            space: the key of the space.

        Raises:
            ImageError: if an image cannot be decoded.
        """
        return self._batcher("images", space, lambda q: self._store.encode(images=list(q), space=space)).encode(files)

    def close(self) -> None:
        """End the threads."""
        for batcher in self._batchers.values():
            batcher.close()

    def _batcher(self, kind: str, space: str, encode: Callable[[Sequence[Any]], Vector]) -> Batcher[Any]:
        """Return the batcher of one kind of query in one space."""
        with self._lock:
            return self._batchers.setdefault((kind, space), Batcher(encode))
