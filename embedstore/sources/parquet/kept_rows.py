"""Which rows of a Parquet file have no bytes, kept in the store where the file's statistics do not say it.

One file per column, in the folder of the listings of archives; a rescan of a Parquet file that did not change reads no
image. A damaged file is made again.
"""

from __future__ import annotations

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreError
from embedstore.sources.parquet.rows import ImageColumn
from embedstore.storage.durable_files import atomic_write

FORMAT = 1


def rows_without_bytes(images: ImageColumn, listings: Path | None) -> NDArray[np.bool_]:
    """Return for every row whether it has no bytes.

    Args:
        images: the column of images.
        listings: the store's folder of listings; None keeps nothing.

    Raises:
        ImageError: if the file cannot be read.
    """
    if listings is None or images.statistics_tell_nulls:
        return images.rows_without_bytes()
    file = listings / f"{sha256(f'{images.path}#{images.column}'.encode()).hexdigest()[:32]}.json"
    head = [FORMAT, images.path, images.column, images.version_ns, images.row_count]
    kept = _load(file, head)
    if kept is None:
        kept = images.rows_without_bytes()
        _save(file, head, kept)
    return kept


def _load(file: Path, head: list[Any]) -> NDArray[np.bool_] | None:
    """Return the rows that were kept for this state of the file; None if there are none that are whole."""
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["file"] == head:
            without = np.zeros(head[-1], dtype=np.bool_)
            for first, end in content["without"]:
                without[int(first) : int(end)] = True
            return without if int(without.sum()) == content["count"] else None
    return None


def _save(file: Path, head: list[Any], without: NDArray[np.bool_]) -> None:
    """Keep the rows, as ranges; a store that cannot be written goes without."""
    edges = np.flatnonzero(np.diff(without.astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    content = {"file": head, "without": edges.tolist(), "count": int(without.sum())}
    with suppress(OSError, StoreError):
        file.parent.mkdir(exist_ok=True)
        with atomic_write(file) as out:
            out.write(json.dumps(content).encode())
