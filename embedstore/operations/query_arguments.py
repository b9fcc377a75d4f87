"""Recognize what a caller passes as a query, or as a part of one: text, an item, a vector or an image."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.operations.arguments import Unfit, as_array, describe, python_scalar
from embedstore.types import Hit
from embedstore.wording import counted

if TYPE_CHECKING:
    from PIL.Image import Image

Query: TypeAlias = "str | Path | int | Image | NDArray[Any] | Any"
QueryPart: TypeAlias = "Query | tuple[Query, float]"
ImageQuery: TypeAlias = "str | Path | bytes | Image | NDArray[np.uint8] | Any"

ACCEPTED = (
    "text, an item id, a vector of numbers, or an image (a Path, its bytes, a PIL image, or a uint8 array (H, W, 3))"
)


@dataclass(frozen=True)
class QueryImage:
    """An image that is searched for.

    Attributes:
        source: a path or uri, the bytes of a file, or a PIL image.
        name: how results describe it.
    """

    source: str | bytes | Image
    name: str


def parse_query(value: Any) -> str | int | NDArray[np.float64] | QueryImage:
    """Return the text, the item id, the vector ``(D,)`` or the image that a caller passed.

    Raises:
        QueryError: if it is none of these.
    """
    value = python_scalar(value)
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, Hit):
        return value.item
    if _is_image_file(value) or _is_pil_image(value):
        return parse_image(value)
    try:
        array = as_array(value)
    except Unfit:
        raise QueryError(f"a query is {ACCEPTED}, not {describe(value)}") from None
    if array.ndim <= 2:
        return _vector(array)
    return _image_of_array(array)


def parse_image(value: Any) -> QueryImage:
    """Return the image that a caller passed: a path, its bytes, a PIL image or an array of pixels.

    Raises:
        QueryError: if it is none of these.
    """
    if isinstance(value, str | os.PathLike):
        return QueryImage(os.fspath(value), os.fspath(value))  # a Path would change a url
    if isinstance(value, bytes | bytearray | memoryview):
        return QueryImage(bytes(value), "image")
    if _is_pil_image(value):
        return QueryImage(value, "image")
    if _is_open_file(value):
        return QueryImage(_read_all(value), "image")
    try:
        array = as_array(value)
    except Unfit:
        message = f"an image is a path, its bytes, a PIL image or a uint8 array (H, W, 3), not {describe(value)}"
        raise QueryError(message) from None
    return _image_of_array(array)


def parse_images(values: Any) -> list[Any]:
    """Return images as a list: one path, file, image or array of pixels ``(H, W)`` or ``(H, W, C)`` is a list of one.

    Raises:
        QueryError: if it is no list.
    """
    if _is_open_file(values) or getattr(values, "ndim", 0) in (2, 3):
        return [values]
    return parse_parts(values, "images")


def parse_parts(values: Any, name: str) -> list[Any]:
    """Return the parts of a query as a list: one text, number, path or image alone is a list of one.

    Args:
        values: what the caller passed.
        name: the name of the parameter, for messages.

    Raises:
        QueryError: if it is no list.
    """
    alone = python_scalar(values)
    if isinstance(alone, str | int | Hit) or _is_image_file(alone) or _is_pil_image(alone):
        return [alone]
    if hasattr(values, "to_pylist"):
        return list(values.to_pylist())
    if isinstance(values, Mapping) or not np.iterable(values):
        raise QueryError(f"{name} is a list of queries, not {describe(values)}")
    return list(values)


def parse_weighted(part: Any) -> tuple[Any, float]:
    """Return a query and its weight, 1 if none is given, of ``query`` or ``(query, weight)``.

    Raises:
        QueryError: if the weight is not a number.
    """
    if not isinstance(part, tuple) or len(part) != 2:
        return part, 1.0
    query, weight = part[0], python_scalar(part[1])
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise QueryError(f"the weight of a query's part is a number, not {describe(weight)}")
    return query, float(weight)


def _is_image_file(value: Any) -> bool:
    return isinstance(value, os.PathLike | bytes | bytearray | memoryview)


def _is_open_file(value: Any) -> bool:
    return callable(getattr(value, "read", None))


def _read_all(file: Any) -> bytes:
    """Return the rest of an open file."""
    data = file.read()
    if not isinstance(data, bytes):
        raise QueryError(f"a file of an image is opened with mode 'rb'; {describe(file)} gives {type(data).__name__}")
    return data


def _is_pil_image(value: Any) -> bool:
    """Return whether the value is a PIL image; Pillow is not imported for this."""
    return any(c.__module__ == "PIL.Image" and c.__name__ == "Image" for c in type(value).__mro__)


def _vector(array: NDArray[Any]) -> NDArray[np.float64]:
    """Return one vector of numbers ``(D,)`` or ``(1, D)``."""
    if array.ndim == 2 and len(array) != 1:
        raise QueryError(
            f"a query is one vector, not an array {array.shape}; search for each row, or give them as like"
        )
    if array.dtype.kind not in "fiu" or not array.size:
        raise QueryError(f"a query vector has numbers, not {counted(array.size, 'value')} of type {array.dtype}")
    return array.reshape(-1).astype(np.float64)


def _image_of_array(array: NDArray[Any]) -> QueryImage:
    """Return an array of pixels as an image."""
    from PIL import Image

    expected = "an image array is uint8 (H, W, 3), with values from 0 to 255"
    if array.dtype != np.uint8:
        raise QueryError(
            f"{expected}, not {array.dtype} {array.shape}; convert it with (255 * x).round().astype('uint8')"
        )
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        cure = "; the channels come last" if array.ndim == 3 and array.shape[0] in (1, 3, 4) else ""
        cure = "; one of gray levels is x[:, :, None]" if array.ndim == 2 and 0 not in array.shape else cure
        raise QueryError(f"{expected}, not {array.shape}{cure}")
    return QueryImage(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array), "image")
