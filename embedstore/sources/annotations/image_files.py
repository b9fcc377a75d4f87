"""The files of images of a data set whose annotations are files next to them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import ScanSummary
from embedstore.sources.walk import FolderWalk
from embedstore.types import Failure, ImageRef


class ImageFiles:
    """Lists folders, and collects what could not be listed and what was skipped.

    Args:
        root: the folder of images that the user names, or None.
        rules: which names are skipped.

    Attributes:
        failures: what could not be listed.
        summary: what was skipped.
    """

    def __init__(self, root: str | None, rules: SkipRules) -> None:
        self.root = root
        self.failures: list[Failure] = []
        self.summary = ScanSummary()
        self._rules = rules

    def list(self, place: str) -> Iterator[str]:
        """Yield the images below a folder, those that a text file lists, or the one file itself."""
        if os.path.isdir(place):  # noqa: PTH112
            yield from self._below(place)
        elif place.lower().endswith(".txt"):
            with open(place, encoding="utf-8-sig", errors="surrogateescape") as lines:  # noqa: PTH123
                names = [line.strip() for line in lines if line.strip()]
            yield from (os.path.normpath(os.path.join(os.path.dirname(place), name)) for name in names)  # noqa: PTH118, PTH120
        else:
            yield place

    def _below(self, folder: str) -> Iterator[str]:
        """Yield the images below a folder."""
        walk = FolderWalk(folder, label_function=lambda _: (None, None), rules=self._rules)
        for entry in walk:
            if isinstance(entry, ImageRef):
                yield entry.path
            else:
                self.failures.append(entry)
        self.summary.skipped.update(walk.summary.skipped)
