"""In which order a run reads files."""

from __future__ import annotations

from enum import StrEnum

from embedstore.errors import BadOption


class ReadOrder(StrEnum):
    """The values of ``--order``."""

    SCAN = "scan"  # as the source lists them: folder by folder, the fastest to read
    SPREAD = "spread"  # a file of every folder in turn, and within a folder of all times


def parse_read_order(name: str) -> ReadOrder:
    """Return the order of that name.

    Raises:
        BadOption: if there is none.
    """
    if name not in list(ReadOrder):
        raise BadOption(f"order must be {' or '.join(ReadOrder)}, not {name!r}")
    return ReadOrder(name)
