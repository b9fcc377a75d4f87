"""Captioned scenes, drawn by rule: what the bundled model learned from, and what the quickstart searches.

:func:`compose` decides what is to be seen, :func:`draw` paints it, :func:`caption` says it in words. Everything
follows from a random generator, so a seed and a number name a scene for ever::

    scene = compose(np.random.default_rng((0, 17)))
    draw(scene, 64, rng)           # a PIL image
    caption(scene, rng)            # "a small red star left of two blue fish, on a white background"
"""

from embedstore.quickstart.scenes.compose import (
    COLORS,
    DIGITS,
    LETTERS,
    SHAPES,
    Scene,
    SceneObject,
    compose,
    is_held_out_pair,
)
from embedstore.quickstart.scenes.paint import draw
from embedstore.quickstart.scenes.words import caption, word_for

__all__ = [
    "COLORS",
    "DIGITS",
    "LETTERS",
    "SHAPES",
    "Scene",
    "SceneObject",
    "caption",
    "compose",
    "draw",
    "is_held_out_pair",
    "word_for",
]
