"""Accuracy of the bundled network and of a random twin: `python -m tools.tiny.measure [PHOTOS...]`."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedstore import backbones
from embedstore.errors import ImageError
from embedstore.media.image.decode import open_image
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.quickstart.scenes import COLORS, DIGITS, SHAPES, is_held_out_pair, word_for
from embedstore.sources.local_files import read_file
from embedstore.space import Recipe
from tools.tiny import scenes

Floats = NDArray[np.float32]
FRESH = 1_000_003  # a seed that no training run uses
TEMPLATES = ("a {}", "a picture of a {}", "a photo of a {}", "an image of a {}")
DIGIT_TEMPLATES = ("the digit {}", "a handwritten digit {}", "the number {}", "a picture of the digit {}")
NAMES = "zero one two three four five six seven eight nine".split()


@dataclass(frozen=True)
class Model:
    """A backbone that encodes images of any size and texts."""

    network: Any

    def encode_images(self, images: list[NDArray[np.uint8]]) -> Floats:
        """Return unit rows ``(N, D)``, through the network's own preprocessing."""
        return np.concatenate([self._encode_batch(images[n : n + 256]) for n in range(0, len(images), 256)])

    def _encode_batch(self, images: list[NDArray[np.uint8]]) -> Floats:
        preprocess = self.network.space.preprocess
        pixels = np.stack([resize_and_crop(Image.fromarray(i), preprocess) for i in images])
        rows: Floats = self.network.encode_images(pixels)
        return rows

    def encode_classes(self, names: list[str], templates: tuple[str, ...]) -> Floats:
        """Return one unit row per class: the mean over the templates."""
        texts = self.network.encode_texts([t.format(n) for n in names for t in templates])
        mean = texts.reshape(len(names), len(templates), -1).mean(axis=1)
        out: Floats = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return out


def unseen_pairs(model: Model, count: int = 2_400) -> dict[str, float]:
    """Return the zero-shot accuracy on the 48 pairs of color and shape that no training scene shows."""
    pairs = [(c, s) for c in COLORS for s in SHAPES if is_held_out_pair(c, s)]
    images, _, shown = scenes.fresh(FRESH, count, kind="single", held_out_pairs=True)
    labels = [pairs.index((s.objects[0].color, s.objects[0].name)) for s in shown]
    names = [f"{c} {word_for(s)}" for c, s in pairs]
    predicted = (model.encode_images(list(images)) @ model.encode_classes(names, TEMPLATES).T).argmax(axis=1)
    return {"classes": len(pairs), "accuracy": float(np.mean(predicted == labels)), "chance": 1 / len(pairs)}


def retrieval(model: Model, count: int = 1_000) -> dict[str, float]:
    """Return the text-to-image recall on new scenes with full captions."""
    images, captions, _ = scenes.fresh(FRESH + 1, count, detail=1.0)
    texts = model.network.encode_texts(captions)
    scores = texts @ model.encode_images(list(images)).T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return {f"R@{k}": float(np.mean(rank < k)) for k in (1, 5, 10)}


def digits(model: Model) -> float:
    """Return the zero-shot accuracy on scikit-learn's handwritten digits, with the number as a word and as a digit."""
    images, labels = _load_digits()
    prompts = model.encode_classes(NAMES, DIGIT_TEMPLATES) + model.encode_classes(list(DIGITS), DIGIT_TEMPLATES)
    return float(np.mean((model.encode_images(images) @ prompts.T).argmax(axis=1) == labels))


def digits_probe(features: Model) -> float:
    """Return the accuracy of a logistic probe on the same digits, over 5 stratified folds."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    images, labels = _load_digits()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(_probe(), features.encode_images(images), labels, cv=folds).mean())


def photos_probe(features: Model, folder: Path) -> float:
    """Return the accuracy of a logistic probe on photos ``<folder>/train|val|test/<class>/*``, on the last split."""
    sides = [s for s in ("train", "val", "test") if (folder / s).is_dir()]
    rows, labels = zip(*(_encode_folder(features, folder / s) for s in sides), strict=True)
    return float(np.mean(_probe().fit(rows[0], labels[0]).predict(rows[-1]) == labels[-1]))


def _probe() -> Any:
    """Return logistic regression on standardized features; C is fixed, so nothing is chosen on the test data."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))


def _load_digits() -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """Return the digits as they are, 8 x 8, light on dark, and their labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return [np.repeat((p * 255 / 16).astype(np.uint8)[..., None], 3, axis=2) for p in data.images], data.target


def _encode_folder(model: Model, folder: Path) -> tuple[Floats, NDArray[Any]]:
    """Return vectors and classes of the images in ``<folder>/<class>/``; other files are left out."""
    images, labels = [], []
    for path in sorted(p for p in folder.glob("*/*") if p.is_file()):
        try:
            images.append(np.asarray(open_image(read_file(str(path)))[0]))
        except ImageError:
            continue
        labels.append(path.parent.name)
    return model.encode_images(images), np.array(labels)


def measure(recipe: Recipe, folders: list[Path]) -> dict[str, Any]:
    """Return every figure of one network; probes use the features before the projection (Radford et al. 2021, A.3)."""
    model, features = Model(backbones.load(recipe)), Model(backbones.load(replace(recipe, layer="before-projection")))
    return {
        "unseen_pairs": unseen_pairs(model),
        "retrieval": retrieval(model),
        "digits": {"zero_shot": digits(model), "probe": digits_probe(features)},
        "photos": {f.name: photos_probe(features, f) for f in folders},
    }


def main() -> None:
    """Print the figures of the trained network and of its random twin as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.tiny.measure", description=__doc__)
    parser.add_argument("photos", type=Path, nargs="*", help="folders with train|val|test/<class>/ for a probe")
    parser.add_argument("--model", default="embedstore/tiny", help="or open_clip/local-dir:FOLDER")
    args = parser.parse_args()
    twins = {"trained": Recipe(args.model), "random": Recipe(args.model, random_init=True)}
    print(json.dumps({name: measure(recipe, args.photos) for name, recipe in twins.items()}, indent=2))


if __name__ == "__main__":
    main()
