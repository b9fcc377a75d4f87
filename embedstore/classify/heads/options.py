"""Options of a head that are one of a few words."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

Choice = TypeVar("Choice", bound=StrEnum)


def parse_option(name: str, value: str, choices: type[Choice]) -> Choice:
    """Return the member that an option names.

    Raises:
        ValueError: if there is no such member; the message names the option and its members.
    """
    if value not in [c.value for c in choices]:
        raise ValueError(f"{name} must be {' or '.join(c.value for c in choices)}, not {value!r}")
    return choices(value)
