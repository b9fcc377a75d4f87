"""The content of a scene: objects, their positions and appearance, and the simulated camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

T = TypeVar("T")

COLORS = {  # sRGB, 0 to 255
    "red": (215, 35, 35),
    "orange": (245, 140, 25),
    "yellow": (245, 220, 40),
    "green": (45, 160, 60),
    "cyan": (50, 205, 215),
    "blue": (40, 75, 210),
    "purple": (130, 50, 170),
    "pink": (245, 130, 185),
    "brown": (120, 72, 30),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "gray": (135, 135, 135),
}
SHAPES = (
    "circle", "square", "triangle", "star", "heart", "cross", "diamond", "hexagon",
    "crescent", "arrow", "oval", "house", "tree", "flower", "fish", "bolt",
)  # fmt: skip
DIGITS = tuple("0123456789")
LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
PATTERNS = ("solid", "striped", "spotted", "checkered", "hollow")
BACKGROUND_PATTERNS = ("plain", "gradient", "striped", "checkered", "spotted", "speckled")
KINDS = {"single": 0.27, "several": 0.35, "count": 0.12, "glyph": 0.26}
MAX_COUNT = 6  # equal objects in one scene
SIMILAR_COLORS = {
    frozenset(pair)
    for pair in (
        ("red", "brown"), ("orange", "yellow"), ("cyan", "blue"), ("blue", "purple"), ("pink", "purple"),
        ("white", "gray"), ("black", "brown"), ("orange", "red"), ("green", "cyan"), ("pink", "red"),
        ("orange", "brown"), ("black", "gray"), ("white", "yellow"), ("white", "cyan"), ("white", "pink"),
        ("black", "purple"),
    )
}  # fmt: skip


@dataclass(frozen=True)
class SceneObject:
    """One object in a scene.

    Attributes:
        name: a shape, a digit or a capital letter.
        color: a name in ``COLORS``.
        pattern: one of ``PATTERNS``.
        radius: half its extent, in image sides.
        x: center, 0 to 1 from the left.
        y: center, 0 to 1 from the top.
        tilt: degrees, clockwise.
        quarter_turns: direction of an arrow: right, down, left, up.
        style: the style of a digit or a letter: ``printed``, ``handwritten`` or ``scanned``; "" for a shape.
        seed: the random seed of everything that the caption has no word for.
    """

    name: str
    color: str
    pattern: str = "solid"
    radius: float = 0.25
    x: float = 0.5
    y: float = 0.5
    tilt: float = 0.0
    quarter_turns: int = 0
    style: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Camera:
    """The simulated camera: typical defects of photographs.

    Attributes:
        gain: brightness factor.
        light_gradient: extra brightness from one side to the other.
        light_direction: direction of the gradient in degrees.
        blur: standard deviation, in 1/64 of the image side.
        noise: standard deviation, in gray levels.
        jpeg_quality: 0 for no compression.
        keystone: perspective distortion in x and y.
    """

    gain: float = 1.0
    light_gradient: float = 0.0
    light_direction: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    jpeg_quality: int = 0
    keystone: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class Scene:
    """The content of an image.

    Attributes:
        kind: one of ``KINDS``.
        objects: in ``several`` from left to right or top to bottom; equal objects in ``count``.
        background: color of the background.
        background_pattern: one of ``BACKGROUND_PATTERNS``.
        camera: how the image was taken.
    """

    kind: str
    objects: tuple[SceneObject, ...]
    background: str
    background_pattern: str
    camera: Camera = Camera()


def is_held_out_pair(color: str, shape: str) -> bool:
    """Return whether no training scene shows a pair: 48 of 192 pairs, four shapes per color, three colors per shape."""
    return (tuple(COLORS).index(color) + 3 * SHAPES.index(shape)) % 4 == 0


def compose(rng: np.random.Generator, kind: str = "", *, held_out_pairs: bool | None = False) -> Scene:
    """Return a random scene.

    Args:
        rng: random generator.
        kind: one of ``KINDS``; "" for a random one.
        held_out_pairs: False for no held-out pair of color and shape, True for held-out pairs only, None for any pair.
    """
    kind = kind or tuple(KINDS)[int(np.searchsorted(np.cumsum(list(KINDS.values())), rng.random()))]
    objects = {"single": _single, "several": _several, "count": _count, "glyph": _glyph}[kind](rng, held_out_pairs)
    patterns = BACKGROUND_PATTERNS[:2] if any(t.style == "scanned" for t in objects) else BACKGROUND_PATTERNS
    background = _background_color(rng, [t.color for t in objects])
    pattern = patterns[0] if rng.random() < 0.5 else pick(rng, patterns)
    return Scene(kind, tuple(objects), background, pattern, _camera(rng))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """Return one of the options with equal probability."""
    return options[int(rng.integers(len(options)))]


def _single(rng: np.random.Generator, held_out_pairs: bool | None) -> list[SceneObject]:
    """Return one shape at a random position."""
    radius = float(rng.uniform(0.14, 0.42))
    x, y = (float(rng.uniform(radius * 0.9, 1 - radius * 0.9)) for _ in "xy")
    return [_shape(rng, held_out_pairs, radius, x, y)]


def _several(rng: np.random.Generator, held_out_pairs: bool | None) -> list[SceneObject]:
    """Return two or three different objects, next to each other or one above the other."""
    number = 2 if rng.random() < 0.75 else 3
    along = (np.arange(number) + 0.5) / number + rng.uniform(-0.04, 0.04, number)
    across = 0.5 + rng.uniform(-0.14, 0.14, number)
    upright = number == 2 and rng.random() < 0.5
    objects: list[SceneObject] = []
    for a, b in zip(along, across, strict=True):
        radius = float(rng.uniform(0.12, 0.235 if number == 2 else 0.165))
        x, y = (float(b), float(a)) if upright else (float(a), float(b))
        obj = _shape(rng, held_out_pairs, radius, x, y)
        while any(t.name == obj.name and t.color == obj.color for t in objects):
            obj = _shape(rng, held_out_pairs, radius, x, y)
        if rng.random() < 0.12:
            obj = _as_glyph(rng, replace(obj, pattern="solid"))
        objects.append(obj)
    return objects


def _count(rng: np.random.Generator, held_out_pairs: bool | None) -> list[SceneObject]:
    """Return two to six equal objects in cells of a three by three grid."""
    number = int(rng.integers(2, MAX_COUNT + 1))
    first = _shape(rng, held_out_pairs, float(rng.uniform(0.09, 0.145)), 0.5, 0.5)
    cells = rng.permutation(9)[:number]
    jitter = rng.uniform(-0.025, 0.025, (number, 2))
    centers = np.stack([cells % 3, cells // 3], 1) / 3 + 1 / 6 + jitter
    return [replace(first, x=float(x), y=float(y), tilt=_tilt(rng)) for x, y in centers]


def _glyph(rng: np.random.Generator, held_out_pairs: bool | None) -> list[SceneObject]:
    """Return one digit or letter that fills most of the image."""
    del held_out_pairs
    radius = float(rng.uniform(0.28, 0.48))
    slack = 0.5 - radius
    x, y = (float(0.5 + rng.uniform(-slack, slack)) for _ in "xy")
    blank = SceneObject(
        "", _glyph_color(rng), "solid", radius, x, y, tilt=float(rng.normal(0, 7)), seed=_random_seed(rng)
    )
    obj = _as_glyph(rng, blank)
    if obj.style == "handwritten" and rng.random() < 0.5:
        return [replace(obj, style="scanned", x=0.5, y=0.5, radius=0.5)]
    return [obj]


def _glyph_color(rng: np.random.Generator) -> str:
    """Return an ink color, often black or white."""
    return pick(rng, ("black", "white")) if rng.random() < 0.5 else pick(rng, tuple(COLORS))


def _as_glyph(rng: np.random.Generator, obj: SceneObject) -> SceneObject:
    """Turn an object into a digit (two in three) or a letter."""
    name = pick(rng, DIGITS if rng.random() < 0.66 else LETTERS)
    return replace(obj, name=name, quarter_turns=0, style="handwritten" if rng.random() < 0.55 else "printed")


def _shape(rng: np.random.Generator, held_out_pairs: bool | None, radius: float, x: float, y: float) -> SceneObject:
    """Return a shape with an allowed color."""
    colors = tuple(COLORS)
    color, name = pick(rng, colors), pick(rng, SHAPES)
    while held_out_pairs is not None and is_held_out_pair(color, name) is not held_out_pairs:
        color, name = pick(rng, colors), pick(rng, SHAPES)
    pattern = "solid" if rng.random() < 0.55 else pick(rng, PATTERNS[1:])
    turn = int(rng.integers(4)) if name == "arrow" else 0
    return SceneObject(name, color, pattern, radius, x, y, _tilt(rng), turn, seed=_random_seed(rng))


def _tilt(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(0, 7), -16, 16))


def _random_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _background_color(rng: np.random.Generator, taken: list[str]) -> str:
    """Return a background color that differs from every object's."""
    if rng.random() < 0.35:
        free = [c for c in ("white", "black", "gray") if _is_distinct(c, taken)]
        if free:
            return pick(rng, free)
    return pick(rng, [c for c in COLORS if _is_distinct(c, taken)] or [c for c in COLORS if c not in taken])


def _is_distinct(color: str, taken: list[str]) -> bool:
    return all(color != t and frozenset((color, t)) not in SIMILAR_COLORS for t in taken)


def _camera(rng: np.random.Generator) -> Camera:
    """Return mostly mild defects, sometimes a dark, blurry or noisy image strong enough for the caption to say so."""
    camera = Camera(
        gain=float(rng.uniform(0.8, 1.15)),
        light_gradient=float(rng.uniform(0, 0.3)),
        light_direction=float(rng.uniform(0, 360)),
        blur=float(max(0.0, rng.uniform(-0.7, 0.8))),
        noise=float(max(0.0, rng.uniform(-6, 10))),
        jpeg_quality=int(rng.integers(45, 96)) if rng.random() < 0.5 else 0,
        keystone=(float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.15, 0.15))),
    )
    defect = rng.random()
    if defect < 0.04:
        return replace(camera, gain=float(rng.uniform(0.35, 0.5)), light_gradient=0.0)
    if defect < 0.08:
        return replace(camera, blur=float(rng.uniform(1.6, 2.2)))
    if defect < 0.12:
        return replace(camera, noise=float(rng.uniform(24, 34)))
    return camera
