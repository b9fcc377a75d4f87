"""COCO's JSON of instances and captions, as COCO itself, CVAT, Roboflow, labelformat and LightlyStudio write it.

The file is read as a stream: its arrays in three passes, each in the memory of one entry. A box is ``[x, y, width,
height]`` in pixels from the upper left corner, counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from embedstore.errors import BadAnnotations
from embedstore.media.image.crop import Box
from embedstore.sources.annotations.json_stream import objects
from embedstore.sources.annotations.records import (
    UNREADABLE_BOX,
    Photo,
    Record,
    Region,
    four_numbers,
    number,
    scalars,
)

KEYS = frozenset({"images", "annotations", "categories"})
_KNOWN = frozenset(
    {"id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "area", "caption", "attributes"}
)


def read_coco(path: str) -> Iterator[Record]:
    """Yield the photos of a file, then their annotations.

    Raises:
        BadAnnotations: if it is not such a file, or two categories have one id.
        SourceNotFound: if there is no such file.
    """
    categories = _categories(path)
    for image in objects(path, "images"):
        yield _photo(path, image)
    for annotation in objects(path, "annotations"):
        yield _region(annotation, categories)


def _categories(path: str) -> dict[str, str]:
    """Return the names of the categories by id."""
    names: dict[str, str] = {}
    for category in objects(path, "categories"):
        key, name = str(category.get("id")), str(category.get("name"))
        if names.setdefault(key, name) != name:
            raise BadAnnotations(
                f"{path}: the categories {names[key]!r} and {name!r} have the same id {key}, so that boxes cannot be "
                "told apart; give each category its own id"
            )
    return names


def _photo(path: str, image: Mapping[str, Any]) -> Photo:
    """Return one entry of ``images``."""
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise BadAnnotations(f"{path}: the image with the id {image.get('id')} has no file_name; add one or remove it")
    return Photo(str(image.get("id")), name, number(image.get("width")), number(image.get("height")))


def _region(annotation: Mapping[str, Any], categories: Mapping[str, str]) -> Region:
    """Return one entry of ``annotations``."""
    attributes = annotation.get("attributes")
    extra = scalars(attributes) if isinstance(attributes, Mapping) else {}
    given, caption = annotation.get("bbox"), annotation.get("caption")
    numbers = four_numbers(given)
    return Region(
        photo=str(annotation.get("image_id")),
        box=Box(*numbers) if numbers else None,
        label=categories.get(str(annotation.get("category_id"))),
        caption=caption if isinstance(caption, str) else None,
        is_crowd=bool(annotation.get("iscrowd")),
        problem=UNREADABLE_BOX if given and not numbers else None,
        columns=extra | scalars(annotation, _KNOWN),
    )
