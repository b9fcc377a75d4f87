"""The main job in one command, with nothing to download: embed, search, probe, look.

The images are scikit-learn's handwritten digits (real scans, UCI ML repository, CC BY 4.0), written as PNG files, or
the person's own folder. Until a trained model is bundled, the backbone has random weights and says so: probes on
random convolutional features work surprisingly well on digits (Jarrett et al. 2009), search in words does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import embedstore as es
from embedstore.api import Store
from embedstore.evaluate import Evaluation

BACKBONE = "timm/resnet18.a1_in1k"
SIDE = 64  # pixels of an image; the scans have 8 x 8
PER_CLASS = 60


@dataclass(frozen=True)
class Step:
    """One line of the comparison: what was done, with what result, in how many seconds."""

    what: str
    result: str
    seconds: float


def run(folder: Path, images: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Make the store, embed, search by image, probe and compare; safe to run twice.

    Args:
        folder: where everything is written, and nothing elsewhere.
        images: the person's own folder, or None for the digits.
        say: called with each line for the person.

    Returns:
        The steps and the files written, as plain values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if images is None:
        images = folder / "digits"
        say(f"writing scikit-learn's handwritten digits as PNG files to {images}")
        write_digits(images)
    store = _store(folder / "quickstart.store")
    say(f"backbone {BACKBONE} with RANDOM weights (--random-init): no download, no learned meaning")
    steps: list[Step] = []
    report = store.embed(images)
    say(report.summary())
    steps.append(Step("embed", f"{report.found} files", report.seconds))
    steps += _search(store, folder, say)
    steps += _judge(store, say)
    return {"folder": str(folder), "store": str(store.path), "steps": [vars(s) for s in steps]}


def write_digits(folder: Path) -> None:
    """The first 60 scans of each digit as ``<split>/<digit>/<number>.png``; files that are there stay untouched.

    Every fourth scan of a digit is ``val``, the others are ``train``.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    for digit in range(10):
        for place, n in enumerate(np.flatnonzero(data.target == digit)[:PER_CLASS]):
            path = folder / ("val" if place % 4 == 3 else "train") / str(digit) / f"{n:04d}.png"
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (255 - data.images[n] * 255 / 16).astype(np.uint8)  # ink is dark
            Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(path)


def _store(path: Path) -> Store:
    """The store, made at the first run."""
    if path.exists():
        return es.open(path)
    return es.create(path, BACKBONE, random_init=True, preprocess={"size": SIDE, "resize": SIDE})


def _search(store: Store, folder: Path, say: Callable[[str], None]) -> list[Step]:
    """One search by image, with its contact sheets."""
    uri = store.sql("SELECT uri FROM items WHERE present ORDER BY split DESC, label, item").rows[0][0]
    begin = time.perf_counter()
    hits = store.search(image=uri, k=10)
    took = time.perf_counter() - begin
    (folder / "search.html").write_text(hits.html(), encoding="utf-8")
    hits.png(folder / "search.png")
    say(f"search by image {uri}: wrote {folder / 'search.html'} and {folder / 'search.png'}")
    label = hits[0].label
    same = sum(h.label == label for h in hits[1:])
    return [Step("search by image", f"{same} of the 9 nearest others share its label {label!r}", round(took, 3))]


def _judge(store: Store, say: Callable[[str], None]) -> list[Step]:
    """Probe and kNN, when there are labels."""
    labels = store.sql("SELECT count(DISTINCT label) FROM items WHERE present").rows[0][0]
    if labels < 2:
        say("the folder has fewer than two labels (sub-folders): nothing to probe")
        return []
    judged = [("logistic regression", store.probe("label")), ("5 nearest neighbours", store.knn("label", k=5))]
    return [Step(name, _accuracy(e), round(e.seconds, 3)) for name, e in judged]


def _accuracy(e: Evaluation) -> str:
    """Accuracy with its interval."""
    score = e.report.scores["accuracy"]
    return f"accuracy {score.value:.3f} [{score.low:.3f}, {score.high:.3f}] on {e.held} held-out items"


NEXT = """\
next, on your own photos with a full-size CLIP:
  embedstore create my.store --backbone clip
  embedstore embed my.store PHOTOS/
  embedstore search my.store "a dog on a beach" --html hits.html
  embedstore probe my.store label
  embedstore zero-shot my.store label --classes cat,dog"""
