"""The training scenes on disk: pictures and four captions each, in parts, so that an interrupted run goes on."""

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
PART = 4_000  # scenes a file
CAPTIONS = 4  # wordings a scene


def write(folder: Path, scenes: int, seed: int, workers: int, *, part: int = PART) -> None:
    """All parts of ``part`` scenes that are not there yet; part ``p`` of a seed is always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [p for p in range(scenes // part) if not _captions(folder, p).exists()]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done in pool.map(partial(_write_part, folder, part, seed), missing):
            print(f"part {done + 1} of {scenes // part}", flush=True)


def read(folder: Path, scenes: int, *, part: int = PART) -> tuple[NDArray[np.uint8], list[list[str]]]:
    """The pictures, uint8 ``(N, 64, 64, 3)``, and the captions of each."""
    parts = range(scenes // part)
    pictures = np.concatenate([np.load(_pictures(folder, p)) for p in parts])
    captions = [c for p in parts for c in json.loads(_captions(folder, p).read_text())]
    return pictures, captions


def alike(scenes: int, seed: int) -> NDArray[np.int64]:
    """Scenes of one kind whose first thing has one colour share a number, ``(N,)``."""
    kinds, colours = list(KINDS), list(COLORS)
    shown = (compose(np.random.default_rng((seed, n))) for n in range(scenes))
    return np.array([kinds.index(s.kind) * len(colours) + colours.index(s.objects[0].color) for s in shown])


def fresh(
    seed: int, number: int, *, kind: str = "", unseen: bool | None = False, detail: float | None = None
) -> tuple[NDArray[np.uint8], list[str], list[object]]:
    """Scenes that no training run has seen: pictures, one caption each, and what they show."""
    pictures, captions, shown = [], [], []
    for n in range(number):
        rng = np.random.default_rng((seed, n))
        scene = compose(rng, kind, held_out_pairs=unseen)
        pictures.append(np.asarray(draw(scene, SIDE, rng)))
        captions.append(caption(scene, rng, detail))
        shown.append(scene)
    return np.stack(pictures), captions, shown


def _write_part(folder: Path, size: int, seed: int, part: int) -> int:
    """One part; the captions come last, so a part with captions is whole."""
    pictures, captions = [], []
    for n in range(part * size, (part + 1) * size):
        rng = np.random.default_rng((seed, n))
        scene = compose(rng)
        pictures.append(np.asarray(draw(scene, SIDE, rng)))
        captions.append([caption(scene, rng) for _ in range(CAPTIONS)])
    np.save(_pictures(folder, part), np.stack(pictures))
    unfinished = _captions(folder, part).with_suffix(".partial")
    unfinished.write_text(json.dumps(captions))
    unfinished.rename(_captions(folder, part))
    return part


def _pictures(folder: Path, part: int) -> Path:
    return folder / f"pictures-{part:04d}.npy"


def _captions(folder: Path, part: int) -> Path:
    return folder / f"captions-{part:04d}.json"
