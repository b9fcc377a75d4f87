"""What to label next: accuracy over the number of labels, against random choice.

``python -m tests.benchmarks.bench_suggest [--seeds 10] [--batch 8] [--labels 128] [--vectors FOLDER]``. Each set is
split into 60% to label and 40% to test, again for every seed. Both ways begin without a label and add batches; a
logistic regression is judged after each. EMBEDSTORE_SHARED_DATA names the folder of the real data; without
it only the generated and scikit-learn's sets are used. ``--vectors`` keeps what the networks make of its pictures and
texts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.evaluation import active_learning
from tests.benchmarks.suggest_sets import Rows, data_sets

C = 10.0  # inverse regularization of the probe, the same for both ways


@dataclass(frozen=True)
class Pool:
    """Unlabeled rows as a store gives them; an item is a row number."""

    X: NDArray[np.float32]
    items: NDArray[np.int64]

    def sample(self, count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return a random sample; all rows if there are no more."""
        rows = np.sort(np.random.default_rng(seed).permutation(len(self.items))[:count])
        return self.items[rows], self.X[rows]

    def sample_blocks(self, count: int, seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """Yield such a sample."""
        yield self.sample(count, seed)


Chooser = Callable[[Rows, list[int], int, int], list[int]]


def suggested(rows: Rows, labeled: list[int], k: int, seed: int) -> list[int]:
    """Return what embedstore suggests."""
    free = np.setdiff1d(np.arange(len(rows.X)), labeled)
    classes = set(rows.y[labeled].tolist())
    head = fit(rows, labeled) if len(classes) > 1 else None
    known = active_learning.LabeledRows(rows.X[labeled], rows.y[labeled].astype(str).astype(object))
    _, chosen, _ = active_learning.suggest_labels(head, Pool(rows.X[free], free), known, k, seed=seed)
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
    parser.add_argument("--vectors", type=Path, help="where vectors of the shared data are kept")
    options = parser.parse_args()
    counts = [n for n in (16, 24, 40, 56, 80, 104, 128) if n <= options.labels]
    print("| data set | way |", " | ".join(map(str, counts)), "| worst difference, standard errors |")
    for name, rows in data_sets(options.vectors):
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
