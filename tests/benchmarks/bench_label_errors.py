"""Label errors that people confirmed: average precision of the ranking, and how many are among the first 100.

``python -m tests.benchmarks.bench_label_errors [--vectors FOLDER] [--fitted] [--heads logistic knn] [--scores SCORE
...]``. The 10,000 test images of MNIST; of 15 labels at most two of five people say that they are right. The rows are
the pixels; with ``--vectors``, what MobileNetV2 0.35 makes of the images, whose vectors are kept in that folder; and
with ``--fitted`` what a small network makes of each half that was trained on the labels of the other, wrong ones too.
EMBEDSTORE_SHARED_DATA names the folder of the data.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import average_precision_score

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.label_errors import LabelErrorSettings, predict_labels
from embedstore.classify.evaluation.label_quality import LabelScore, label_scores
from tests.benchmarks.digit_network import cross_fitted_vectors
from tests.benchmarks.suggest_sets import DATA
from tests.helpers.archives import unpack_tar

MOST_VOTES = 2  # of five people for the given label of an item whose label is wrong
FIRST = 100


def main() -> None:
    """Print a table of average precisions and hits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=Path, help="where vectors of MobileNetV2 are kept")
    parser.add_argument("--fitted", action="store_true", help="vectors of networks of digits, too (two minutes)")
    parser.add_argument("--heads", nargs="+", default=["logistic", "knn"])
    parser.add_argument("--scores", nargs="+", default=["self_confidence", "neighbors"], choices=list(LabelScore))
    options = parser.parse_args()
    if not DATA.exists():
        print("EMBEDSTORE_SHARED_DATA names no folder with mnist_test.tar")
        return
    print(f"| rows | head | ranked by | average precision | among the first {FIRST} |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        unpack_tar(DATA / "mnist_test.tar", Path(name))
        paths = sorted((Path(name) / "mnist").glob("*/*.png"))
        wrong = _wrong_items(Path(name) / "mnist" / "REVIEWED.csv")
        labels = np.array([path.parent.name for path in paths], dtype=object)
        is_wrong = np.array([int(path.stem) in wrong for path in paths])
        for rows, X, parts in _rows(paths, labels, options):
            for head in options.heads:
                for score, quality in _qualities(X, labels, parts, head, options.scores):
                    precision, hits = average_precision_score(is_wrong, -quality), is_wrong[_first(quality)].sum()
                    print(f"| {rows} | {head} | {score} | {precision:.3f} | {hits} of {is_wrong.sum()} |", flush=True)


def _qualities(
    X: NDArray[np.float32], labels: NDArray[np.object_], parts: NDArray[np.int64], head: str, scores: list[str]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the quality of each label by each score; the head is fitted in each part of the rows by itself."""
    quality = {score: np.zeros(len(X)) for score in scores}
    for part in np.unique(parts):
        rows = parts == part
        for score, values in _part_qualities(X[rows], labels[rows], head, scores):
            quality[score][rows] = values
    yield from quality.items()


def _part_qualities(
    X: NDArray[np.float32], labels: NDArray[np.object_], head: str, scores: list[str]
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield the same for rows of one network; the head is fitted once for all scores."""
    settings = LabelErrorSettings(head=head, ranked_by=LabelScore.NEIGHBORS.value)
    names, given = np.unique(labels.astype(str), return_inverse=True)
    data = settings.near_duplicates.join(_features(X, labels))
    probabilities = predict_labels(data, names.tolist(), settings)
    for score in map(LabelScore, scores):
        yield score.value, label_scores(given, probabilities.for_score(score), score)


def _first(quality: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the items of the lowest quality, as ``label-errors`` lists them: ties by item."""
    return np.argsort(quality, kind="stable")[:FIRST]


def _wrong_items(reviewed: Path) -> set[int]:
    """Return the images whose label is wrong."""
    with reviewed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row["index"]) for row in rows if int(row["votes_for_given_of_5"]) <= MOST_VOTES}


def _rows(
    paths: list[Path], labels: NDArray[np.object_], options: argparse.Namespace
) -> Iterator[tuple[str, NDArray[np.float32], NDArray[np.int64]]]:
    """Yield the rows of the images by name, float32 ``(N, D)``, and which rows are of one network, int64 ``(N,)``."""
    images = np.stack([np.asarray(Image.open(path), np.float32) / 255 for path in paths])
    one = np.zeros(len(images), np.int64)
    yield "pixels", images.reshape(len(images), -1), one
    if options.vectors is not None:
        options.vectors.mkdir(parents=True, exist_ok=True)
        kept = options.vectors / "mnist_test_mobilenetv2_035.npy"
        if not kept.exists():
            np.save(kept, _mobilenet_vectors(paths))
        yield "MobileNetV2 0.35", np.load(kept), one
    if options.fitted:
        yield "a network of the other half", *cross_fitted_vectors(images, labels.astype(np.int64))


def _mobilenet_vectors(paths: list[Path]) -> NDArray[np.float32]:
    """Embed images at 160 pixels."""
    import embedstore as es

    with tempfile.TemporaryDirectory() as name:
        store = es.create(
            Path(name) / "s.store", "timm/mobilenetv2_035",
            weights=DATA / "weights" / "mobilenetv2_035_imagenet.safetensors",
            backbone_args={"pad_type": "same", "bn_eps": 1e-3},
            preprocess={"mean": 0.5, "std": 0.5, "size": 160, "resize": 160},
        )  # fmt: skip
        return store.encode(images=paths)


def _features(X: NDArray[np.float32], labels: NDArray[np.object_]) -> Features:
    """Return rows as a store gives them; an item is a row number."""
    items = np.arange(len(X))
    splits = np.full(len(X), None, dtype=object)
    return Features(X, labels, ids=items, groups=items, splits=splits, n_unlabeled=0, n_without_vector=0)


if __name__ == "__main__":
    main()
