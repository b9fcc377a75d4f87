"""Files that another process planned: a worker reads them by their uris alone."""

from __future__ import annotations

from collections.abc import Sequence

from embedstore.sources.source import LocationSource, Scan
from embedstore.types import ImageRef


class PlannedFiles(LocationSource):
    """The files of one part of a plan.

    Args:
        refs: the files.
        description: what the plan was made of.
    """

    def __init__(self, refs: Sequence[ImageRef], description: str) -> None:
        self.description = description
        self._refs = refs

    def scan(self) -> Scan:
        """Start a pass over the files, as the plan describes them."""
        return Scan(iter(self._refs))
