"""Outlines of the shapes, as polygons in the square from -1 to 1; x to the right, y down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def outline(name: str) -> Points:
    """Return the corners of a shape, ``(N, 2)``, in order."""
    return _OUTLINES[name]


def _polar(radius: NDArray[np.float64] | float, angles: NDArray[np.float64]) -> Points:
    """Return points at angles (radians, 0 is up, clockwise)."""
    return np.stack([radius * np.sin(angles), -radius * np.cos(angles)], axis=1)


def _regular(corners: int, radius: float = 1.0, first: float = 0.0) -> Points:
    return _polar(radius, first + np.arange(corners) * 2 * np.pi / corners)


def _star() -> Points:
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _polar(radii, np.arange(10) * np.pi / 5)


def _heart() -> Points:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x / 16, (y - 2.5) / 14.5], axis=1)


def _crescent() -> Points:
    """Return the part of a disc that another disc, moved to the right, does not cover."""
    outer = np.linspace(np.radians(40), np.radians(320), 40)
    left = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    tip, center = left[0], np.array([0.55, 0.0])
    inner = np.arctan2(tip[1], tip[0] - center[0])
    radius = np.hypot(*(tip - center))
    back = np.linspace(2 * np.pi - inner, inner, 30)
    right = center + radius * np.stack([np.cos(back), np.sin(back)], axis=1)
    points: Points = np.concatenate([left, right]) + np.array([0.12, 0.0])
    return points


def _flower() -> Points:
    t = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return _polar(0.68 + 0.32 * np.cos(5 * t), t)


def _fish() -> Points:
    """Return a body on the left and a tail on the right."""
    t = np.linspace(np.radians(25), np.radians(335), 30)
    body = np.stack([0.66 * np.cos(t) - 0.3, 0.5 * np.sin(t)], axis=1)
    tail = np.array([[0.95, -0.55], [0.78, 0.0], [0.95, 0.55]])
    return np.concatenate([body, tail])


def _corners(text: str) -> Points:
    return np.array([[float(v) for v in pair.split(",")] for pair in text.split()])


_OUTLINES: dict[str, Points] = {
    "circle": _regular(40, 0.95),
    "square": _corners("-.84,-.84 .84,-.84 .84,.84 -.84,.84"),
    "triangle": _corners("0,-.95 .98,.8 -.98,.8"),
    "star": _star(),
    "heart": _heart(),
    "cross": _corners(
        "-.32,-.95 .32,-.95 .32,-.32 .95,-.32 .95,.32 .32,.32 .32,.95 -.32,.95 -.32,.32 -.95,.32 -.95,-.32 -.32,-.32"
    ),
    "diamond": _corners("0,-1 .64,0 0,1 -.64,0"),
    "hexagon": _regular(6, 1.0, np.pi / 6),
    "crescent": _crescent(),
    "arrow": _corners("1,0 .2,-.8 .2,-.3 -1,-.3 -1,.3 .2,.3 .2,.8"),
    "oval": _regular(40) * [1.0, 0.52],
    "house": _corners("0,-1 .95,-.15 .72,-.15 .72,.95 -.72,.95 -.72,-.15 -.95,-.15"),
    "tree": _corners("0,-1 .5,-.3 .28,-.3 .72,.4 .16,.4 .16,1 -.16,1 -.16,.4 -.72,.4 -.28,-.3 -.5,-.3"),
    "flower": _flower(),
    "fish": _fish(),
    "bolt": _corners(".3,-1 -.6,.15 -.08,.15 -.35,1 .62,-.25 .06,-.25 .55,-1"),
}
