"""A labeled collection of scenes as PNG files, with a manifest of what each of them shows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TypeAlias

import numpy as np

from embedstore.quickstart.scenes.compose import DIGITS, Scene, compose
from embedstore.quickstart.scenes.paint import draw
from embedstore.quickstart.scenes.words import caption, word_for
from embedstore.storage.spreadsheet_cells import protect_cell

ManifestRow: TypeAlias = dict[str, str | int]
SCENE_SIDE = 96  # pixels
SEED = 2_026  # differs from the training scenes' seed: the bundled model has seen none of these
MANIFEST_COLUMNS = ("uri", "label", "split", "kind", "colour", "pattern", "number", "background", "caption")


def write_scenes(folder: Path, count: int) -> list[ManifestRow]:
    """Write the first ``count`` scenes as ``<folder>/<n>.png``, and return their manifest rows.

    Existing files are kept. Half of the scenes show a single shape and have its name as a label; every fourth of these
    is held out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(count):
        rng = np.random.default_rng((SEED, n))
        scene = compose(rng, "single" if n % 2 == 0 else "", held_out_pairs=None)
        path = folder / f"{n:04d}.png"
        image = draw(scene, SCENE_SIDE, rng)
        if not path.exists():
            image.save(path)
        rows.append({"uri": str(path), "split": "val" if n % 8 == 0 else "train", **_manifest_columns(scene, rng)})
    return rows


def write_manifest(path: Path, rows: list[ManifestRow]) -> None:
    """Write the rows as a CSV with the columns ``MANIFEST_COLUMNS``; missing values stay empty."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, MANIFEST_COLUMNS)
        table.writeheader()
        table.writerows({name: protect_cell(value) for name, value in row.items()} for row in rows)


def _manifest_columns(scene: Scene, rng: np.random.Generator) -> ManifestRow:
    """Return the manifest columns of a scene: those of its first object, unless it shows several different ones."""
    columns: ManifestRow = {"kind": scene.kind, "background": scene.background, "number": len(scene.objects)}
    columns["caption"] = caption(scene, rng, detail=1.0)
    if scene.kind == "several":
        return columns
    obj = scene.objects[0]
    columns |= {"colour": obj.color, "pattern": obj.pattern}
    if scene.kind == "single":
        columns["label"] = word_for(obj.name)
    elif scene.kind == "glyph" and obj.name in DIGITS:
        columns["label"] = f"digit {obj.name}"
    return columns
