"""Options of a head: one of a few words, or a number of a range. A number outside would give a bad head silently."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, TypeVar

from embedstore.errors import BadHead

Choice = TypeVar("Choice", bound=StrEnum)
MAX_TRIED_VALUES = 1000  # of one option: beyond, a search takes hours and finds nothing between the values


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
    """Refuse a list of options without a value, one with more than 1,000, and one value that is no list.

    Raises:
        BadHead: if it is one of these; the message names the option.
    """
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise BadHead(f"{name} must be a list of values, such as [{values}], not {values!r}")
    if len(values) == 0:
        raise BadHead(f"{name} must hold at least one value")
    check_tried_values(name, len(values))


def check_tried_values(name: str, n_values: int) -> None:
    """Refuse more values of an option than a search should try.

    Raises:
        BadHead: if there are more; the message names the option.
    """
    if n_values > MAX_TRIED_VALUES:
        raise BadHead(f"{name} must be at most {MAX_TRIED_VALUES:,} values to try, not {n_values:,}; try fewer")


def check_not_negative(name: str, value: Any) -> None:
    """Refuse an option that is no finite number of at least 0.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value) or value < 0:
        raise BadHead(f"{name} must be a number of at least 0, not {value!r}")


def check_whole(name: str, value: Any, *, most: int | None = None) -> None:
    """Refuse an option that is no whole number of at least 1, or is above its maximum.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 1:
        raise BadHead(f"{name} must be a whole number of at least 1, not {value!r}")
    if most is not None and int(value) > most:
        raise BadHead(f"{name} must be at most {most:,}, not {int(value):,}; give a smaller number")


def check_random_state(value: Any) -> None:
    """Refuse a seed of a head that is no whole number from 0 to 4,294,967,295, the largest of NumPy's.

    Raises:
        BadHead: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or not 0 <= int(value) < 2**32:
        raise BadHead(f"random_state must be a whole number from 0 to {2**32 - 1:,}, not {value!r}")


def check_share(name: str, value: Any) -> None:
    """Refuse an option that is no share of at least 0 and below 1.

    Raises:
        BadHead: if it is not; the message names the option.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < 1:
        raise BadHead(f"{name} must be a share of at least 0 and below 1, not {value!r}")
