"""Digits and letters: printed in installed fonts, and handwritten as jittered strokes.

The strokes were designed for this project: a few points per stroke, joined by straight lines or, after a ``~``, by a
smooth curve (Catmull and Rom 1974). They do not come from handwriting data.
"""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

MASK_SIDE = 96  # pixels of a mask
SCAN_CELLS = 8  # cells per side of a scanned glyph, as in UCI's handwritten digits (Alpaydin and Kaynak 1998)
SCAN_LEVELS = 16  # largest gray level of such a cell: the number of set bits among 4 x 4
FONT_PATTERNS = "DejaVuSans* DejaVuSerif* STIXGeneral* cmr10* cmb10* cmss10* cmtt10*".split()
EXCLUDED_FONTS = "DejaVuSansDisplay DejaVuSerifDisplay"  # fonts of other symbols

# variants of each character, in the unit square, x to the right, y down; "|" lifts the pen
STROKES = {
    "0": (
        "~.5,.02 .15,.25 .12,.7 .45,.98 .82,.75 .85,.3 .5,.02",
        "~.6,.03 .25,.2 .15,.6 .4,.97 .75,.85 .88,.4 .55,.02",
    ),
    "1": (
        "~.5,.02 .5,.5 .5,.98",
        ".25,.25 .55,.02 .55,.98",
        ".25,.25 .55,.02 .55,.98|.25,.98 .85,.98",
        "~.62,.02 .5,.5 .4,.98",
        "~.2,.35 .42,.22 .58,.03 .55,.5 .53,.98",
        ".12,.45 .58,.03 .56,.98",
        ".15,.4 .55,.02 .52,.98|.3,.97 .75,.97",
    ),
    "2": (
        "~.15,.25 .4,.02 .78,.15 .75,.42 .4,.72 .1,.97|.1,.97 .9,.97",
        "~.15,.2 .5,.02 .82,.25 .55,.62 .15,.92 .25,.85 .5,.95 .9,.93",
        "~.2,.12 .6,.03 .8,.28 .5,.6 .12,.96 .5,.97 .88,.96",
    ),
    "3": (
        "~.15,.12 .5,.02 .8,.2 .7,.42 .4,.48 .72,.54 .85,.78 .5,.98 .12,.88",
        ".15,.03 .82,.03 .45,.4|~.45,.4 .8,.52 .82,.82 .5,.98 .12,.88",
        "~.2,.1 .6,.02 .78,.22 .45,.46|~.45,.46 .82,.58 .75,.9 .35,.98 .12,.85",
    ),
    "4": (
        ".65,.02 .1,.66 .92,.66|.68,.4 .66,.98",
        ".2,.03 .15,.5 .85,.5|.75,.05 .7,.98",
        ".6,.02 .6,.98|.6,.02 .1,.7 .9,.7",
        "~.25,.02 .18,.3 .2,.5 .5,.52 .78,.45|~.75,.1 .72,.5 .68,.98",
    ),
    "5": (
        ".8,.03 .25,.03 .2,.45|~.2,.45 .55,.36 .85,.62 .7,.92 .35,.98 .12,.87",
        "~.85,.05 .5,.03 .25,.06 .22,.42 .6,.4 .82,.65 .6,.95 .15,.92",
        ".82,.04 .28,.04|~.28,.04 .24,.44 .55,.42 .8,.6 .72,.88 .4,.98 .12,.9",
    ),
    "6": (
        "~.7,.03 .35,.25 .16,.65 .35,.95 .75,.9 .8,.62 .5,.5 .2,.68",
        "~.55,.02 .25,.35 .2,.8 .5,.98 .8,.8 .65,.55 .35,.6 .22,.78",
        "~.78,.08 .45,.05 .2,.4 .18,.8 .5,.98 .82,.78 .55,.52 .22,.68",
    ),
    "7": (
        ".12,.05 .86,.05 .4,.98",
        ".12,.05 .86,.05 .4,.98|.25,.5 .8,.5",
        "~.12,.1 .5,.04 .86,.06 .6,.5 .45,.98",
        ".15,.2 .17,.05 .85,.05|~.85,.05 .55,.45 .45,.98|.28,.52 .75,.5",
    ),
    "8": (
        "~.5,.48 .2,.3 .4,.02 .75,.15 .65,.4 .5,.48 .2,.72 .35,.97 .75,.92 .8,.65 .5,.48",
        "~.75,.12 .45,.02 .22,.22 .5,.48 .8,.75 .5,.98 .2,.78 .5,.5 .78,.25 .72,.1",
        "~.5,.46 .25,.25 .5,.02 .76,.24 .5,.46 .18,.74 .5,.98 .84,.74 .5,.46",
    ),
    "9": (
        "~.8,.3 .5,.5 .2,.32 .4,.03 .75,.12 .8,.3 .78,.65 .6,.98",
        "~.78,.2 .5,.02 .2,.25 .4,.5 .78,.3|.8,.08 .76,.98",
        "~.8,.25 .5,.02 .2,.28 .5,.52 .8,.25 .82,.6 .65,.92 .25,.95",
        "~.75,.06 .35,.05 .18,.28 .45,.45 .78,.35|.8,.12 .8,.5|~.8,.5 .72,.9 .4,.98 .15,.9",
        "~.78,.28 .45,.48 .22,.25 .5,.02 .78,.2 .6,.6 .42,.98",
    ),
    "A": (".08,.98 .5,.02 .92,.98|.25,.62 .75,.62",),
    "B": (".2,.02 .2,.98|~.2,.02 .7,.05 .75,.35 .5,.47 .2,.48|~.2,.48 .75,.52 .82,.82 .55,.97 .2,.98",),
    "C": ("~.85,.15 .5,.02 .15,.3 .15,.7 .5,.98 .87,.83",),
    "D": (".2,.02 .2,.98|~.2,.02 .7,.1 .88,.5 .7,.88 .2,.98",),
    "E": (".82,.03 .2,.03 .2,.97 .85,.97|.2,.5 .7,.5",),
    "F": (".85,.03 .2,.03 .2,.98|.2,.48 .7,.48",),
    "G": ("~.85,.15 .5,.02 .15,.3 .15,.7 .5,.98 .85,.8|.55,.58 .86,.58 .86,.98",),
    "H": (".18,.02 .18,.98|.82,.02 .82,.98|.18,.5 .82,.5",),
    "I": (".5,.02 .5,.98|.25,.02 .75,.02|.25,.98 .75,.98",),
    "J": ("~.7,.02 .7,.6 .6,.95 .3,.97 .15,.75|.4,.02 .9,.02",),
    "K": (".2,.02 .2,.98|.82,.02 .2,.55|.4,.4 .85,.98",),
    "L": (".22,.02 .22,.97 .85,.97",),
    "M": (".1,.98 .15,.02 .5,.65 .85,.02 .9,.98",),
    "N": (".15,.98 .15,.02 .85,.98 .85,.02",),
    "O": ("~.5,.02 .08,.3 .08,.7 .5,.98 .92,.7 .92,.3 .5,.02",),
    "P": (".2,.02 .2,.98|~.2,.02 .75,.06 .82,.3 .65,.5 .2,.54",),
    "Q": ("~.5,.02 .08,.3 .08,.7 .5,.95 .92,.7 .92,.3 .5,.02|.6,.68 .95,1",),
    "R": (".2,.02 .2,.98|~.2,.02 .75,.06 .8,.28 .65,.48 .2,.5|.45,.5 .85,.98",),
    "S": ("~.82,.13 .45,.02 .18,.2 .3,.43 .7,.57 .82,.8 .5,.98 .13,.86",),
    "T": (".08,.03 .92,.03|.5,.03 .5,.98",),
    "U": ("~.15,.02 .15,.6 .3,.95 .7,.95 .85,.6 .85,.02",),
    "V": (".1,.02 .5,.98 .9,.02",),
    "W": (".05,.02 .27,.98 .5,.3 .73,.98 .95,.02",),
    "X": (".12,.02 .88,.98|.88,.02 .12,.98",),
    "Y": (".1,.02 .5,.5 .9,.02|.5,.5 .5,.98",),
    "Z": (".12,.03 .88,.03 .12,.97 .9,.97",),
}


def glyph_mask(character: str, style: str, rng: np.random.Generator) -> Image.Image:
    """Return a character as a mask: mode L, 255 is ink, ``MASK_SIDE`` pixels per side, as large as fits."""
    if style == "printed":
        return _print_character(character, rng)
    mask = _write_character(character, rng)
    return _scan(mask) if style == "scanned" else mask


@functools.cache
def font_files() -> tuple[str, ...]:
    """Return the font files of matplotlib, where it is installed; Pillow's own font needs no file."""
    package = importlib.util.find_spec("matplotlib")  # importing it would write to the home folder
    if package is None or package.origin is None:
        return ()
    folder = Path(package.origin).parent / "mpl-data" / "fonts" / "ttf"
    files = {str(p) for pattern in FONT_PATTERNS for p in folder.glob(f"{pattern}.ttf") if p.stem not in EXCLUDED_FONTS}
    return tuple(sorted(files))


@functools.cache
def _font(file: str) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, MASK_SIDE) if file else ImageFont.load_default(MASK_SIDE)


def _print_character(name: str, rng: np.random.Generator) -> Image.Image:
    """Return the character in one of the fonts."""
    files = ("", *font_files())
    font = _font(files[int(rng.integers(len(files)))])
    sheet = Image.new("L", (2 * MASK_SIDE, 2 * MASK_SIDE))
    ImageDraw.Draw(sheet).text((MASK_SIDE // 2, MASK_SIDE // 4), name, fill=255, font=font)
    return _fit_to_mask(sheet, stretch=False)


def _write_character(name: str, rng: np.random.Generator) -> Image.Image:
    """Return the character handwritten: one of its variants, jittered and slanted, with a random pen width."""
    variants = STROKES[name]
    variant = variants[int(rng.integers(len(variants)))]
    slant, narrow = rng.normal(0, 0.15), rng.uniform(0.5, 1.0)
    bend = rng.normal(0, 0.05, 2)
    width = max(3, int(MASK_SIDE * rng.uniform(0.06, 0.21)))
    sheet = Image.new("L", (2 * MASK_SIDE, 2 * MASK_SIDE))
    pen = ImageDraw.Draw(sheet)
    for stroke in variant.split("|"):
        points = np.array([[float(v) for v in p.split(",")] for p in stroke.lstrip("~").split()])
        points = points + rng.normal(0, 0.032, points.shape)
        line = _smooth(points) if stroke.startswith("~") else points
        x, y = line[:, 0] - 0.5, line[:, 1] - 0.5
        x, y = narrow * (x + bend[0] * np.sin(3 * y)) - slant * y, y + bend[1] * np.sin(3 * x)
        _ink(pen, np.stack([x, y], axis=1) * MASK_SIDE + MASK_SIDE, width)
    return _fit_to_mask(sheet, stretch=bool(rng.random() < 0.3))


def _ink(pen: ImageDraw.ImageDraw, line: NDArray[np.float64], width: int) -> None:
    """Draw one stroke with round ends."""
    corners = [(float(x), float(y)) for x, y in line]
    pen.line(corners, fill=255, width=width, joint="curve")
    for x, y in (corners[0], corners[-1]):
        pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)


def _smooth(points: NDArray[np.float64], steps: int = 8) -> NDArray[np.float64]:
    """Return a Catmull-Rom curve through the points."""
    p = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False)
    ]
    return np.concatenate([*parts, points[-1:]])


def _fit_to_mask(sheet: Image.Image, *, stretch: bool) -> Image.Image:
    """Return the ink scaled to the mask; ``stretch`` widens or heightens narrow characters."""
    box = sheet.getbbox() or (0, 0, MASK_SIDE, MASK_SIDE)
    ink = sheet.crop(box)
    scale = MASK_SIDE / max(ink.size)
    width, height = (max(1, round(n * scale)) for n in ink.size)
    if stretch:
        width, height = max(width, int(0.7 * MASK_SIDE)), max(height, int(0.7 * MASK_SIDE))
    out = Image.new("L", (MASK_SIDE, MASK_SIDE))
    out.paste(
        ink.resize((width, height), Image.Resampling.BILINEAR), ((MASK_SIDE - width) // 2, (MASK_SIDE - height) // 2)
    )
    return out


def _scan(mask: Image.Image) -> Image.Image:
    """Simulate a coarse scanner: 32 x 32 bits, counted in 4 x 4 blocks to 8 x 8 cells of 17 levels."""
    bits = np.asarray(mask.resize((4 * SCAN_CELLS, 4 * SCAN_CELLS), Image.Resampling.BILINEAR)) > 127
    counts = bits.reshape(SCAN_CELLS, 4, SCAN_CELLS, 4).sum(axis=(1, 3))
    cells = Image.fromarray((counts * 255 // SCAN_LEVELS).astype(np.uint8))
    return cells.resize((MASK_SIDE, MASK_SIDE), Image.Resampling.BICUBIC)
