"""Captioned scenes, drawn by rule: the training data of the bundled model, and the images of the quickstart.

:func:`compose` chooses the content, :func:`draw` renders it, :func:`caption` describes it in words. Everything follows
from a random generator, so a seed and a number always give the same scene::

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
