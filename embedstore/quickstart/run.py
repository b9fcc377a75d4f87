"""The main job in one command, with nothing to download: embed, index, search in words, probe, compare, look.

The images are drawn scenes and scikit-learn's handwritten digits (real scans, UCI ML repository, CC BY 4.0), or the
person's own folder. The backbone is the bundled ``embedstore/tiny``, which knows shapes, colours, patterns, numbers,
digits and letters, and little of photographs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import embedstore as es
from embedstore.quickstart.scenes.collection import ManifestRow, write_manifest, write_scenes
from embedstore.reports.html_page import write_page
from embedstore.store import Store

BACKBONE = "embedstore/tiny"
SCENE_COUNT = 1500
DIGIT_SIDE = 64  # pixels of a digit; the scans have 8 x 8
QUERIES = ("a red heart", "the digit seven", "six small circles")
OWN_FOLDER_QUERIES = ("a red circle", "a dark picture", "stripes")  # in words that the bundled network knows


@dataclass(frozen=True)
class QuickstartStep:
    """One thing that was done.

    Attributes:
        command: what a person would type for it. result: what the verb gave.
        seconds: wall time. files: what was written.
    """

    command: str
    result: Any
    seconds: float
    files: tuple[Path, ...] = ()


def run(output: Path, images: Path | None) -> Iterator[QuickstartStep]:
    """Every step as it is done; safe to run twice, and nothing is written outside the folder.

    Args:
        folder: where everything is written.
        images: the person's own folder, or None for scenes and digits.
    """
    output.mkdir(parents=True, exist_ok=True)
    path = output / ("yours.store" if images else "quickstart.store")
    source = images or write_collection(output / "images")
    store = _store(path)
    yield _timed(f"embed {path} {source}", lambda: store.embed(source))
    yield _timed(f"index {path}", store.index)
    for words in OWN_FOLDER_QUERIES if images else QUERIES:
        yield _searched(store, path, words)
    yield _searched(store, path, _one(store))
    yield from _judged(store, path)
    yield _mapped(store, path)


def write_collection(folder: Path) -> Path:
    """1,500 scenes and 1,797 scanned digits as PNG files; files that are there stay untouched.

    Returns:
        The manifest: a CSV with ``uri``, ``label``, ``split`` and what each picture shows.
    """
    manifest = folder / "collection.csv"
    rows = [*write_scenes(folder / "scenes", SCENE_COUNT), *write_digits(folder / "digits")]
    for row in rows:
        row["uri"] = str(Path(str(row["uri"])).relative_to(folder))
    write_manifest(manifest, rows)
    return manifest


def write_digits(folder: Path, per_class: int | None = None) -> list[ManifestRow]:
    """The scans of each digit as ``<split>/<digit>/<n>.png``, dark on light; every fourth of a digit is ``val``."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rows: list[ManifestRow] = []
    for digit in range(10):
        for place, n in enumerate(np.flatnonzero(data.target == digit)[:per_class]):
            split = "val" if place % 4 == 3 else "train"
            path = folder / split / str(digit) / f"{n:04d}.png"
            rows.append({"uri": str(path), "label": f"digit {digit}", "split": split, "kind": "scan", "number": 1})
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = (255 - data.images[n] * 255 / 16).astype(np.uint8)
                Image.fromarray(pixels).resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC).save(path)
    return rows


def _store(path: Path) -> Store:
    """The store, made at the first run, with the bundled network's space in use."""
    if not path.exists():
        return es.create(path, BACKBONE)
    store = es.open(path)
    if not any(s["backbone"] == BACKBONE and s["current"] for s in store.info()["spaces"]):
        store.use(store.add_space(BACKBONE).key)
    return store


def _timed(command: str, act: Callable[[], Any]) -> QuickstartStep:
    """A step and its wall time."""
    begin = time.perf_counter()
    result = act()
    return QuickstartStep(f"embedstore {command}", result, time.perf_counter() - begin)


def _searched(store: Store, path: Path, query: str | Path) -> QuickstartStep:
    """One search, with its contact sheets beside the store."""
    name = "like-this" if isinstance(query, Path) else "-".join(query.split())
    files = (path.parent / f"{name}.html", path.parent / f"{name}.png")
    asked = f"--image {query}" if isinstance(query, Path) else f'"{query}"'
    step = _timed(f"search {path} {asked} --html {files[0]} --sheet {files[1]}", lambda: store.search(query, k=10))
    write_page(files[0], step.result.html())
    step.result.png(files[1])
    return replace(step, files=files)


def _one(store: Store) -> Path:
    """An image to ask with: the first held-out one, or the first."""
    rows = store.sql("SELECT uri FROM items WHERE present ORDER BY split = 'val' DESC NULLS LAST, label, item LIMIT 1")
    return Path(rows.rows[0][0])


def _judged(store: Store, path: Path) -> Iterator[QuickstartStep]:
    """Logistic regression, neighbours and words on the label, when there is one to learn."""
    counts = store.sql("SELECT count(*) FROM items WHERE present AND label IS NOT NULL GROUP BY label").rows
    if len(counts) < 2 or min(n for (n,) in counts) < 2:
        return
    yield _timed(f"probe {path} label", lambda: store.probe("label"))
    yield _timed(f"knn {path} label -k 5", lambda: store.knn("label", k=5))
    yield _timed(f"zero-shot {path} label", lambda: store.zero_shot(store.labels("label")).evaluate("label"))


def _mapped(store: Store, path: Path) -> QuickstartStep:
    """The map, as a picture and as a page, beside the store."""
    files = (path.parent / "map.html", path.parent / "map.png")
    step = _timed(f"map {path} --html {files[0]} --png {files[1]}", store.map)
    write_page(files[0], step.result.html())
    step.result.png(files[1])
    return replace(step, files=files)


NEXT_STEPS = """\
next, on your own photos with a full-size CLIP:
  embedstore create my.store --backbone clip
  embedstore embed my.store PHOTOS/
  embedstore search my.store "a dog on a beach" --html hits.html
  embedstore probe my.store label
  embedstore zero-shot my.store label --classes cat,dog"""
