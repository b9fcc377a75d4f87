"""A labelled collection of scenes as PNG files, with a manifest that says what each shows."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TypeAlias

import numpy as np

from embedstore.quickstart.scenes.compose import DIGITS, Scene, compose
from embedstore.quickstart.scenes.paint import draw
from embedstore.quickstart.scenes.words import caption, word_for

ManifestRow: TypeAlias = dict[str, str | int]
SCENE_SIDE = 96  # pixels
SEED = 2_026  # apart from the training scenes' seed: none of these was learned from
MANIFEST_COLUMNS = ("uri", "label", "split", "kind", "colour", "pattern", "number", "background", "caption")


def write_scenes(folder: Path, count: int) -> list[ManifestRow]:
    """The first ``number`` scenes as ``<folder>/<n>.png``; files that are there stay untouched.

    Half of them show a single shape and have its name as a label; every fourth of these is held out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for n in range(count):
        rng = np.random.default_rng((SEED, n))
        scene = compose(rng, "single" if n % 2 == 0 else "", held_out_pairs=None)
        path = folder / f"{n:04d}.png"
        picture = draw(scene, SCENE_SIDE, rng)
        if not path.exists():
            picture.save(path)
        rows.append({"uri": str(path), "split": "val" if n % 8 == 0 else "train", **_facts(scene, rng)})
    return rows


def write_manifest(path: Path, rows: list[ManifestRow]) -> None:
    """The rows as a CSV with the columns ``COLUMNS``; what a row lacks stays empty."""
    with path.open("w", newline="", encoding="utf-8") as opened:
        table = csv.DictWriter(opened, MANIFEST_COLUMNS)
        table.writeheader()
        table.writerows(rows)


def _facts(scene: Scene, rng: np.random.Generator) -> ManifestRow:
    """What a scene shows, in columns: of its first thing, unless it shows several different ones."""
    facts: ManifestRow = {"kind": scene.kind, "background": scene.background, "number": len(scene.objects)}
    facts["caption"] = caption(scene, rng, detail=1.0)
    if scene.kind == "several":
        return facts
    thing = scene.objects[0]
    facts |= {"colour": thing.color, "pattern": thing.pattern}
    if scene.kind == "single":
        facts["label"] = word_for(thing.name)
    elif scene.kind == "glyph" and thing.name in DIGITS:
        facts["label"] = f"digit {thing.name}"
    return facts
