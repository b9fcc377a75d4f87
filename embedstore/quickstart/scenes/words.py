"""A scene in words: many ways to say it, and as much of it as one likes."""

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
    """One way to say what is to be seen.

    Args:
        scene: what is to be seen.
        rng: decides the wording.
        detail: how likely each fact is told, 0 to 1; None for a random amount. 1 tells everything there are words for.
    """
    if detail is None:
        detail = 1.0 if rng.random() < 0.4 else float(rng.random())
    body = {"single": _single, "several": _several, "count": _count, "glyph": _glyph}[scene.kind](scene, rng, detail)
    ground = _ground(scene, rng) if rng.random() < detail else ""
    spoiled = _spoiled(scene) if rng.random() < max(detail, 0.5) else ""
    if spoiled:
        return f"a {spoiled} {pick(rng, ('picture', 'photo', 'image'))} of {body}{ground}"
    return f"{pick(rng, OPENERS)}{body}{ground}"


def word_for(name: str, rng: np.random.Generator | None = None) -> str:
    """A word for an attribute or a shape: the usual one, or any where a generator decides."""
    options = SYNONYMS.get(name, (name,))
    return pick(rng, options) if rng is not None else options[0]


def _single(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    thing = scene.objects[0]
    where = f" {_place(thing)}" if rng.random() < 0.7 * detail else ""
    return _article(_thing(thing, rng, detail, (0.2, 0.32))) + where


def _several(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    """All things, or the first ones, with how they stand to each other."""
    told = [_article(_thing(t, rng, detail, (0.14, 0.2))) for t in scene.objects]
    if len(told) == 2 and rng.random() < 0.75:
        return _related(scene.objects[0], scene.objects[1], told, rng)
    if rng.random() < 0.3:
        told.reverse()
    return f"{', '.join(told[:-1])} and {told[-1]}"


def _related(first: SceneObject, second: SceneObject, told: list[str], rng: np.random.Generator) -> str:
    upright = abs(first.y - second.y) > abs(first.x - second.x)
    if rng.random() < 0.5:
        between = pick(rng, ("above", "over") if upright else ("left of", "to the left of"))
        return f"{told[0]} {between} {told[1]}"
    between = pick(rng, ("below", "under") if upright else ("right of", "to the right of"))
    return f"{told[1]} {between} {told[0]}"


def _count(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    number = len(scene.objects)
    said = NUMBER_WORDS[number] if rng.random() < 0.7 else str(number)
    words = _thing(scene.objects[0], rng, detail, (0.0, 9.0), plural=True)
    return f"{said} {words}"


def _glyph(scene: Scene, rng: np.random.Generator, detail: float) -> str:
    thing = scene.objects[0]
    by_hand = thing.style != "printed"
    told = _signed(thing, rng)
    if rng.random() < 0.6 * detail:
        told = f"{pick(rng, ('handwritten', 'hand drawn')) if by_hand else 'printed'} {told}"
    if rng.random() < 0.7 * detail:
        return f"{_article(f'{word_for(thing.color, rng)} {told}')}"
    return f"{pick(rng, ('the', 'the', 'a'))} {told}"


def _signed(thing: SceneObject, rng: np.random.Generator) -> str:
    """A digit or a letter by its name."""
    if thing.name in DIGITS:
        said = NUMBER_WORDS[int(thing.name)] if rng.random() < 0.6 else thing.name
        return f"{pick(rng, ('digit', 'digit', 'number'))} {said}"
    return f"{pick(rng, ('letter', 'letter', 'capital letter'))} {thing.name}"


def _thing(
    thing: SceneObject, rng: np.random.Generator, detail: float, sizes: tuple[float, float], plural: bool = False
) -> str:
    """Size, colour, pattern and name, in one of the usual orders."""
    if thing.style:
        return f"{word_for(thing.color, rng)} {_signed(thing, rng)}"
    name = word_for(thing.name, rng)
    if plural:
        name = PLURALS.get(name, f"{name}s")
    words = []
    if (thing.radius < sizes[0] or thing.radius > sizes[1]) and rng.random() < detail:
        words.append(pick(rng, SMALL_WORDS if thing.radius < sizes[0] else LARGE_WORDS))
    colour = word_for(thing.color, rng) if rng.random() < max(detail, 0.75) else ""
    pattern, after = "", ""
    if thing.pattern != "solid" and rng.random() < max(detail, 0.4):
        if rng.random() < 0.7:
            pattern = word_for(thing.pattern, rng)
        else:
            after = f" {PATTERN_PHRASES[thing.pattern]}"
    elif thing.pattern == "solid" and rng.random() < 0.12 * detail:
        pattern = word_for("solid", rng)
    pair = [colour, pattern] if rng.random() < 0.6 else [pattern, colour]
    if thing.name == "arrow" and rng.random() < 0.6 * detail:
        after += f" pointing {ARROW_DIRECTIONS[thing.quarter_turns]}"
    return " ".join([*words, *(w for w in pair if w), name]) + after


def _article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _place(thing: SceneObject) -> str:
    """Which ninth of the picture its centre lies in."""
    row, column = (sum(v > edge for edge in (0.4, 0.6)) for v in (thing.y, thing.x))
    return POSITION_PHRASES[row][column]


def _ground(scene: Scene, rng: np.random.Generator) -> str:
    colour = word_for(scene.background, rng)
    shown = scene.background_pattern
    pattern = word_for(shown, rng) if shown != BACKGROUND_PATTERNS[0] and rng.random() < 0.7 else ""
    pair = " ".join(w for w in (pattern, colour) if w)
    if rng.random() < 0.25:
        return f" against {pair}"
    return f" {pick(rng, ('on', 'on', 'in front of'))} {_article(pair)} background"


def _spoiled(scene: Scene) -> str:
    """What a person would complain about."""
    camera = scene.camera
    return "dark" if camera.gain < 0.6 else "blurry" if camera.blur > 1.2 else "noisy" if camera.noise > 15 else ""
