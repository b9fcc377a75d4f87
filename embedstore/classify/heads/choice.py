"""Options that are one of a few words."""

from __future__ import annotations

from enum import StrEnum


class OptionEnum(StrEnum):
    """An enumeration whose error names the words that there are."""

    @classmethod
    def _missing_(cls, value: object) -> None:
        raise ValueError(f"{cls.__name__.lower()} must be {' or '.join(c.value for c in cls)}, not {value!r}")
