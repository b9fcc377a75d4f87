"""Two classes under one name, and one class under two, in real and generated vectors: how many are found.

``python -m tests.benchmarks.bench_class_faults [--vectors FOLDER]``. The sets are those of ``bench_suggest``. In each,
ten pairs of classes drawn at random get one name, and half of ten classes drawn at random another name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from embedstore.arrays import FloatArray
from embedstore.classify.evaluation.class_faults import class_rows, outlier_rows, same_classes, two_clusters
from tests.benchmarks.suggest_sets import data_sets

_TRIALS = 10


def main() -> None:
    """Print a table of what is found in each set as it is, and with a known fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, help="where vectors of the shared data are kept")
    print(
        "| set | classes | reported as two | pairs reported as one | items unlike all | joined found | halved found |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, rows in data_sets(parser.parse_args().vectors):
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


if __name__ == "__main__":
    main()
