"""Convert the arguments of public functions: values of NumPy, pandas, PyTorch and Arrow become Python's own.

This is the only place that converts numbers, item ids, names and vectors. The annotation of a parameter in
:mod:`embedstore.store` decides how its values are converted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadOption
from embedstore.sources.frames import is_frame
from embedstore.text_form import is_unicode

# Any: a set, array, Series, Index, tensor, Arrow array or generator, which the conversion turns into a list
ItemIds: TypeAlias = Sequence[int] | Any
Counts: TypeAlias = Sequence[int] | Any
Paths: TypeAlias = Sequence[str | os.PathLike[str]] | Any  # one path alone is one path
Names: TypeAlias = Sequence[str] | Any  # one name alone is one name, and not a list of letters
Source: TypeAlias = Sequence[str] | Any  # a folder, paths in any form, or a table in memory
Vectors: TypeAlias = NDArray[Any] | Any  # a tensor, DataFrame, Arrow array, or a list of lists

_MAX_ID = 2**63 - 1  # ids are stored as 64-bit integers
_MAX_SHOWN = 60  # characters of a value in a message


class Unfit(Exception):
    """A value cannot be converted.

    Args:
        value: the value, or the member of it that does not fit.
    """

    def __init__(self, value: Any) -> None:
        super().__init__(value)
        self.value = value


@dataclass(frozen=True)
class Conversion:
    """How the values of one annotation are converted.

    Attributes:
        description: what is accepted, for messages.
        convert: returns the converted value; raises :class:`Unfit` with the part that does not fit.
    """

    description: str
    convert: Callable[[Any], Any]


def convert_argument(function: str, name: str, annotation: str, value: Any) -> Any:
    """Return the value of one argument in the form that the function expects.

    Args:
        function: the name of the function, for messages.
        name: the name of the parameter.
        annotation: its annotation, as it is written in the signature.
        value: what the caller passed.

    Raises:
        BadOption: if the value has another type than the annotation says.
    """
    kinds = annotation.split(" | ")
    if value is None and "None" in kinds:
        return None
    if "Path" in kinds:
        kinds = [kind for kind in kinds if kind != "str"]  # a path need not be Unicode, and has no zero byte
    conversions = [CONVERSIONS[kind] for kind in kinds if kind in CONVERSIONS]
    if len(conversions) < len([kind for kind in kinds if kind != "None"]):
        return python_scalar(value)  # a type that the function checks itself
    problem = value
    for conversion in conversions:
        try:
            return conversion.convert(value)
        except Unfit as e:
            problem = e.value
    expected = " or ".join(conversion.description for conversion in conversions)
    raise BadOption(f"{function}() takes {expected} as {name}, not {describe(problem)}")


def python_scalar(value: Any) -> Any:
    """Return a scalar of NumPy, PyTorch or Arrow as Python's own, and anything else unchanged."""
    if hasattr(value, "as_py"):
        return value.as_py()
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    return value


def as_array(value: Any) -> NDArray[Any]:
    """Return numbers that a caller passed in any form as an array.

    Raises:
        Unfit: if they are not numbers, or the rows differ in length.
    """
    if hasattr(value, "detach"):  # a tensor, which may need gradients, be on a device, or have a type that NumPy lacks
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):  # a masked number is absent, and no number
        value = np.where(np.ma.getmaskarray(value), np.nan, np.ma.getdata(value))
    if isinstance(value, str | bytes | Mapping) or not (hasattr(value, "__array__") or np.iterable(value)):
        raise Unfit(value)
    try:
        array = np.asarray(value if hasattr(value, "__array__") else list(map(python_scalar, value)))
        if array.dtype == object and len(array):
            array = np.stack([np.asarray(row, dtype=float) for row in array.tolist()])
    except (TypeError, ValueError) as e:
        raise Unfit(value) from e
    return array


def describe(value: Any) -> str:
    """Return a value and its type for a message, shortened."""
    text = " ".join(repr(value).split())
    shown = text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
    return f"{shown} ({'text that is not Unicode' if _is_broken(value) else type(value).__name__})"


def _is_broken(value: Any) -> bool:
    """Return whether a value is text with half characters, as Python makes of bytes that are not UTF-8."""
    return isinstance(value, str) and not is_unicode(value)


def _whole_number(value: Any) -> int:
    value = python_scalar(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise Unfit(value)
    return int(value)


def _number(value: Any) -> float:
    value = python_scalar(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise Unfit(value)
    return value if isinstance(value, int | float) else float(value)


def _truth_value(value: Any) -> bool:
    value = python_scalar(value)
    if not isinstance(value, bool):
        raise Unfit(value)
    return value


def _text(value: Any) -> str:
    value = python_scalar(value)
    if not isinstance(value, str) or not is_unicode(value):
        raise Unfit(value)
    return value


def _path(value: Any) -> str | os.PathLike[str]:
    if not isinstance(value, str | os.PathLike):
        raise Unfit(value)
    try:
        name = os.fsencode(value)
    except UnicodeEncodeError:
        raise Unfit(value) from None
    if b"\0" in name:
        raise Unfit(value)
    return str(value) if isinstance(value, str) else value  # of NumPy's text the system would return bytes


def _members(values: Any) -> list[Any]:
    """Return the members of a list in any form, unchecked."""
    if isinstance(values, str | bytes | Mapping) or not np.iterable(values):
        raise Unfit(values)
    for method in ("to_pylist", "tolist"):  # of Arrow; of NumPy, pandas and PyTorch
        if hasattr(values, method):
            members: list[Any] = getattr(values, method)()
            return members
    return list(values)


def _whole_numbers(values: Any) -> list[int]:
    return [_whole_number(value) for value in _members(values)]


def _item_ids(values: Any) -> list[int]:
    ids = _whole_numbers(values)
    for number in ids:
        if not 0 <= number <= _MAX_ID:
            raise Unfit(number)
    return ids


def _names(values: Any) -> list[str]:
    return [values] if isinstance(values, str) else [_text(value) for value in _members(values)]


def _paths(values: Any) -> list[str]:
    alone = isinstance(values, str | os.PathLike)
    return [os.fspath(_path(value)) for value in ([values] if alone else _members(values))]


def _source(value: Any) -> Any:
    return value if is_frame(value) else _paths(python_scalar(value))


def _classes(values: Any) -> Any:
    return values if isinstance(values, Mapping) else [str(python_scalar(v)) for v in _members(values)]


CONVERSIONS = {
    "int": Conversion("a whole number", _whole_number),
    "float": Conversion("a number", _number),
    "bool": Conversion("True or False", _truth_value),
    "str": Conversion("text", _text),
    "Path": Conversion("a path", _path),
    "ItemIds": Conversion("item ids (a list of whole numbers)", _item_ids),
    "Counts": Conversion("a list of whole numbers", _whole_numbers),
    "Names": Conversion("a list of names", _names),
    "Paths": Conversion("a path, or a list of paths", _paths),
    "Source": Conversion("a folder, files by their paths, or a table with a column of them", _source),
    "Classes": Conversion("a list of class names, or prompts by class", _classes),
    "Vectors": Conversion("an array of numbers", as_array),
}
