"""An image folder: classes and splits are its folders."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator

from embedstore.sources.folder_labels import label_and_split
from embedstore.sources.plain import PlainFileSource
from embedstore.sources.walk import FolderWalk, LabelAndSplit
from embedstore.types import Failure, ImageRef


class Folder(PlainFileSource):
    """Every file below a folder, whatever its suffix.

    Args:
        root: an existing folder; made absolute, links in it are kept.
        labels: take the class from the folders.
        exclude: folders never entered.

    Attributes:
        skipped: operating-system litter that the last scan passed over.
    """

    def __init__(self, root: str, *, labels: bool = True, exclude: Collection[str] = ()) -> None:
        self.root = os.path.abspath(root)  # noqa: PTH100 - Path.absolute keeps "..", resolve follows links
        self.description = self.root
        self.roots: tuple[str, ...] = (self.root,)
        self.skipped = 0
        self._labels = labels
        self._exclude = tuple(exclude)

    def scan(self) -> Iterator[ImageRef | Failure]:
        """Every file, sorted within its folder."""
        walk = FolderWalk(self.root, label_function=self._say, exclude=self._exclude)
        for found in walk:
            self.skipped = walk.skipped
            yield found
        self.skipped = walk.skipped

    def contains(self, path: str) -> bool:
        """The path lies below the root."""
        return path.startswith(self.root.rstrip("/") + "/")

    def _say(self, below: tuple[str, ...]) -> LabelAndSplit:
        """Label and split of the files in one folder."""
        label, split = label_and_split(below, root=os.path.basename(self.root))  # noqa: PTH119
        return (label if self._labels else None), split
