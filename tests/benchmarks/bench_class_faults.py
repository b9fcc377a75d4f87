"""Two classes under one name, and one class under two, in real and generated vectors: how many are found.

``python -m tests.benchmarks.bench_class_faults [--vectors FOLDER]``. The sets are those of ``bench_suggest``. In each,
ten pairs of classes drawn at random get one name, and half of ten classes drawn at random another name.

``--separations`` instead joins two normal classes whose centers are some standard deviations apart, and compares what
is found with the same test on the line through the true centers, which nobody knows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from embedstore.arrays import FloatArray
from embedstore.classify.evaluation.class_faults import (
    LEVEL,
    class_rows,
    one_mode_p_value,
    outlier_rows,
    same_classes,
    two_clusters,
)
from tests.benchmarks.suggest_sets import data_sets

_TRIALS = 10
_SEPARATIONS = (0, 2, 3, 4, 5, 6, 8)  # of two centers, in standard deviations
_SEPARATION_TRIALS = 40
_SIZES = ((40, 16), (40, 128), (200, 16), (200, 128))  # rows of the joined class, numbers per row


def main() -> None:
    """Print a table of what is found in each set as it is, and with a known fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, help="where vectors of the shared data are kept")
    parser.add_argument("--separations", action="store_true", help="what is found by the distance of two centers")
    options = parser.parse_args()
    if options.separations:
        print_separations()
        return
    print(
        "| set | classes | reported as two | pairs reported as one | items unlike all | joined found | halved found |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in data_sets(options.vectors):
        y = rows.y.astype(str).astype(object)
        classes = class_rows(y.astype(str))
        counts = [len(two_clusters(rows.X, classes)), len(same_classes(rows.X, classes))]
        outliers = len(outlier_rows(rows.X, classes))
        joined, halved = known_faults(rows.X, y, list(classes))
        cells = [len(classes), *counts, outliers, f"{joined} of {_TRIALS}", f"{halved} of {_TRIALS}"]
        print(f"| {name} |", " | ".join(map(str, cells)), "|", flush=True)


def known_faults(X: FloatArray, y: np.ndarray, names: list[str]) -> tuple[int, int]:
    """Return how many of ten joined and of ten halved classes are reported."""
    rng, joined, halved = np.random.default_rng(0), 0, 0
    for _ in range(_TRIALS):
        first, second = rng.choice(names, 2, replace=False)
        one_name = np.where(y == second, first, y).astype(str)
        joined += first in [cluster.name for cluster in two_clusters(X, class_rows(one_name))]
        two_names = np.where((y == first) & (rng.random(len(y)) < 0.5), "other", y).astype(str)
        halved += any({"other", first} == set(pair.names) for pair in same_classes(X, class_rows(two_names)))
    return joined, halved


def print_separations() -> None:
    """Print how many of two joined normal classes are found, and by the line through their true centers."""
    print("| rows, numbers |", " | ".join(map(str, _SEPARATIONS)), "|\n" + "| --- " * (len(_SEPARATIONS) + 1) + "|")
    for count, dim in _SIZES:
        found = np.array([[joined_found(count, dim, apart, seed) for seed in range(_SEPARATION_TRIALS)]
                          for apart in _SEPARATIONS]).mean(1)  # fmt: skip
        cells = [f"{share:.0%} ({with_line:.0%})" for share, with_line in found]
        print(f"| {count}, {dim} |", " | ".join(cells), "|", flush=True)


def joined_found(count: int, dim: int, apart: float, seed: int) -> tuple[bool, bool]:
    """Return whether one joined class is found, and whether the same test finds it on the line of the true centers."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(count, dim)).astype(np.float32)
    place = np.arange(count) % 2
    X[:, 0] += (place - 0.5) * apart
    found = bool(two_clusters(X, {"joined": np.arange(count)}))
    return found, apart > 0 and one_mode_p_value(X[:, 0] / apart + 0.5) < LEVEL


if __name__ == "__main__":
    main()
