"""Labeled vectors for the benchmark of suggestions: pictures and texts through real networks, and generated sets."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from tests.helpers.archives import unpack_tar

DATA = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", "missing"))
WORDNET = Path("/usr/share/wordnet/data.noun")  # of the Debian package wordnet-base
_MOST_PER_CLASS = 200
_GLOSSES = 60  # of each topic
_TOPICS = {  # numbers of WordNet's files of nouns (lexnames(5))
    "05": "animal", "06": "artifact", "08": "body", "13": "food", "15": "location", "18": "person", "20": "plant",
    "27": "substance", "28": "time", "10": "communication",
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Unit vectors ``(N, D)`` and classes ``(N,)``."""

    X: NDArray[np.float32]
    y: NDArray[np.int64]


def data_sets(folder: Path | None = None) -> Iterator[tuple[str, Rows]]:
    """Yield real vectors where they can be had, then scikit-learn's sets and generated clusters.

    Args:
        folder: where vectors of the pictures and texts of the shared data are kept; without it they are left out.
    """
    if DATA.exists():
        yield from _cifar500()
        if folder is not None:
            yield from _embedded(folder)
    yield from _tables()
    yield from _generated()


def _cifar500() -> Iterator[tuple[str, Rows]]:
    vectors = DATA / "clip_vectors"
    y = np.load(vectors / "cifar500_labels.npy").astype(np.int64)
    yield "CIFAR-10, 500 images, CLIP", Rows(unit_rows(np.load(vectors / "cifar500_image_vectors.npy")), y)
    pixels = np.load(vectors / "cifar500_images.npy").reshape(500, -1).astype(np.float32) / 255
    left, spread, _ = np.linalg.svd(unit_rows(pixels - pixels.mean(0)), full_matrices=False)
    yield "CIFAR-10, 500 images, pixels", Rows(unit_rows(left * spread), y)  # turned into 500 numbers, which is faster


def _embedded(folder: Path) -> Iterator[tuple[str, Rows]]:
    """Yield pictures through MobileNetV2-0.35 and glosses through MiniLM."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, tar, label in [
        ("CIFAR-10, 2,000 images, MobileNetV2", "cifar10.tar", _folder_label),
        ("ants and bees, MobileNetV2", "hymenoptera.tar", _folder_label),
        ("MNIST, 2,000 images, MobileNetV2", "mnist_test.tar", _folder_label),
        ("ImageNet, 250 images, MobileNetV2", "imagenet250.tar", _topic_of_synset),
    ]:
        path = folder / f"{Path(tar).stem}.npz"
        if not path.exists():
            _save(path, *_picture_vectors(DATA / tar, label))
        yield name, _load(path)
    if WORDNET.is_file():
        path = folder / "glosses.npz"
        if not path.exists():
            _save(path, *_gloss_vectors())
        yield "WordNet, 600 glosses, MiniLM", _load(path)


def _picture_vectors(tar: Path, label: Callable[[Path], str | None]) -> tuple[NDArray[np.float32], list[str]]:
    """Embed at most some pictures of each class of an archive."""
    import embedstore as es

    with tempfile.TemporaryDirectory() as name:
        unpack_tar(tar, Path(name))
        chosen = _first_of_each_class(Path(name), label)
        weights = DATA / "weights" / "mobilenetv2_035_imagenet.safetensors"
        store = es.create(
            Path(name) / "s.store", "timm/mobilenetv2_035", weights=weights,
            backbone_args={"pad_type": "same", "bn_eps": 1e-3}, preprocess={"mean": 0.5, "std": 0.5},
        )  # fmt: skip
        return store.encode(images=[path for path, _ in chosen]), [key for _, key in chosen]


def _first_of_each_class(folder: Path, label: Callable[[Path], str | None]) -> list[tuple[Path, str]]:
    """Return pictures and their classes."""
    seen: Counter[str] = Counter()
    chosen = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png")):
        key = label(path)
        if key is not None and seen[key] < _MOST_PER_CLASS:
            seen[key] += 1
            chosen.append((path, key))
    return chosen


def _folder_label(path: Path) -> str:
    return path.parent.name


def _topic_of_synset(path: Path) -> str | None:
    """Return animal, artifact or other for the synset of ImageNet in the name of the folder."""
    if not WORDNET.is_file():
        return None
    number = re.match(r"n(\d{8})", path.parent.name)
    return number and _topics().get(number[1], "other")


def _topics() -> dict[str, str]:
    """Return animal or artifact by the number of the synset."""
    lines = (line.split(" ", 2) for line in WORDNET.read_text().splitlines() if not line.startswith("  "))
    return {number: _TOPICS[file] for number, file, _ in lines if _TOPICS.get(file) in ("animal", "artifact")}


def _gloss_vectors() -> tuple[NDArray[np.float32], list[str]]:
    """Embed glosses of ten topics, drawn at random."""
    import embedstore as es

    by_topic: dict[str, set[str]] = {topic: set() for topic in _TOPICS.values()}
    for line in WORDNET.read_text().splitlines():
        fields = line.split(" ", 2)
        if not line.startswith("  ") and fields[1] in _TOPICS:
            by_topic[_TOPICS[fields[1]]].add(line.split(" | ", 1)[1].split(";")[0].strip())
    rng = np.random.default_rng(0)
    chosen = [(t, topic) for topic, texts in by_topic.items() for t in rng.choice(sorted(texts), _GLOSSES, False)]
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "glosses.csv"
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([("gloss", "topic"), *chosen])
        store = es.create(Path(name) / "s.store", f"hf/{DATA / 'models' / 'all-MiniLM-L6-v2'}", pool="mean")
        store.embed(table, text_column="gloss")
        features = store.features("topic")
        return features.X, features.y.tolist()


def _save(path: Path, X: NDArray[np.float32], names: list[str]) -> None:
    np.savez(path, X=X, y=np.unique(names, return_inverse=True)[1])


def _load(path: Path) -> Rows:
    with np.load(path) as kept:
        return Rows(unit_rows(kept["X"].astype(np.float32)), kept["y"].astype(np.int64))


def _tables() -> Iterator[tuple[str, Rows]]:
    from sklearn import datasets

    for name, loaded in [
        ("digits, pixels", datasets.load_digits()), ("wine", datasets.load_wine()),
        ("breast cancer", datasets.load_breast_cancer()), ("iris", datasets.load_iris()),
    ]:  # fmt: skip
        X = (loaded.data - loaded.data.mean(0)) / (loaded.data.std(0) + 1e-9)
        yield name, Rows(unit_rows(X.astype(np.float32)), loaded.target)


def _generated() -> Iterator[tuple[str, Rows]]:
    rng = np.random.default_rng(0)
    for name, n_classes, spread in [("12 classes of unequal size", 12, 0.45), ("40 classes of unequal size", 40, 0.6)]:
        y = rng.choice(n_classes, 3000, p=rng.dirichlet(np.full(n_classes, 2.0)))
        means = rng.normal(size=(n_classes, 64)) * spread
        yield name, Rows(unit_rows((means[y] + rng.normal(size=(3000, 64))).astype(np.float32)), y)
    y = rng.choice(3, 3000, p=[0.9, 0.07, 0.03])
    means = rng.normal(size=(3, 32)) * 0.5
    yield "3 classes, two of them rare", Rows(unit_rows((means[y] + rng.normal(size=(3000, 32))).astype(np.float32)), y)
