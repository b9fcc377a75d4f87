"""What the bundled network can do, beside a random-init twin: `python -m tools.tiny.measure [PHOTOS...]`."""

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
    """A backbone that encodes pictures of any size and words."""

    network: Any

    def pictures(self, images: list[NDArray[np.uint8]]) -> Floats:
        """Unit rows ``(N, D)``, through the network's own preprocessing."""
        return np.concatenate([self._some(images[n : n + 256]) for n in range(0, len(images), 256)])

    def _some(self, images: list[NDArray[np.uint8]]) -> Floats:
        how = self.network.space.preprocess
        rows: Floats = self.network.encode_images(np.stack([resize_and_crop(Image.fromarray(i), how) for i in images]))
        return rows

    def classes(self, names: list[str], templates: tuple[str, ...]) -> Floats:
        """One unit row a class: the mean over the templates."""
        told = self.network.encode_texts([t.format(n) for n in names for t in templates])
        mean = told.reshape(len(names), len(templates), -1).mean(axis=1)
        out: Floats = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return out


def unseen_pairs(model: Model, number: int = 2_400) -> dict[str, float]:
    """Zero-shot over the 48 pairs of colour and shape that no training scene shows."""
    pairs = [(c, s) for c in COLORS for s in SHAPES if is_held_out_pair(c, s)]
    pictures, _, shown = scenes.fresh(FRESH, number, kind="single", unseen=True)
    right = [pairs.index((s.objects[0].colour, s.objects[0].name)) for s in shown]
    names = [f"{c} {word_for(s)}" for c, s in pairs]
    found = (model.pictures(list(pictures)) @ model.classes(names, TEMPLATES).T).argmax(axis=1)
    return {"classes": len(pairs), "accuracy": float(np.mean(found == right)), "chance": 1 / len(pairs)}


def retrieval(model: Model, number: int = 1_000) -> dict[str, float]:
    """Text to image over fresh scenes, each told in full."""
    pictures, captions, _ = scenes.fresh(FRESH + 1, number, detail=1.0)
    told = model.network.encode_texts(captions)
    scores = told @ model.pictures(list(pictures)).T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
    return {f"R@{k}": float(np.mean(rank < k)) for k in (1, 5, 10)}


def digits(model: Model) -> float:
    """Zero-shot over scikit-learn's handwritten digits, by prompts with the number as a word and as a figure."""
    pictures, right = _scans()
    prompts = model.classes(NAMES, DIGIT_TEMPLATES) + model.classes(list(DIGITS), DIGIT_TEMPLATES)
    return float(np.mean((model.pictures(pictures) @ prompts.T).argmax(axis=1) == right))


def digits_probe(features: Model) -> float:
    """A logistic probe on the same digits, 5 stratified folds."""
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    pictures, right = _scans()
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(cross_val_score(_probe(), features.pictures(pictures), right, cv=folds).mean())


def photos_probe(features: Model, folder: Path) -> float:
    """A logistic probe on photographs: ``<folder>/train|val|test/<class>/*``, judged on the last of them."""
    sides = [s for s in ("train", "val", "test") if (folder / s).is_dir()]
    rows, labels = zip(*(_folder(features, folder / s) for s in sides), strict=True)
    return float(np.mean(_probe().fit(rows[0], labels[0]).predict(rows[-1]) == labels[-1]))


def _probe() -> Any:
    """Logistic regression on standardised features: C fixed, so that nothing is chosen on what is judged."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=3000))


def _scans() -> tuple[list[NDArray[np.uint8]], NDArray[np.int64]]:
    """The digits as they come, 8 x 8, light on dark, and what they are."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return [np.repeat((p * 255 / 16).astype(np.uint8)[..., None], 3, axis=2) for p in data.images], data.target


def _folder(model: Model, folder: Path) -> tuple[Floats, NDArray[Any]]:
    """Vectors and classes of the images in ``<folder>/<class>/``; what is no image is left out."""
    pictures, labels = [], []
    for path in sorted(p for p in folder.glob("*/*") if p.is_file()):
        try:
            pictures.append(np.asarray(open_image(read_file(str(path)))[0]))
        except ImageError:
            continue
        labels.append(path.parent.name)
    return model.pictures(pictures), np.array(labels)


def all_of(recipe: Recipe, folders: list[Path]) -> dict[str, Any]:
    """Every figure of one network; probes stand on the features before the projection (Radford et al. 2021, A.3)."""
    model, features = Model(backbones.load(recipe)), Model(backbones.load(replace(recipe, layer="before-projection")))
    return {
        "unseen_pairs": unseen_pairs(model),
        "retrieval": retrieval(model),
        "digits": {"zero_shot": digits(model), "probe": digits_probe(features)},
        "photos": {f.name: photos_probe(features, f) for f in folders},
    }


def main() -> None:
    """Prints the figures of the trained network and of its random twin as JSON."""
    parser = argparse.ArgumentParser(prog="python -m tools.tiny.measure", description=__doc__)
    parser.add_argument("photos", type=Path, nargs="*", help="folders with train|val|test/<class>/ for a probe")
    parser.add_argument("--model", default="embedstore/tiny", help="or open_clip/local-dir:FOLDER")
    said = parser.parse_args()
    twins = {"trained": Recipe(said.model), "random": Recipe(said.model, random_init=True)}
    print(json.dumps({name: all_of(recipe, said.photos) for name, recipe in twins.items()}, indent=2))


if __name__ == "__main__":
    main()
