"""What is to be seen in a scene: things, where they stand, what they look like, and how the camera saw them."""

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
MAX_COUNT = 6  # things of one kind
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
    """One thing in a scene.

    Attributes:
        name: a shape, a digit or a capital letter.
        colour: a name in ``COLOURS``. pattern: one of ``PATTERNS``.
        radius: half its extent, in image sides. x, y: its centre, 0 to 1, from the upper left.
        tilt: degrees, clockwise. turn: where an arrow points: right, down, left, up.
        style: of a digit or a letter: ``printed``, ``handwritten`` or ``scanned``; "" for a shape.
        look: a number from which the painter draws everything that has no word.
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
    """How the picture was taken: what photographs suffer from.

    Attributes:
        gain: brightness factor. light: extra brightness from one side to the other, and its direction in degrees.
        blur: standard deviation, in 1/64 of the image side. noise: standard deviation, in grey levels.
        quality: JPEG quality; 0 for none. keystone: how much nearer one side is than the other, in x and y.
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
    """What is to be seen.

    Attributes:
        kind: one of ``KINDS``.
        things: from left to right in ``several`` as they are told; equal things in ``count``.
        ground: the colour of the background, and its pattern, one of ``GROUNDS``.
    """

    kind: str
    objects: tuple[SceneObject, ...]
    background: str
    background_pattern: str
    camera: Camera = Camera()


def is_held_out_pair(color: str, shape: str) -> bool:
    """Whether a pair is kept out of every training scene: 48 of 192, four shapes a colour and three colours a shape."""
    return (tuple(COLORS).index(color) + 3 * SHAPES.index(shape)) % 4 == 0


def compose(rng: np.random.Generator, kind: str = "", *, held_out_pairs: bool | None = False) -> Scene:
    """A random scene.

    Args:
        rng: decides everything.
        kind: one of ``KINDS``; "" for a random one.
        unseen: False for none of the held-out pairs of colour and shape, True for them alone, None for any pair.
    """
    kind = kind or tuple(KINDS)[int(np.searchsorted(np.cumsum(list(KINDS.values())), rng.random()))]
    things = {"single": _single, "several": _several, "count": _count, "glyph": _glyph}[kind](rng, held_out_pairs)
    patterns = BACKGROUND_PATTERNS[:2] if any(t.style == "scanned" for t in things) else BACKGROUND_PATTERNS
    ground = _ground(rng, [t.color for t in things])
    pattern = patterns[0] if rng.random() < 0.5 else pick(rng, patterns)
    return Scene(kind, tuple(things), ground, pattern, _camera(rng))


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all equally likely."""
    return options[int(rng.integers(len(options)))]


def _single(rng: np.random.Generator, unseen: bool | None) -> list[SceneObject]:
    """One shape anywhere."""
    radius = float(rng.uniform(0.14, 0.42))
    x, y = (float(rng.uniform(radius * 0.9, 1 - radius * 0.9)) for _ in "xy")
    return [_shape(rng, unseen, radius, x, y)]


def _several(rng: np.random.Generator, unseen: bool | None) -> list[SceneObject]:
    """Two or three different things, side by side or one above the other."""
    number = 2 if rng.random() < 0.75 else 3
    along = (np.arange(number) + 0.5) / number + rng.uniform(-0.04, 0.04, number)
    across = 0.5 + rng.uniform(-0.14, 0.14, number)
    upright = number == 2 and rng.random() < 0.5
    things: list[SceneObject] = []
    for a, b in zip(along, across, strict=True):
        radius = float(rng.uniform(0.12, 0.235 if number == 2 else 0.165))
        x, y = (float(b), float(a)) if upright else (float(a), float(b))
        thing = _shape(rng, unseen, radius, x, y)
        while any(t.name == thing.name and t.color == thing.color for t in things):
            thing = _shape(rng, unseen, radius, x, y)
        if rng.random() < 0.12:
            thing = _sign(rng, replace(thing, pattern="solid"))
        things.append(thing)
    return things


def _count(rng: np.random.Generator, unseen: bool | None) -> list[SceneObject]:
    """Two to six equal things, in cells of a three by three grid."""
    number = int(rng.integers(2, MAX_COUNT + 1))
    first = _shape(rng, unseen, float(rng.uniform(0.09, 0.145)), 0.5, 0.5)
    cells = rng.permutation(9)[:number]
    wander = rng.uniform(-0.025, 0.025, (number, 2))
    places = np.stack([cells % 3, cells // 3], 1) / 3 + 1 / 6 + wander
    return [replace(first, x=float(x), y=float(y), tilt=_tilt(rng)) for x, y in places]


def _glyph(rng: np.random.Generator, unseen: bool | None) -> list[SceneObject]:
    """One digit or letter that fills much of the picture."""
    del unseen
    radius = float(rng.uniform(0.28, 0.48))
    slack = 0.5 - radius
    x, y = (float(0.5 + rng.uniform(-slack, slack)) for _ in "xy")
    blank = SceneObject("", _glyph_colour(rng), "solid", radius, x, y, tilt=float(rng.normal(0, 7)), seed=_look(rng))
    thing = _sign(rng, blank)
    if thing.style == "handwritten" and rng.random() < 0.5:
        return [replace(thing, style="scanned", x=0.5, y=0.5, radius=0.5)]
    return [thing]


def _glyph_colour(rng: np.random.Generator) -> str:
    """Ink is often black or white."""
    return pick(rng, ("black", "white")) if rng.random() < 0.5 else pick(rng, tuple(COLORS))


def _sign(rng: np.random.Generator, thing: SceneObject) -> SceneObject:
    """The thing as a digit (two in three) or a letter."""
    name = pick(rng, DIGITS if rng.random() < 0.66 else LETTERS)
    return replace(thing, name=name, quarter_turns=0, style="handwritten" if rng.random() < 0.55 else "printed")


def _shape(rng: np.random.Generator, unseen: bool | None, radius: float, x: float, y: float) -> SceneObject:
    """A shape with an allowed colour."""
    colours = tuple(COLORS)
    colour, name = pick(rng, colours), pick(rng, SHAPES)
    while unseen is not None and is_held_out_pair(colour, name) is not unseen:
        colour, name = pick(rng, colours), pick(rng, SHAPES)
    pattern = "solid" if rng.random() < 0.55 else pick(rng, PATTERNS[1:])
    turn = int(rng.integers(4)) if name == "arrow" else 0
    return SceneObject(name, colour, pattern, radius, x, y, _tilt(rng), turn, seed=_look(rng))


def _tilt(rng: np.random.Generator) -> float:
    return float(np.clip(rng.normal(0, 7), -16, 16))


def _look(rng: np.random.Generator) -> int:
    return int(rng.integers(2**31))


def _ground(rng: np.random.Generator, taken: list[str]) -> str:
    """A background colour that every thing stands out from."""
    if rng.random() < 0.35:
        free = [c for c in ("white", "black", "gray") if _clear(c, taken)]
        if free:
            return pick(rng, free)
    return pick(rng, [c for c in COLORS if _clear(c, taken)] or [c for c in COLORS if c not in taken])


def _clear(colour: str, taken: list[str]) -> bool:
    return all(colour != t and frozenset((colour, t)) not in SIMILAR_COLORS for t in taken)


def _camera(rng: np.random.Generator) -> Camera:
    """Mostly mild nuisance; now and then a dark, blurry or noisy picture, strong enough to be called so."""
    camera = Camera(
        gain=float(rng.uniform(0.8, 1.15)),
        light_gradient=float(rng.uniform(0, 0.3)),
        light_direction=float(rng.uniform(0, 360)),
        blur=float(max(0.0, rng.uniform(-0.7, 0.8))),
        noise=float(max(0.0, rng.uniform(-6, 10))),
        jpeg_quality=int(rng.integers(45, 96)) if rng.random() < 0.5 else 0,
        keystone=(float(rng.uniform(-0.15, 0.15)), float(rng.uniform(-0.15, 0.15))),
    )
    spoiled = rng.random()
    if spoiled < 0.04:
        return replace(camera, gain=float(rng.uniform(0.35, 0.5)), light_gradient=0.0)
    if spoiled < 0.08:
        return replace(camera, blur=float(rng.uniform(1.6, 2.2)))
    if spoiled < 0.12:
        return replace(camera, noise=float(rng.uniform(24, 34)))
    return camera
