"""The training scenes on disk: images with four captions each, in parts, so that an interrupted run resumes."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.quickstart.scenes import COLORS, caption, compose, draw
from embedstore.quickstart.scenes.compose import KINDS

SIDE = 64  # pixels
PART = 4_000  # scenes per file
CAPTIONS = 4  # captions per scene


def write(folder: Path, scenes: int, seed: int, workers: int, *, part: int = PART) -> None:
    """Write the missing parts of ``part`` scenes; part ``p`` of a seed is always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in range(scenes // part) if not _captions_file(folder, p).exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in pool.map(partial(_write_part, folder, part, seed), missing):
            print(f"part {done + 1} of {scenes // part}", flush=True)


def read(folder: Path, scenes: int, *, part: int = PART) -> tuple[NDArray[np.uint8], list[list[str]]]:
    """Return the images, uint8 ``(N, 64, 64, 3)``, and the captions of each."""
    parts = range(scenes // part)
    images = np.concatenate([np.load(_images_file(folder, p)) for p in parts])
    captions = [c for p in parts for c in json.loads(_captions_file(folder, p).read_text())]
    return images, captions


def scene_groups(scenes: int, seed: int) -> NDArray[np.int64]:
    """Return a number per scene, ``(N,)``, shared by scenes of one kind whose first object has one color."""
    kinds, colors = list(KINDS), list(COLORS)
    shown = (compose(np.random.default_rng((seed, n))) for n in range(scenes))
    return np.array([kinds.index(s.kind) * len(colors) + colors.index(s.objects[0].color) for s in shown])


def fresh(
    seed: int, count: int, *, kind: str = "", held_out_pairs: bool | None = False, detail: float | None = None
) -> tuple[NDArray[np.uint8], list[str], list[object]]:
    """Return scenes that no training run has seen: images, one caption each, and the scenes."""
    images, captions, shown = [], [], []
    for n in range(count):
        rng = np.random.default_rng((seed, n))
        scene = compose(rng, kind, held_out_pairs=held_out_pairs)
        images.append(np.asarray(draw(scene, SIDE, rng)))
        captions.append(caption(scene, rng, detail))
        shown.append(scene)
    return np.stack(images), captions, shown


def _write_part(folder: Path, size: int, seed: int, part: int) -> int:
    """Write one part; the captions come last, so a part with captions is complete."""
    images, captions = [], []
    for n in range(part * size, (part + 1) * size):
        rng = np.random.default_rng((seed, n))
        scene = compose(rng)
        images.append(np.asarray(draw(scene, SIDE, rng)))
        captions.append([caption(scene, rng) for _ in range(CAPTIONS)])
    np.save(_images_file(folder, part), np.stack(images))
    unfinished = _captions_file(folder, part).with_suffix(".partial")
    unfinished.write_text(json.dumps(captions))
    unfinished.rename(_captions_file(folder, part))
    return part


def _images_file(folder: Path, part: int) -> Path:
    return folder / f"pictures-{part:04d}.npy"


def _captions_file(folder: Path, part: int) -> Path:
    return folder / f"captions-{part:04d}.json"
