"""YOLO: a folder ``images``, a folder ``labels`` of the same shape, and the names of the classes in ``data.yaml``.

A row of a label file is ``class x y width height`` with the middle of the box, or ``class x1 y1 x2 y2 x3 y3 ...`` with
the corners of an outline, whose box is used. All numbers are shares of the upright photo, and a confidence may follow a
box.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from embedstore.errors import BadAnnotations, ImageError
from embedstore.media.image.crop import Box
from embedstore.sources.annotations.image_files import ImageFiles
from embedstore.sources.annotations.photo_names import split_of_name
from embedstore.sources.annotations.records import UNREADABLE_BOX, Photo, Record, Region
from embedstore.sources.local_files import read_file
from embedstore.sources.text_files import read_lines

DATA_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
CLASS_FILES = ("classes.txt", "obj.names")
SPLITS = ("train", "val", "test")
_BOX_NUMBERS = 4
_MIN_OUTLINE_NUMBERS = 6  # three corners
_MAX_YAML_BYTES = 16 << 20


def read_yolo(path: str, images: ImageFiles) -> Iterator[Record]:
    """Yield the photos of a data set and their boxes.

    Args:
        path: the path of ``data.yaml``, or of the folder that has the folders ``images`` and ``labels``.
        images: finds the files of images.

    Raises:
        BadAnnotations: if the description cannot be read or names no images.
    """
    settings = _settings(path)
    names = _class_names(path, settings)
    is_pose = "kpt_shape" in settings
    for split, place in _places(path, settings, images.root):
        for file in images.list(place):
            yield Photo(file, file, split=split or split_of_name(os.path.relpath(file, place)))
            yield from _regions(file, names, is_pose=is_pose)


def _settings(path: str) -> dict[str, Any]:
    """Return what ``data.yaml`` says; nothing for a folder."""
    if os.path.isdir(path):  # noqa: PTH112
        return {}
    try:
        if os.path.getsize(path) > _MAX_YAML_BYTES:  # noqa: PTH202
            raise BadAnnotations(f"{path} has more than {_MAX_YAML_BYTES:,} bytes; it is no description of a data set")
        settings = yaml.safe_load(read_file(path))
    except (yaml.YAMLError, ImageError, RecursionError, ValueError) as e:
        message = " ".join(str(e).split())[:200]
        raise BadAnnotations(f"{path} is not readable YAML ({message}); repair it, or name the folder of images") from e
    if not isinstance(settings, dict):
        raise BadAnnotations(f"{path} does not describe a data set: it has no names and no train, val or test")
    return settings


def _class_names(path: str, settings: dict[str, Any]) -> dict[int, str]:
    """Return the names of the classes by number."""
    names = settings.get("names")
    if isinstance(names, dict):
        return {int(n): str(name) for n, name in names.items() if str(n).isdigit()}
    if isinstance(names, list):
        return {n: str(name) for n, name in enumerate(names)}
    folder = path if os.path.isdir(path) else os.path.dirname(path)  # noqa: PTH112, PTH120
    for above in (folder, os.path.join(folder, "labels")):  # noqa: PTH118
        for name in CLASS_FILES:
            if os.path.isfile(os.path.join(above, name)):  # noqa: PTH113, PTH118
                return dict(enumerate(read_lines(os.path.join(above, name))))  # noqa: PTH118
    return {}


def _places(path: str, settings: dict[str, Any], root: str | None) -> Iterator[tuple[str | None, str]]:
    """Yield the split and the folder or list of images of each part of a data set."""
    folder = os.path.abspath(path if os.path.isdir(path) else os.path.dirname(path) or ".")  # noqa: PTH100, PTH112, PTH120
    stated = [(split, place) for split in SPLITS for place in _as_list(settings.get(split)) if place]
    if not stated:
        yield None, root or os.path.join(folder, "images")  # noqa: PTH118
        return
    base = root or os.path.join(folder, str(settings.get("path") or ""))  # noqa: PTH118
    for split, place in stated:
        yield split, _find_place(place, (base, folder), path)


def _find_place(place: str, bases: Sequence[str], path: str) -> str:
    """Return the folder or list that a description names; ``../train/images`` may mean ``train/images``."""
    names = [place, place.removeprefix("../")]
    candidates = [os.path.normpath(os.path.join(base, name)) for base in bases for name in names]  # noqa: PTH118
    for candidate in candidates:
        if os.path.exists(candidate):  # noqa: PTH110
            return candidate
    raise BadAnnotations(
        f"{path} names the images {place!r}, which are not there (looked for {', '.join(dict.fromkeys(candidates))}); "
        "name the folder that they are below as SOURCE"
    )


def _as_list(value: Any) -> list[str]:
    """Return one or several places as a list."""
    return [str(v) for v in value] if isinstance(value, list) else [] if value is None else [str(value)]


def label_file(image: str) -> str:
    """Return where the label file of an image is: below ``labels`` in place of the last ``images``, or next to it."""
    stem = os.path.splitext(image)[0]  # noqa: PTH122
    above, found, below = f"/{stem}".rpartition("/images/")
    moved = f"{above}/labels/{below}.txt"[1:] if found else None
    return moved if moved and os.path.isfile(moved) else f"{stem}.txt"  # noqa: PTH113


def _regions(image: str, names: dict[int, str], *, is_pose: bool) -> Iterator[Region]:
    """Yield the boxes of one image; none without a label file."""
    path = label_file(image)
    if not os.path.isfile(path):  # noqa: PTH113
        return
    try:
        rows = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeError):
        yield Region(image, problem=UNREADABLE_BOX)
        return
    for row in rows:
        if row.strip():
            yield parse_row(image, row, names, is_pose=is_pose)


def parse_row(image: str, row: str, names: dict[int, str], *, is_pose: bool = False) -> Region:
    """Return the box that one row of a label file states."""
    try:
        number, *values = (float(word) for word in row.split())
        box = _box(values[:_BOX_NUMBERS] if is_pose else values)
    except ValueError:
        return Region(image, problem=UNREADABLE_BOX)
    if box is None or number != int(number):
        return Region(image, problem=UNREADABLE_BOX)
    confidence = {"confidence": values[_BOX_NUMBERS]} if len(values) == _BOX_NUMBERS + 1 and not is_pose else {}
    return Region(image, box, label=names.get(int(number), None if names else str(int(number))), columns=confidence)


def _box(values: Sequence[float]) -> Box | None:
    """Return the box of a row in percent, or None."""
    if len(values) in (_BOX_NUMBERS, _BOX_NUMBERS + 1):
        x, y, width, height = values[:_BOX_NUMBERS]
        left, upper = x - width / 2, y - height / 2
    elif len(values) >= _MIN_OUTLINE_NUMBERS and len(values) % 2 == 0:
        left, upper = min(values[0::2]), min(values[1::2])
        width, height = max(values[0::2]) - left, max(values[1::2]) - upper
    else:
        return None
    return Box(100 * left, 100 * upper, 100 * width, 100 * height, is_percent=True)
