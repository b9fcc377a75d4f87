"""Options of a head: one of a few words, or a positive number."""

from __future__ import annotations

import math
from enum import StrEnum
from numbers import Real
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
