"""An image folder: classes and splits are its folders."""

from __future__ import annotations

import os
from collections.abc import Collection

from embedstore.sources.folder_labels import LabelAndSplit, SplitFolderCheck
from embedstore.sources.given_names import with_names_above
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import LocationSource, Scan
from embedstore.sources.walk import FolderWalk


class Folder(LocationSource):
    """Every file below a folder that may be an image.

    Args:
        root: an existing folder; made absolute without resolving links.
        labels: take the class from the folders.
        splits: take the split from the folders.
        exclude: folders never entered.
        rules: which names are skipped.
        above: the names down to the root that count, if one of them names a split; by default its own.
    """

    def __init__(
        self,
        root: str,
        *,
        labels: bool = True,
        splits: bool = True,
        exclude: Collection[str] = (),
        rules: SkipRules = SkipRules(),
        above: tuple[str, ...] = (),
    ) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 - Path.absolute keeps "..", resolve follows links
        self.description = self.root
        self.roots: tuple[str, ...] = (self.root,)
        self._labels = labels
        self._splits = splits
        self._exclude = tuple(exclude)
        self._rules = rules
        self._above = above or (os.path.basename(self.root),)  # noqa: PTH119

    def scan(self) -> Scan:
        """Start a pass over every file, sorted within its folder."""
        walk = FolderWalk(self.root, label_function=self._label_and_split, exclude=self._exclude, rules=self._rules)
        check = SplitFolderCheck(self.root, self._above)
        return Scan(check.watch(iter(walk)) if self._splits else iter(walk), walk.summary)

    def contains(self, path: str) -> bool:
        """Return whether the path is below the root."""
        return path.startswith(self.root.rstrip("/") + "/")

    def _label_and_split(self, below: tuple[str, ...]) -> LabelAndSplit:
        """Return label and split of the files in one folder."""
        label, split = with_names_above(self._above, below, splits=self._splits)
        return (label if self._labels else None), split
