"""Captions of a scene: many wordings, with any amount of detail."""

from __future__ import annotations

import numpy as np

from embedstore.quickstart.scenes.compose import BACKGROUND_PATTERNS, DIGITS, Scene, SceneObject, pick

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SYNONYMS = {
    "gray": ("gray", "grey"),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "crescent": ("crescent", "moon"),
    "cross": ("cross", "plus sign"),
    "oval": ("oval", "ellipse"),
    "bolt": ("lightning bolt", "bolt"),
    "circle": ("circle", "disc"),
    "star": ("star", "five-pointed star"),
    "striped": ("striped", "stripy"),
    "spotted": ("spotted", "dotted"),
    "checkered": ("checkered", "chequered"),
    "hollow": ("hollow", "outlined"),
    "solid": ("solid", "filled"),
}
PATTERN_PHRASES = {
    "striped": "with stripes",
    "spotted": "with dots",
    "checkered": "with a checkerboard pattern",
    "hollow": "as an outline",
}
PLURALS = {"crescent": "crescents", "moon": "moons", "cross": "crosses", "fish": "fish"}
SMALL_WORDS, LARGE_WORDS = ("small", "little", "tiny"), ("large", "big", "huge")
ARROW_DIRECTIONS = ("right", "down", "left", "up")
OPENERS = ("", "", "a picture of ", "an image of ", "a photo of ", "a drawing of ", "there is ")
POSITION_PHRASES = (
    ("in the upper left corner", "at the top", "in the upper right corner"),
    ("on the left", "in the centre", "on the right"),
    ("in the lower left corner", "at the bottom", "in the lower right corner"),
)


def caption(scene: Scene, rng: np.random.Generator, detail: float | None = None) -> str:
    """Return one caption of a scene.

    Args:
        scene: content of the image.
        rng: random generator of the wording.
        detail: probability that each fact is mentioned, 0 to 1; None for a random one. 1 mentions everything.
    """
    if detail is None:
        detail = 1.0 if rng.random() < 0.4 else float(rng.random())
    body = {"single": _single, "several": _several, "count": _count, "glyph": _glyph}[scene.kind](scene, rng, detail)
    background = _background(scene, rng) if rng.random() < detail else ""
    defect = _defect(scene) if rng.random() < max(detail, 0.5) else ""
    if defect:
        return f"a {defect} {pick(rng, ('picture', 'photo', 'image'))} of {body}{background}"
    return f"{pick(rng, OPENERS)}{body}{background}"


def word_for(name: str, rng: np.random.Generator | None = None) -> str:
    """Return a word for an attribute or a shape: the usual one, or with a generator any synonym."""
    options = SYNONYMS.get(name, (name,))
    return pick(rng, options) if rng is not None else options[0]


def _single(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    obj = scene.objects[0]
    where = f" {_position(obj)}" if rng.random() < 0.7 * detail else ""
    return _article(_describe_object(obj, rng, detail, (0.2, 0.32))) + where


def _several(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    """Describe all objects, or two of them by their relative position."""
    phrases = [_article(_describe_object(t, rng, detail, (0.14, 0.2))) for t in scene.objects]
    if len(phrases) == 2 and rng.random() < 0.75:
        return _relation(scene.objects[0], scene.objects[1], phrases, rng)
    if rng.random() < 0.3:
        phrases.reverse()
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"


def _relation(first: SceneObject, second: SceneObject, phrases: list[str], rng: np.random.Generator) -> str:
    upright = abs(first.y - second.y) > abs(first.x - second.x)
    if rng.random() < 0.5:
        relation = pick(rng, ("above", "over") if upright else ("left of", "to the left of"))
        return f"{phrases[0]} {relation} {phrases[1]}"
    relation = pick(rng, ("below", "under") if upright else ("right of", "to the right of"))
    return f"{phrases[1]} {relation} {phrases[0]}"


def _count(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    number = len(scene.objects)
    number_word = NUMBER_WORDS[number] if rng.random() < 0.7 else str(number)
    words = _describe_object(scene.objects[0], rng, detail, (0.0, 9.0), plural=True)
    return f"{number_word} {words}"


def _glyph(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    obj = scene.objects[0]
    by_hand = obj.style != "printed"
    phrase = _glyph_name(obj, rng)
    if rng.random() < 0.6 * detail:
        phrase = f"{pick(rng, ('handwritten', 'hand drawn')) if by_hand else 'printed'} {phrase}"
    if rng.random() < 0.7 * detail:
        return f"{_article(f'{word_for(obj.color, rng)} {phrase}')}"
    return f"{pick(rng, ('the', 'the', 'a'))} {phrase}"


def _glyph_name(obj: SceneObject, rng: np.random.Generator) -> str:
    """Name a digit or a letter."""
    if obj.name in DIGITS:
        number_word = NUMBER_WORDS[int(obj.name)] if rng.random() < 0.6 else obj.name
        return f"{pick(rng, ('digit', 'digit', 'number'))} {number_word}"
    return f"{pick(rng, ('letter', 'letter', 'capital letter'))} {obj.name}"


def _describe_object(
    obj: SceneObject, rng: np.random.Generator, detail: float, sizes: tuple[float, float], plural: bool = False
) -> str:
    """Describe size, color, pattern and name, in one of the usual orders."""
    if obj.style:
        return f"{word_for(obj.color, rng)} {_glyph_name(obj, rng)}"
    name = word_for(obj.name, rng)
    if plural:
        name = PLURALS.get(name, f"{name}s")
    words = []
    if (obj.radius < sizes[0] or obj.radius > sizes[1]) and rng.random() < detail:
        words.append(pick(rng, SMALL_WORDS if obj.radius < sizes[0] else LARGE_WORDS))
    color = word_for(obj.color, rng) if rng.random() < max(detail, 0.75) else ""
    pattern, after = "", ""
    if obj.pattern != "solid" and rng.random() < max(detail, 0.4):
        if rng.random() < 0.7:
            pattern = word_for(obj.pattern, rng)
        else:
            after = f" {PATTERN_PHRASES[obj.pattern]}"
    elif obj.pattern == "solid" and rng.random() < 0.12 * detail:
        pattern = word_for("solid", rng)
    pair = [color, pattern] if rng.random() < 0.6 else [pattern, color]
    if obj.name == "arrow" and rng.random() < 0.6 * detail:
        after += f" pointing {ARROW_DIRECTIONS[obj.quarter_turns]}"
    return " ".join([*words, *(w for w in pair if w), name]) + after


def _article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _position(obj: SceneObject) -> str:
    """Name the ninth of the image that holds the center of an object."""
    row, column = (sum(v > edge for edge in (0.4, 0.6)) for v in (obj.y, obj.x))
    return POSITION_PHRASES[row][column]


def _background(scene: Scene, rng: np.random.Generator) -> str:
    color = word_for(scene.background, rng)
    name = scene.background_pattern
    pattern = word_for(name, rng) if name != BACKGROUND_PATTERNS[0] and rng.random() < 0.7 else ""
    pair = " ".join(w for w in (pattern, color) if w)
    if rng.random() < 0.25:
        return f" against {pair}"
    return f" {pick(rng, ('on', 'on', 'in front of'))} {_article(pair)} background"


def _defect(scene: Scene) -> str:
    """Name the camera defect that a person would notice, if any."""
    camera = scene.camera
    return "dark" if camera.gain < 0.6 else "blurry" if camera.blur > 1.2 else "noisy" if camera.noise > 15 else ""
