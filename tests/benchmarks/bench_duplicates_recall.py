"""Pairs of cosine 0.999 and more that `duplicates` finds in 100,000 vectors, against brute force.

``python -m tests.benchmarks.bench_duplicates_recall [--rows 100000]``. Generated vectors of 128 numbers around 500
centers, and CLIP's vectors of the 500 images of CIFAR-10 in the shared data with noise of any strength, so that images
that look alike are at every cosine from 0.9 to 1. A tenth of the rows are copies of others, with noise as from a file
that was saved again. Brute force multiplies every row with every other. Seconds are of processor time, of all threads,
so that other programs on the machine do not change them much.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import embedstore as es
from embedstore.arrays import unit_rows
from tests.benchmarks import peak

DATA = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "../shared/data"))
THRESHOLD = 0.999
_COPIES, _COPY_NOISE = 0.1, 0.03  # of the rows; length of the noise, a cosine of about 0.9995
_BLOCK = 1024
_ROUNDING = 1e-6  # of a product in single precision


def generated(rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return unit rows of 128 numbers around 500 centers."""
    centers = unit_rows(rng.normal(size=(500, 128)))
    return unit_rows(centers[rng.integers(0, 500, rows)] + 0.05 * rng.normal(size=(rows, 128)))


def clip(rows: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return unit rows around CLIP's vectors of images."""
    real = unit_rows(np.load(DATA / "clip_vectors" / "cifar500_image_vectors.npy"))
    noise = unit_rows(rng.normal(size=(rows, real.shape[1])))
    return unit_rows(real[rng.integers(0, len(real), rows)] + noise * rng.uniform(0.05, 0.5, (rows, 1)))


def with_copies(X: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return rows of which some are copies of others, as float16 keeps them."""
    count = int(_COPIES * len(X))
    noise = unit_rows(rng.normal(size=(count, X.shape[1]))) * rng.uniform(0, _COPY_NOISE, (count, 1))
    X[:count] = unit_rows(X[count : 2 * count] + noise)
    return X[rng.permutation(len(X))].astype(np.float16).astype(np.float32)


def brute_force(X: NDArray[np.float32]) -> set[tuple[int, int]]:
    """Return all pairs of rows whose cosine reaches the threshold; those near it are computed in double precision."""
    X, found = unit_rows(X), set()
    for begin in range(0, len(X), _BLOCK):
        i, j = np.nonzero(X[begin : begin + _BLOCK] @ X[begin:].T >= THRESHOLD - _ROUNDING)
        pairs = [(a + begin, b + begin) for a, b in zip(i.tolist(), j.tolist(), strict=True) if a < b]
        found |= {(a, b) for a, b in pairs if _cosine(X[a], X[b]) >= THRESHOLD}
    return found


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Return the cosine in double precision."""
    one, other = a.astype(np.float64), b.astype(np.float64)
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def pairs_of_store(path: str) -> tuple[list[list[int]], int, float]:
    """Return the pairs of items that are in one group, as rows, how many pairs were reported, and processor seconds."""
    begin = time.process_time()
    found = es.open(path).duplicates(threshold=THRESHOLD)
    seconds = time.process_time() - begin
    groups: dict[int, list[int]] = {}
    for member in found.items:
        groups.setdefault(member.group, []).append(member.item - 1)
    return [[a, b] for g in groups.values() for a in g for b in g if a < b], found.to_json()["pairs"], seconds


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    print("| vectors | brute force, s | duplicates, s | peak GiB | pairs | found | reported |\n" + "| --- " * 7 + "|")
    for make in (generated, clip):
        rng = np.random.default_rng(0)
        X = with_copies(make(rows, rng), rng)
        with tempfile.TemporaryDirectory() as folder:
            es.create(Path(folder) / "s").add_vectors(X, {"uri": [f"/{n}" for n in range(rows)]}, dtype="float16")
            begin = time.process_time()
            true = brute_force(X)
            brute_seconds = time.process_time() - begin
            (found, reported, seconds), _, gib = peak.measured(pairs_of_store, str(Path(folder) / "s"))
        cells = [make.__name__, f"{brute_seconds:.0f}", f"{seconds:.0f}", f"{gib:.2f}"]
        print(
            f"| {' | '.join(cells)} | {len(true):,} | {len(true & set(map(tuple, found))):,} | {reported:,} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
