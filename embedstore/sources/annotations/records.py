"""What the readers of all formats of annotations give: photos, and regions of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from embedstore.media.image.crop import Box

UNREADABLE_BOX = "box that cannot be read"
_BOX_NUMBERS = 4


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that a file of annotations lists.

    Attributes:
        key: what regions name it by, within the file.
        name: its path as written, or an absolute path or uri.
        width: in pixels as written, or None.
        height: likewise.
        split: a word for its split, or None.
        columns: other values that are kept.
    """

    key: str
    name: str
    width: float | None = None
    height: float | None = None
    split: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Region:
    """The annotation of a photo or of a box in it.

    Attributes:
        photo: the key of the photo.
        box: where; None for the whole photo.
        label: the class, or None.
        caption: a sentence, or None.
        is_crowd: whether the box holds many objects that are not told apart (``iscrowd`` of COCO).
        problem: why a box that is written cannot be used, or None.
        columns: other values that are kept.
    """

    photo: str
    box: Box | None = None
    label: str | None = None
    caption: str | None = None
    is_crowd: bool = False
    problem: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


Record = Photo | Region


def scalars(values: Mapping[str, Any], without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the values that a column can hold: text, numbers and truth values, without those of some names."""
    return {k: v for k, v in values.items() if k not in without and isinstance(v, str | int | float | bool)}


def number(value: Any) -> float | None:
    """Return a finite number, or None for anything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def four_numbers(given: Any) -> tuple[float, float, float, float] | None:
    """Return the numbers of a list that states a box, or None for anything else."""
    if not isinstance(given, list) or len(given) != _BOX_NUMBERS:
        return None
    numbers = [value for item in given if (value := number(item)) is not None]
    return (numbers[0], numbers[1], numbers[2], numbers[3]) if len(numbers) == _BOX_NUMBERS else None
