"""The quickstart: embed, index, search by text and image, classify and draw a map, without any download.

The images are drawn scenes and scikit-learn's handwritten digits (real scans, UCI ML repository, CC BY 4.0), or a
user's own folder. The backbone is the bundled ``embedstore/tiny``, which knows shapes, colors, patterns, numbers,
digits and letters, and little about photographs.
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
from embedstore.storage.disk_errors import output_errors
from embedstore.storage.queries.query_texts import EXAMPLE_URI, LABEL_SIZES
from embedstore.store import Store

BACKBONE = "embedstore/tiny"
SCENE_COUNT = 1500
DIGIT_SIDE = 64  # pixels of a digit; the scans have 8 x 8
QUERIES = ("a red heart", "the digit seven", "six small circles")
OWN_FOLDER_QUERIES = ("a red circle", "a dark picture", "stripes")  # words that the bundled network knows


@dataclass(frozen=True)
class QuickstartStep:
    """One step of the quickstart.

    Attributes:
        command: the command line that does the same.
        result: the result of the operation.
        seconds: wall time.
        files: files that were written.
    """

    command: str
    result: Any
    seconds: float
    files: tuple[Path, ...] = ()


def run(output: Path, images: Path | None) -> Iterator[QuickstartStep]:
    """Yield every step when it is done; it may run twice, and writes nothing outside the folder.

    Args:
        output: folder of everything that is written.
        images: a user's own folder, or None for scenes and digits.

    Raises:
        OutputError: if the folder cannot be written.
    """
    with output_errors(output):
        output.mkdir(exist_ok=True)
        yield from _steps(output, images)


def _steps(output: Path, images: Path | None) -> Iterator[QuickstartStep]:
    """Yield every step when it is done."""
    path = output / ("yours.store" if images else "quickstart.store")
    source = images or write_collection(output / "images")
    store = _open_store(path)
    yield _run_timed(f"embed {path} {source}", lambda: store.embed(source))
    yield _run_timed(f"index {path}", store.build_index)
    for text in OWN_FOLDER_QUERIES if images else QUERIES:
        yield _search(store, path, text)
    yield _search(store, path, _query_image(store))
    yield from _classify(store, path)
    yield _draw_map(store, path)


def write_collection(folder: Path) -> Path:
    """Write 1,500 scenes and 1,797 scanned digits as PNG files; existing files are kept.

    Returns:
        The manifest: a CSV with ``uri``, ``label``, ``split`` and the content of each image.
    """
    manifest = folder / "collection.csv"
    rows = [*write_scenes(folder / "scenes", SCENE_COUNT), *write_digits(folder / "digits")]
    for row in rows:
        row["uri"] = str(Path(str(row["uri"])).relative_to(folder))
    write_manifest(manifest, rows)
    return manifest


def write_digits(folder: Path, per_class: int | None = None) -> list[ManifestRow]:
    """Write scans as ``<split>/<digit>/<n>.png``, dark on light, every fourth of a digit ``val``; return their rows."""
    from sklearn.datasets import load_digits

    data = load_digits()
    rows: list[ManifestRow] = []
    for digit in range(10):
        for position, n in enumerate(np.flatnonzero(data.target == digit)[:per_class]):
            split = "val" if position % 4 == 3 else "train"
            path = folder / split / str(digit) / f"{n:04d}.png"
            rows.append({"uri": str(path), "label": f"digit {digit}", "split": split, "kind": "scan", "number": 1})
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = (255 - data.images[n] * 255 / 16).astype(np.uint8)
                Image.fromarray(pixels).resize((DIGIT_SIDE, DIGIT_SIDE), Image.Resampling.BICUBIC).save(path)
    return rows


def _open_store(path: Path) -> Store:
    """Return the store, created at the first run, with the bundled network's space as its default."""
    if not path.exists():
        return es.create(path, BACKBONE)
    store = es.open(path)
    if not any(s.backbone == BACKBONE and s.current for s in store.info().spaces):
        store.set_default(store.add_space(BACKBONE).key)
    return store


def _run_timed(command: str, operation: Callable[[], Any]) -> QuickstartStep:
    """Run a step and measure its wall time."""
    begin = time.perf_counter()
    result = operation()
    return QuickstartStep(f"embedstore {command}", result, time.perf_counter() - begin)


def _search(store: Store, path: Path, query: str | Path) -> QuickstartStep:
    """Search, and write the contact sheets next to the store."""
    name = "like-this" if isinstance(query, Path) else "-".join(query.split())
    files = (path.parent / f"{name}.html", path.parent / f"{name}.png")
    argument = f"--image {query}" if isinstance(query, Path) else f'"{query}"'
    step = _run_timed(f"search {path} {argument} -o {files[0]} -o {files[1]}", lambda: store.search(query, k=10))
    write_page(files[0], step.result.html())
    step.result.png(files[1])
    return replace(step, files=files)


def _query_image(store: Store) -> Path:
    """Return an image to search with: the first held-out one, or the first."""
    rows = store.sql(EXAMPLE_URI)
    return Path(rows.rows[0][0])


def _classify(store: Store, path: Path) -> Iterator[QuickstartStep]:
    """Classify the label by logistic regression, nearest neighbors and zero-shot, if the items have labels."""
    counts = store.sql(LABEL_SIZES).rows
    if len(counts) < 2 or min(n for (n,) in counts) < 2:
        return
    yield _run_timed(f"probe {path} label", lambda: store.probe("label"))
    yield _run_timed(f"knn {path} label -k 5", lambda: store.knn("label", k=5))
    yield _run_timed(
        f"zero-shot {path} label", lambda: store.zero_shot(store.distinct_labels("label")).evaluate("label")
    )


def _draw_map(store: Store, path: Path) -> QuickstartStep:
    """Draw the map, as an image and as a page, next to the store."""
    files = (path.parent / "map.html", path.parent / "map.png")
    step = _run_timed(f"map {path} -o {files[0]} -o {files[1]}", store.map)
    write_page(files[0], step.result.html())
    step.result.png(files[1])
    return replace(step, files=files)


NEXT_STEPS = """\
next, on your own photos with a full-size CLIP:
  embedstore create my.store --backbone clip
  embedstore embed my.store PHOTOS/
  embedstore search my.store "a dog on a beach" -o hits.html
  embedstore probe my.store label
  embedstore zero-shot my.store label --classes cat,dog
  embedstore serve my.store"""
