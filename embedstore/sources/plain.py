"""What sources of bare files have in common: they know nothing of an image but its name."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class PlainFileSource:
    """A source without further columns, which speaks for no whole folder."""

    overrides_metadata = False  # what a person says of an item later outweighs the name of its folder
    roots: tuple[str, ...] = ()
    columns: ClassVar[dict[str, str]] = {}

    def write_columns(self, parquet: Path) -> None:
        """There are no further columns, so there is nothing to write."""
