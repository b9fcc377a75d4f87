"""Heads that would remember what is purged: they hold a copy of a vector, or a class that only purged items had."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify.head_folder import HeadFolder
from embedstore.classify.heads import head_files
from embedstore.classify.registry import HeadRecord, list_heads
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer

_SAME = 0.9999  # cosine of a vector and its copy, which may be in float16 and of another length
_BLOCK = 2048  # rows compared at once


def heads_that_remember(
    storage: Storage, vectors: Mapping[str, NDArray[np.float32]], texts: Collection[str]
) -> list[HeadRecord]:
    """Return the heads that hold a copy of one of the vectors, or have one of the texts as a class.

    A k-nearest-neighbor head holds its training vectors; the weights of others are sums over all of them.

    Args:
        storage: the store.
        vectors: float32 ``(n, dim)`` by key of the space.
        texts: the texts.
    """
    known = set(texts)
    return [
        record
        for record in list_heads(storage)
        if known & set(record.metadata.get("classes", ()))
        or any(_holds(array, vectors.get(record.space_key)) for array in _arrays(storage, record))
    ]


def delete_heads(writer: Writer, records: Collection[HeadRecord]) -> None:
    """Delete heads with their files and predictions."""
    for record in records:
        writer.drop_head(record.name)
        HeadFolder(writer.layout.root, record.name).delete()


def _arrays(storage: Storage, record: HeadRecord) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a head; none if its files are missing."""
    from safetensors.numpy import load_file

    folder = HeadFolder(storage.layout.root, record.name).find(record.metadata.get("digest", ""))
    path = folder / head_files.ARRAYS_FILE
    if path.is_file():
        yield from load_file(path).values()


def _holds(array: NDArray[Any], vectors: NDArray[np.float32] | None) -> bool:
    """Return whether a row of an array is a copy of one of the vectors."""
    if vectors is None or array.ndim != 2 or array.shape[1] != vectors.shape[1] or array.dtype.kind != "f":
        return False
    rows, wanted = unit_rows(array.astype(np.float32)), unit_rows(vectors)
    return any(
        bool((rows[i : i + _BLOCK] @ wanted[j : j + _BLOCK].T >= _SAME).any())
        for i in range(0, len(rows), _BLOCK)
        for j in range(0, len(wanted), _BLOCK)
    )
