"""Compare all heads on the same features: accuracy and CPU seconds, and how far the default is behind the best.

``python -m tests.benchmarks.bench_heads [features.npz ...]`` reads files with ``X`` (N, D) and ``y`` (N,), and adds the
data sets that scikit-learn contains and generated ones. Each is divided five times at random, at most ``--rows`` rows
for training. Features are standardized unless they come from a file: those are vectors of a network.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn import datasets
from threadpoolctl import threadpool_limits

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.fit import fit_head
from tests.benchmarks.bench_probe import synthetic

DRAWS = 5
DEFAULT = "logistic"
BEHIND = 0.002  # the default shall be within 0.2 points of the best


def data_sets(files):
    """Yield name, features and labels."""
    for file in files:
        with np.load(file) as data:
            yield file.stem, np.asarray(data["X"], np.float32), data["y"].astype(str)
    for name in ("digits", "wine", "breast_cancer", "iris"):
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
        yield name, standardized(X), y.astype(str)
    for shape in ((1000, 64, 5), (1000, 512, 10), (1200, 128, 40)):
        X, y = synthetic(*shape)
        yield f"generated {','.join(map(str, shape))}", X, y.astype(str)
    for name, (X, y) in {
        "two moons": lifted(*datasets.make_moons(1000, noise=0.2, random_state=0)),
        "rings": lifted(*datasets.make_circles(1000, noise=0.1, factor=0.5, random_state=0)),
        "clusters per class": datasets.make_classification(
            1000, 20, n_informative=8, n_classes=3, n_clusters_per_class=3, random_state=0
        ),
        "few informative": datasets.make_classification(1000, 200, n_informative=10, n_classes=4, random_state=0),
    }.items():
        yield name, standardized(X), y.astype(str)


def lifted(X, y, dim=64):
    """Return points of a plane as a random layer of a network sees them."""
    rng = np.random.default_rng(0)
    return np.tanh(X @ rng.normal(size=(X.shape[1], dim)) + rng.normal(size=dim)), y


def standardized(X):
    """Return float32 features of mean 0 and variance 1."""
    spread = X.std(0)
    return ((X - X.mean(0)) / np.where(spread > 0, spread, 1)).astype(np.float32)


def features_of(X, y):
    """Return rows as features, each its own group, without a split."""
    ids, none = np.arange(len(X)), np.full(len(X), None, dtype=object)
    return Features(X, y.astype(object), ids, ids, none, 0, 0)


def evaluate(head, X, y, rows):
    """Return the accuracy of each draw, and the mean CPU seconds of a fit."""
    accuracy, seconds = [], 0.0
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(X))
        train, test = order[: min(rows, len(X) * 7 // 10)], order[min(rows, len(X) * 7 // 10) :]
        start = time.process_time()
        fitted = fit_head(head, features_of(X[train], y[train]))
        seconds += (time.process_time() - start) / DRAWS
        best = heads.probabilities(fitted, X[test]).argmax(1)
        accuracy.append(float((np.asarray(fitted.classes_)[best] == y[test]).mean()))
    return np.array(accuracy), seconds


def main():
    """Read the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=500)
    args = parser.parse_args()
    names = heads.HEAD_NAMES
    print(f"| features | {' | '.join(names)} | best, points over {DEFAULT} |")
    print("| --- |" + " --- |" * (len(names) + 1))
    total = dict.fromkeys(names, 0.0)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, X, y in data_sets(args.files):
            found = {head: evaluate(head, X, y, args.rows) for head in names}
            for head in names:
                total[head] += found[head][1]
            best = max(names, key=lambda head: found[head][0].mean())
            gain = found[best][0] - found[DEFAULT][0]
            said = (
                "within 0.2"
                if gain.mean() <= BEHIND
                else f"{best} +{100 * gain.mean():.1f} (sd {100 * gain.std():.1f})"
            )
            cells = (f"{100 * found[head][0].mean():.1f}" for head in names)
            print(f"| {name} | {' | '.join(cells)} | {said} |", flush=True)
    print(f"| CPU seconds, all | {' | '.join(f'{s:.2f}' for s in total.values())} | |")


if __name__ == "__main__":
    main()
