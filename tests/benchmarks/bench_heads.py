"""Compare all heads on the same features: accuracy and CPU seconds, and how far the default is behind the best.

``python -m tests.benchmarks.bench_heads --write`` writes the table of docs/evaluation.md; without ``--write`` it is
printed. The data sets are those of scikit-learn, generated ones, and, where EMBEDSTORE_SHARED_DATA names the folder of
the real data, vectors of CIFAR-10 and pixels of MNIST. ``features.npz`` files with ``X`` (N, D) and ``y`` (N,) come
first. Each is divided five times at random, at most ``--rows`` rows for training. Features are standardized, but not
those of files and of the real data.
"""

import argparse
import io
import os
import tarfile
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn import datasets
from threadpoolctl import threadpool_limits

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.fit import fit_head
from tests.benchmarks.bench_probe import synthetic

DRAWS = 5
DEFAULT = "logistic"
BEHIND = 0.2  # points: the default shall be within so many of the best
DATA = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "missing"))
PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
BEGIN, END = "<!-- heads: begin -->", "<!-- heads: end -->"
EVERY_MNIST = 5  # every fifth of the 10,000 test images


def data_sets(files):
    """Yield name, features and labels."""
    for file in files:
        with np.load(file) as data:
            yield file.stem, np.asarray(data["X"], np.float32), data["y"].astype(str)
    if DATA.is_dir():
        yield "cifar_clip", *clip_vectors()
        yield "mnist_pixels", *mnist_pixels()
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


def clip_vectors():
    """Return the CLIP vectors of 500 images of CIFAR-10, and their labels."""
    folder = DATA / "clip_vectors"
    X = np.load(folder / "cifar500_image_vectors.npy").astype(np.float32)
    return X, np.load(folder / "cifar500_labels.npy").astype(str)


def mnist_pixels():
    """Return the pixels of 2,000 images of MNIST, and their digits."""
    with tarfile.open(DATA / "mnist_test.tar") as tar:
        members = sorted((m for m in tar.getmembers() if m.name.endswith(".png")), key=lambda m: m.name)[::EVERY_MNIST]
        images = [Image.open(io.BytesIO(tar.extractfile(m).read())).convert("L") for m in members]
    return np.stack([np.asarray(i, np.float32).ravel() / 255 for i in images]), np.array(
        [Path(m.name).parent.name for m in members]
    )


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


def row_of(name, found):
    """Return one row of the table.

    Args:
        name: of the data set.
        found: by head the accuracy of each draw and the CPU seconds of a fit.
    """
    points = {head: round(100 * accuracy.mean(), 1) for head, (accuracy, _) in found.items()}
    best = max(points, key=points.get)
    gain, spread = points[best] - points[DEFAULT], 100 * (found[best][0] - found[DEFAULT][0]).std()
    verdict = f"{best} +{gain:.1f} (sd {spread:.1f})" if gain > BEHIND + 1e-9 else "within 0.2"
    cells = " | ".join(f"{value:.1f}" for value in points.values())
    return f"| {name} | {cells} | {verdict} |"


def table(files, rows):
    """Yield the lines of the table."""
    names = heads.HEAD_NAMES
    yield f"| features | {' | '.join(names)} | best, points over {DEFAULT} |"
    yield "| --- |" + " --- |" * (len(names) + 1)
    total, near, n_sets = dict.fromkeys(names, 0.0), 0, 0
    for name, X, y in data_sets(files):
        found = {head: evaluate(head, X, y, rows) for head in names}
        for head in names:
            total[head] += found[head][1]
        line = row_of(name, found)
        near, n_sets = near + ("within 0.2" in line), n_sets + 1
        yield line
    yield f"| CPU seconds, all | {' | '.join(f'{s:.2f}' for s in total.values())} | run on {datetime.now(UTC).date()} |"
    yield ""
    yield verdict_of(near, n_sets, total)


def verdict_of(near, n_sets, total):
    """Return a sentence: on how many sets the default is near the best, and what share of the time of all it takes."""
    share = 100 * total[DEFAULT] / sum(total.values())
    return (
        f"The default is within 0.2 points of the best of the {len(total)} heads on {near} of the {n_sets} sets, in "
        f"{share:.0f}% of the CPU time of all."
    )


def with_table(page, lines):
    """Return the page with another table."""
    begin, end = page.index(BEGIN) + len(BEGIN), page.index(END)
    return f"{page[:begin]}\n" + "\n".join(lines) + f"\n{page[end:]}"


def main():
    """Read the arguments, and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--write", action="store_true", help="write the table into docs/evaluation.md")
    args = parser.parse_args()
    lines = []
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line in table(args.files, args.rows):
            print(line, flush=True)
            lines.append(line)
    if args.write:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
