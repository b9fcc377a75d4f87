"""Captioned scenes: reproducible from a seed, with true captions, and without the held-out pairs."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from embedstore.quickstart.scenes import (
    COLORS,
    DIGITS,
    LETTERS,
    SHAPES,
    Scene,
    SceneObject,
    caption,
    compose,
    draw,
    is_held_out_pair,
)
from embedstore.quickstart.scenes.compose import Camera
from embedstore.quickstart.scenes.glyphs import STROKES, glyph_mask
from embedstore.quickstart.scenes.shapes import outline
from embedstore.quickstart.scenes.words import SYNONYMS


def scene_of(*things, kind="single", background="white", camera=None):
    return Scene(kind, things, background, "plain", camera or Camera())


def captions_of(scene, detail=1.0, times=60):
    """Return many captions of a scene."""
    return [caption(scene, np.random.default_rng(n), detail) for n in range(times)]


def test_a_seed_always_gives_the_same_scene():
    """Content, caption and every pixel follow from the random generator alone."""

    def all_of(n):
        rng = np.random.default_rng((1, n))
        scene = compose(rng)
        return scene, np.asarray(draw(scene, 64, rng)), caption(scene, rng)

    for n in range(40):
        (a, pixels_a, words_a), (b, pixels_b, words_b) = all_of(n), all_of(n)
        assert a == b
        assert words_a == words_b
        assert (pixels_a == pixels_b).all()


def test_captions_of_the_first_training_scenes_are_unchanged():
    """The rules are those that the bundled weights were trained with."""
    first = []
    for n in (0, 1, 2):
        rng = np.random.default_rng((1, n))
        first.append(caption(compose(rng), rng, 1.0))
    assert first == FIRST


FIRST = [
    "a dark photo of an orange outlined disc, a tiny orange hexagon and a yellow disc in front of a blue background",
    "a blue outlined lightning bolt over a grey circle in front of a brown background",
    "an image of a gray square and a huge blue solid oval on a stripy brown background",
]


def test_held_out_pairs_are_spread_evenly():
    """The 48 held-out pairs take four shapes from every color, and three colors from every shape."""
    pairs = [(c, s) for c in COLORS for s in SHAPES if is_held_out_pair(c, s)]
    assert len(pairs) == 48
    assert set(Counter(c for c, _ in pairs).values()) == {4}
    assert set(Counter(s for _, s in pairs).values()) == {3}


def test_no_training_scene_shows_a_held_out_pair():
    """None of 3,000 scenes does; with held_out_pairs=True every one of 200 does."""
    for n in range(3000):
        for thing in compose(np.random.default_rng((1, n))).objects:
            assert thing.style or not is_held_out_pair(thing.color, thing.name)
    for n in range(200):
        (thing,) = compose(np.random.default_rng((1, n)), "single", held_out_pairs=True).objects
        assert is_held_out_pair(thing.color, thing.name)


def test_objects_differ_in_color_from_the_background():
    """No object of 1,000 scenes has the background's color."""
    for n in range(1000):
        scene = compose(np.random.default_rng((5, n)))
        assert scene.background not in {t.color for t in scene.objects}


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (0.2, 0.2, "in the upper left corner"),
        (0.5, 0.5, "in the centre"),
        (0.8, 0.5, "on the right"),
        (0.5, 0.8, "at the bottom"),
    ],
)
def test_captions_name_the_position(x, y, words):
    """They name the ninth of the image that holds the center, and no other."""
    captions = captions_of(scene_of(SceneObject("star", "red", x=x, y=y)))
    assert any(c.split(" on a")[0].split(" against")[0].split(" in front")[0].endswith(words) for c in captions)
    others = {"in the centre", "on the right", "at the bottom", "in the upper left corner"} - {words}
    assert not any(o in c for o in others for c in captions)


def test_captions_name_the_relative_position():
    """Left, right, above and below are correct in either order of the objects."""
    left, right = SceneObject("star", "red", x=0.25), SceneObject("heart", "blue", x=0.75)
    for c in captions_of(scene_of(left, right, kind="several")):
        star, heart = c.index("star"), c.index("heart")
        assert "left of" not in c or star < heart
        assert "right of" not in c or heart < star
    above, below = SceneObject("star", "red", y=0.25), SceneObject("heart", "blue", y=0.75)
    for c in captions_of(scene_of(above, below, kind="several")):
        star, heart = c.index("star"), c.index("heart")
        assert not any(w in c for w in (" above ", " over ")) or star < heart
        assert not any(w in c for w in (" below ", " under ")) or heart < star


def test_full_detail_mentions_every_attribute():
    """Color, pattern, name and background each appear as one of their words."""
    for c in captions_of(scene_of(SceneObject("crescent", "gray", "spotted"), background="purple")):
        assert any(w in c for w in SYNONYMS["crescent"])
        assert any(w in c for w in SYNONYMS["gray"])
        assert any(w in c for w in (*SYNONYMS["spotted"], "dots"))
        assert any(w in c for w in SYNONYMS["purple"])


@pytest.mark.parametrize(
    ("camera", "word"),
    [(Camera(gain=0.4), "dark"), (Camera(blur=2.0), "blurry"), (Camera(noise=30.0), "noisy"), (Camera(), "")],
)
def test_captions_name_strong_camera_defects(camera, word):
    """Dark, blurry and noisy images are called so, and good ones are not."""
    captions = captions_of(scene_of(SceneObject("star", "red"), camera=camera))
    for w in ("dark", "blurry", "noisy"):
        assert all(w in c for c in captions) == (w == word)


def test_captions_name_the_number_of_objects():
    """The number appears as a word or a digit, with a plural."""
    scene = scene_of(*[SceneObject("fish", "blue")] * 4, kind="count")
    assert {"four" in c or "4" in c for c in captions_of(scene)} == {True}
    assert any("four blue fish" in c for c in captions_of(scene))


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_is_drawn_in_its_color(name):
    """A large solid shape on white covers a fair part of the image in about its color."""
    scene = scene_of(SceneObject(name, "blue", radius=0.42))
    pixels = np.asarray(draw(scene, 64, np.random.default_rng(0))).astype(int)
    blue = (np.abs(pixels - COLORS["blue"]) < 40).all(axis=2).mean()
    assert 0.08 < blue < 0.75
    assert np.abs(outline(name)).max() <= 1.001


def test_arrows_point_in_their_direction():
    """The wide end is on the right, bottom, left or top."""
    for turn, axis, far in ((0, 1, True), (1, 0, True), (2, 1, False), (3, 0, False)):
        scene = scene_of(SceneObject("arrow", "black", radius=0.45, quarter_turns=turn))
        ink = 255 - np.asarray(draw(scene, 64, np.random.default_rng(0)).convert("L")).astype(int) > 128
        along = ink.sum(axis=1 - axis)
        assert bool(along[40:].max() > along[:24].max()) is far


@pytest.mark.parametrize("style", ["printed", "handwritten", "scanned"])
def test_every_character_is_drawn_in_every_style(style):
    """All digits and letters have ink and empty space."""
    for n, name in enumerate((*DIGITS, *LETTERS)):
        ink = np.asarray(glyph_mask(name, style, np.random.default_rng(n))) > 40
        assert 0.02 < ink.mean() < 0.8, name
    assert min(len(STROKES[d]) for d in DIGITS) >= 2


def test_camera_defects_change_brightness_and_contrast():
    """Low gain is darker, blur lowers contrast, noise raises it."""
    plain = scene_of(SceneObject("star", "black", "striped"))

    def pixels(**camera):
        scene = replace(plain, camera=Camera(**camera))
        return np.asarray(draw(scene, 64, np.random.default_rng(0))).astype(float)

    def edges(p):
        return np.abs(np.diff(p, axis=0)).mean()

    assert pixels(gain=0.4).mean() == pytest.approx(0.4 * pixels().mean(), rel=0.02)
    assert edges(pixels(blur=2.0)) < 0.7 * edges(pixels())
    assert edges(pixels(noise=30.0)) > 1.5 * edges(pixels())


def test_a_scene_is_drawn_at_any_size():
    """A larger image of the same scene, reduced, equals the small one."""
    scene = scene_of(SceneObject("heart", "red", radius=0.3))
    small, large = (draw(scene, n, np.random.default_rng(0)) for n in (64, 256))
    near = np.asarray(large.resize((64, 64), Image.Resampling.BOX)).astype(int) - np.asarray(small)
    assert np.abs(near).mean() < 4
