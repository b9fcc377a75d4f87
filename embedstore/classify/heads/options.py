"""Options of a head: one of a few words, or a number of a range. A number outside would give a bad head silently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, TypeVar

from embedstore.errors import BadHead

Choice = TypeVar("Choice", bound=StrEnum)


def parse_option(name: str, value: str, choices: type[Choice]) -> Choice:
    """Return the member that an option names.

    Raises:
        ValueError: if there is no such member; the message names the option and its members.
    """
    if value not in [c.value for c in choices]:
        raise ValueError(f"{name} must be {' or '.join(c.value for c in choices)}, not {value!r}")
    return choices(value)


def check_positive(name: str, value: Any) -> None:
    """Refuse an option that is no finite number above 0.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value <= 0:
        raise BadHead(f"{name} must be a number above 0, not {value!r}")


def check_positives(name: str, values: Sequence[Any]) -> None:
    """Refuse a list of options that is empty or holds a value that is no finite number above 0.

    Raises:
        BadHead: if it does; the message names the option.
    """
    check_not_empty(name, values)
    for value in values:
        check_positive(f"a value of {name}", value)


def check_not_empty(name: str, values: Sequence[Any]) -> None:
    """Refuse a list of options without a value, and one value that is no list.

    Raises:
        BadHead: if there is none; the message names the option.
    """
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise BadHead(f"{name} must be a list of values, such as [{values}], not {values!r}")
    if len(values) == 0:
        raise BadHead(f"{name} must hold at least one value")


def check_not_negative(name: str, value: Any) -> None:
    """Refuse an option that is no finite number of at least 0.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise BadHead(f"{name} must be a number of at least 0, not {value!r}")


def check_whole(name: str, value: Any) -> None:
    """Refuse an option that is no whole number of at least 1.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise BadHead(f"{name} must be a whole number of at least 1, not {value!r}")


def check_share(name: str, value: Any) -> None:
    """Refuse an option that is no share of at least 0 and below 1.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise BadHead(f"{name} must be a share of at least 0 and below 1, not {value!r}")
