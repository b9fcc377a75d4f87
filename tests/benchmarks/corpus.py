"""Generated vectors with structure, and a store of them, in a folder where a later run finds them.

They have 512 dimensions, 500 clusters on a 64-dimensional subspace with noise, unit length, and float16 precision. One
row in a hundred is a near copy of another (cosine about 0.98). Every item has a uniform number ``u`` to filter by.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import embedstore as es

DIM = 512
BLOCK = 65536  # rows, and the rows of a vector file
_ROWS_PER_COPY = 100  # one row in so many is a near copy

Block = tuple[int, NDArray[np.float32], NDArray[np.float64]]


def blocks(rows: int, *, first: int = 0) -> Iterator[Block]:
    """Yield ``(number of the first row, unit vectors (n, DIM), u (n,))``; a row does not depend on their number.

    Args:
        rows: the number after the last row.
        first: the number of the first row, a multiple of BLOCK.
    """
    fixed = np.random.default_rng(0)
    centers = fixed.standard_normal((500, 64), np.float32)
    spread = fixed.standard_normal((64, DIM), np.float32)
    for begin in range(first, rows, BLOCK):
        rng = np.random.default_rng([1, begin])
        low = centers[rng.integers(0, 500, BLOCK)] + 0.6 * rng.standard_normal((BLOCK, 64), np.float32)
        x = low @ spread + 0.5 * rng.standard_normal((BLOCK, DIM), np.float32)
        copies = x[:: 2 * _ROWS_PER_COPY]
        x[1 :: 2 * _ROWS_PER_COPY] = copies + 2.0 * rng.standard_normal(copies.shape, np.float32)
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        n = min(BLOCK, rows - begin)
        yield begin, x[:n].astype(np.float16).astype(np.float32), rng.random(BLOCK)[:n]


def add(store: es.Store, rows: int, *, first: int = 0) -> None:
    """Add the rows from ``first`` to ``rows`` to a store."""
    for begin, x, u in blocks(rows, first=first):
        table = {"uri": [f"/{i}.jpg" for i in range(begin, begin + len(x))], "u": u}
        store.add_vectors(x, table, space="bench", unit_norm=True)


def folder_of(folder: Path, rows: int) -> Path:
    """Return the folder of a number of rows, which is created if it is missing."""
    inside = folder / str(rows)
    inside.mkdir(parents=True, exist_ok=True)
    return inside


def open_or_create_store(folder: Path, rows: int) -> Path:
    """Return the path of a store with so many rows in a folder; it is created if it is missing."""
    path = folder_of(folder, rows) / "bench.store"
    if not path.exists():
        temporary = path.with_name("temporary.store")
        add(es.create(temporary), rows)
        temporary.rename(path)
    return path


def arrays_of(folder: Path, rows: int) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float32]]:
    """Return ``(x (rows, DIM), u (rows,), q (7, DIM))`` from ``.npy`` files; x is mapped, q are near rows of it."""
    folder = folder_of(folder, rows)
    if not (folder / "q.npy").exists():
        x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (rows, DIM))
        u = np.empty(rows)
        for begin, part, share in blocks(rows):
            x[begin : begin + len(part)], u[begin : begin + len(part)] = part, share
        x.flush()
        rng = np.random.default_rng(2)
        q = x[np.sort(rng.integers(0, rows, 7))] + 0.02 * rng.standard_normal((7, DIM), np.float32)
        np.save(folder / "u.npy", u)
        np.save(folder / "q.npy", (q / np.linalg.norm(q, axis=1, keepdims=True)).astype(np.float32))
    x, u, q = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in "xuq")
    return x, np.asarray(u), np.asarray(q)
