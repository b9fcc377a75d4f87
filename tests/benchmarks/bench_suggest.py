"""What to label next: accuracy over the number of labels, against random choice.

Run: ``python tests/benchmarks/bench_suggest.py [--seeds 10] [--batch 8] [--labels 128]``. Each data set is split into
60% to label and 40% to test, again for every seed. Both ways begin without a label and add batches; a logistic
regression on the labels is judged after each. EMBEDSTORE_SHARED_DATA names the folder of the real vectors; without it
only the generated and scikit-learn's sets are used.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify import heads
from embedstore.classify.evaluation import active_learning

C = 10.0  # inverse regularization of the probe, the same for both ways


@dataclass(frozen=True)
class Rows:
    """Unit vectors ``(N, D)`` and classes ``(N,)``."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]


@dataclass(frozen=True)
class Pool:
    """Unlabeled rows as a store gives them; an item is a row number."""

    X: NDArray[np.float32]
    items: NDArray[np.int64]

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all rows, which are fewer than any sample."""
        assert len(self.items) <= count, seed
        return self.items, self.X

    def sample_blocks(self, count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield all rows."""
        yield self.sample(count, seed)


def data_sets() -> Iterator[tuple[str, Rows]]:
    """Yield real vectors where they are, then scikit-learn's digits and generated clusters."""
    shared = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "missing")) / "clip_vectors"
    if shared.exists():
        y = np.load(shared / "cifar500_labels.npy").astype(np.int64)
        X = np.load(shared / "cifar500_image_vectors.npy").astype(np.float32)
        yield "CIFAR-10, 500 images, CLIP", Rows(unit_rows(X), y)
        pixels = np.load(shared / "cifar500_images.npy").reshape(500, -1).astype(np.float32) / 255
        yield (
            "CIFAR-10, 500 images, pixels",
            Rows(unit_rows(pixels - pixels.mean(0)), y),
        )
    from sklearn import datasets

    for name, loaded in [
        ("digits, pixels", datasets.load_digits()), ("wine", datasets.load_wine()),
        ("breast cancer", datasets.load_breast_cancer()), ("iris", datasets.load_iris()),
    ]:  # fmt: skip
        X = (loaded.data - loaded.data.mean(0)) / (loaded.data.std(0) + 1e-9)
        yield name, Rows(unit_rows(X.astype(np.float32)), loaded.target)
    rng = np.random.default_rng(0)
    for name, n_classes, spread in [("12 classes of unequal size", 12, 0.45), ("40 classes of unequal size", 40, 0.6)]:
        y = rng.choice(n_classes, 3000, p=rng.dirichlet(np.full(n_classes, 2.0)))
        means = rng.normal(size=(n_classes, 64)) * spread
        yield name, Rows(unit_rows((means[y] + rng.normal(size=(3000, 64))).astype(np.float32)), y)
    y = rng.choice(3, 3000, p=[0.9, 0.07, 0.03])
    means = rng.normal(size=(3, 32)) * 0.5
    yield "3 classes, two of them rare", Rows(unit_rows((means[y] + rng.normal(size=(3000, 32))).astype(np.float32)), y)


Chooser = Callable[[Rows, list[int], int, int], list[int]]


def suggested(rows: Rows, labeled: list[int], k: int, seed: int) -> list[int]:
    """Return what embedstore suggests."""
    free = np.setdiff1d(np.arange(len(rows.X)), labeled)
    classes = set(rows.y[labeled].tolist())
    head = fit(rows, labeled) if len(classes) > 1 else None
    _, chosen, _ = active_learning.suggest_labels(
        head, Pool(rows.X[free], free), rows.X[labeled], k, n_classes=len(classes), seed=seed
    )
    return [s.item for s in chosen]


def at_random(rows: Rows, labeled: list[int], k: int, seed: int) -> list[int]:
    """Return rows chosen at random."""
    free = np.setdiff1d(np.arange(len(rows.X)), labeled)
    rng = np.random.default_rng([seed, len(labeled)])
    return [int(i) for i in rng.choice(free, min(k, len(free)), replace=False)]


def fit(rows: Rows, labeled: list[int]) -> heads.LogisticProbe:
    """Return a logistic regression on the labels."""
    return heads.make_head("logistic", C=C).fit(rows.X[labeled], rows.y[labeled].astype(str))


def curve(rows: Rows, choose: Chooser, batch: int, labels: int, seed: int) -> list[float]:
    """Return the accuracy on the test rows after each batch of one run."""
    order = np.random.default_rng(1000 + seed).permutation(len(rows.X))
    cut = int(0.6 * len(order))
    train, test = (Rows(rows.X[part], rows.y[part]) for part in (order[:cut], order[cut:]))
    labeled: list[int] = []
    accuracy = []
    for _ in range(labels // batch):
        labeled += choose(train, labeled, batch, seed)
        if len(set(train.y[labeled].tolist())) > 1:
            right = fit(train, labeled).predict(test.X) == test.y.astype(str)
        else:
            right = test.y == train.y[labeled[0]]
        accuracy.append(float(right.mean()))
    return accuracy


def main() -> None:
    """Print a table of accuracies, and where suggestions are significantly below random choice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--labels", type=int, default=128)
    options = parser.parse_args()
    counts = [n for n in (16, 24, 40, 56, 80, 104, 128) if n <= options.labels]
    print("| data set | way |", " | ".join(map(str, counts)), "| worst difference, standard errors |")
    for name, rows in data_sets():
        labels = min(options.labels, int(0.5 * len(rows.X)))
        runs = {
            choose.__name__: np.array(
                [curve(rows, choose, options.batch, labels, seed) for seed in range(options.seeds)]
            )
            for choose in (suggested, at_random)
        }
        gap = runs["suggested"] - runs["at_random"]
        errors = gap.std(0, ddof=1) / np.sqrt(options.seeds) + 1e-9
        worst = int((gap.mean(0) / errors).argmin())
        for way, accuracies in runs.items():
            shown = [f"{accuracies.mean(0)[n // options.batch - 1]:.3f}" if n <= labels else "" for n in counts]
            mean = gap.mean(0)[worst]
            text = f"{mean:+.3f} ({mean / errors[worst]:+.1f}) at {(worst + 1) * options.batch} labels"
            print(f"| {name} | {way} |", " | ".join(shown), f"| {text if way == 'suggested' else ''} |", flush=True)


if __name__ == "__main__":
    main()
