"""What sources of bare files have in common: they know nothing of an image but its name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class Plain:
    """A source without further columns, which speaks for no whole folder."""

    declares = False  # what a person says of an item later outweighs the name of its folder
    roots: tuple[str, ...] = ()
    columns: ClassVar[dict[str, str]] = {}

    def attributes(self, parquet: Path) -> None:
        """There are no further columns, so there is nothing to write."""
