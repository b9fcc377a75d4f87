"""Suggestions among a million items: processor time of the first call and of later ones, and what the sample costs.

``python -m tests.benchmarks.bench_suggest_large [--rows 1000000] [--classes 50]``. Generated vectors, 128 numbers, 200
labels. For what the sample costs, five batches of 20 are labeled, chosen among a sample of 100,000 and among all, from
the same 200 labels; a logistic regression is judged on 5,000 other items.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import embedstore as es
from embedstore.classify.evaluation import active_learning
from tests.benchmarks.bench_suggest import Pool, fit
from tests.benchmarks.suggest_sets import Rows

_DIM, _LABELS, _BATCH, _TEST, _CALLS = 128, 200, 20, 5_000, 5


def generated(rows: int, classes: int) -> Rows:
    """Return rows of classes of unequal size, and their class."""
    rng = np.random.default_rng(0)
    y = rng.choice(classes, rows, p=rng.dirichlet(np.full(classes, 2.0)))
    X = (rng.normal(size=(classes, _DIM)) * 0.3)[y].astype(np.float32)
    X += rng.standard_normal(X.shape, np.float32)
    return Rows(X / np.linalg.norm(X, axis=1, keepdims=True), y)


def call_times(rows: Rows, folder: Path) -> list[tuple[float, float]]:
    """Return the seconds and the seconds of the processor of each call on a store; a label is set after each."""
    store = es.create(folder / "large.store")
    labels = [f"c{c}" if n < _LABELS else None for n, c in enumerate(rows.y.tolist())]
    store.add_vectors(rows.X, {"uri": [f"/{n}" for n in range(len(labels))], "label": labels})
    store = es.open(folder / "large.store")
    times = []
    for _ in range(_CALLS):
        wall, processor = time.perf_counter(), time.process_time()
        found = store.suggest_labels(k=_BATCH)
        times.append((time.perf_counter() - wall, time.process_time() - processor))
        item = found.suggestions[0].item
        store.edit({"label": f"'c{rows.y[item - 1]}'"}, items=[item])
    return times


def accuracy_after(rows: Rows, pool: NDArray[np.int64], seed: int) -> float:
    """Return the accuracy after five batches that were chosen among some rows."""
    train = Rows(rows.X[:-_TEST], rows.y[:-_TEST])
    labeled = np.random.default_rng(seed).choice(len(train.X), _LABELS, replace=False).tolist()
    for _ in range(5):
        free = np.setdiff1d(pool, labeled)
        known = active_learning.LabeledRows(train.X[labeled], train.y[labeled].astype(str).astype(object))
        chosen = active_learning.suggest_labels(
            fit(train, labeled), Pool(train.X[free], free), known, _BATCH, seed=seed
        )[1]
        labeled += [s.item for s in chosen]
    return float((fit(train, labeled).predict(rows.X[-_TEST:]) == rows.y[-_TEST:].astype(str)).mean())


def main() -> None:
    """Print the times, and the accuracy by a sample and by all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=50)
    options = parser.parse_args()
    rows = generated(options.rows, options.classes)
    with tempfile.TemporaryDirectory() as folder:
        for n, (wall, processor) in enumerate(call_times(rows, Path(folder))):
            print(f"call {n + 1}: {wall:.2f} s, {processor:.2f} s of the processor", flush=True)
    sample, everything = active_learning.UNCERTAIN_POOL, len(rows.X) - _TEST
    active_learning.UNCERTAIN_POOL = everything
    for name, count in (("a sample", sample), ("all", everything)):
        accuracies = [
            accuracy_after(rows, np.random.default_rng(seed).permutation(everything)[:count], seed) for seed in range(5)
        ]
        print(
            f"accuracy with {_LABELS + 5 * _BATCH} labels, chosen among {name}: {np.mean(accuracies):.4f}", flush=True
        )


if __name__ == "__main__":
    main()
