"""Compare ``--protocol dinov3`` with the published procedure, run next to it with scikit-learn on the same features.

``python -m tests.benchmarks.bench_protocols features.npz [...]`` reads files with ``X`` (N, D) and ``y`` (N,).
``--synthetic N,D,K`` generates features of that shape. A tenth of the rows selects C among 45 values, and all are
fitted again: in float64 by L-BFGS with a tolerance of 1e-12 and 1,000 iterations, one fit per C, as ``dinov3/eval``
does without its Intel extension. Both use one thread, and CPU seconds are compared, which other processes change least.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from embedstore.classify.data.features import Features
from embedstore.classify.protocols.c_search import DINO_GRID, search_grid
from embedstore.classify.protocols.choice_rows import split_for_choice
from embedstore.classify.protocols.protocol import Protocol
from tests.benchmarks.bench_probe import synthetic


def features_of(X, y):
    """Return rows as features, each its own group, without a split."""
    labels, none = np.asarray(y).astype(str).astype(object), np.full(len(X), None, dtype=object)
    ids = np.arange(len(X))
    return Features(np.asarray(X, np.float32), labels, ids, ids, none, 0, 0)


def published(split):
    """Return C and the final fit of the published procedure on the rows that the protocol drew."""
    X, y = split.data.X.astype(np.float64), split.data.y.astype(str)

    def fit(rows, C):
        return LogisticRegression(C=C, max_iter=1000, tol=1e-12).fit(X[rows], y[rows])

    accuracy = [(fit(split.fitted, C).predict(X[split.choice]) == y[split.choice]).mean() for C in DINO_GRID]
    C = float(DINO_GRID[int(np.argmax(accuracy))])
    return C, fit(np.arange(len(y)), C)


def timed(function, *arguments):
    """Return the result and the CPU seconds."""
    start = time.process_time()
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return function(*arguments), time.process_time() - start


def compare(name, X, y):
    """Print one row of the table: C and held-out accuracy of both, CPU seconds and their ratio."""
    order = np.random.default_rng(0).permutation(len(X))
    test, train = order[: len(X) // 5], order[len(X) // 5 :]
    split = split_for_choice(Protocol.DINOV3, features_of(X[train], np.asarray(y)[train]), len(train))
    ours, our_seconds = timed(search_grid, split)
    (C, theirs), their_seconds = timed(published, split)
    labels = np.asarray(y)[test].astype(str)
    accuracy = [float((h.predict(X[test]) == labels).mean()) for h in (ours.estimator, theirs)]
    print(
        f"| {name} | {ours.C:.4g} | {C:.4g} | {accuracy[0]:.4f} | {accuracy[1]:.4f} | {our_seconds:.2f} | "
        f"{their_seconds:.2f} | {their_seconds / our_seconds:.1f} |",
        flush=True,
    )


def main():
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--synthetic", nargs="*", default=[], metavar="N,D,K")
    args = parser.parse_args()
    print("| features | C | C, published | accuracy | accuracy, published | s | s, published | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for file in args.files:
        with np.load(file) as data:
            compare(file.stem, data["X"], data["y"])
    for text in args.synthetic:
        shape = tuple(map(int, text.split(",")))
        compare(f"generated {text}", *synthetic(*shape))


if __name__ == "__main__":
    main()
