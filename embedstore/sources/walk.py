"""Every file below a folder, without following links to folders and without opening anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator

from embedstore.sources.local_files import stat_file, unreadable_path
from embedstore.storage import layout
from embedstore.types import Failure, ImageRef, display_uri

SYSTEM_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})  # left by the systems' file browsers
APPLE_DOUBLE_PREFIX = "._"  # macOS keeps a file's attributes in such a companion on other file systems

LabelAndSplit = tuple[str | None, str | None]
InodeIdentity = tuple[int, int]


class FolderWalk:
    """One walk over a folder; what was left out is counted.

    Args:
        root: an absolute folder.
        labels: from the folder components below the root to ``(label, split)``.
        exclude: folders never entered.
        depth: how many levels to enter; None is all, 1 the folder itself.

    Attributes:
        skipped: operating-system litter that was passed over.
    """

    def __init__(
        self,
        root: str,
        *,
        label_function: Callable[[tuple[str, ...]], LabelAndSplit],
        exclude: Collection[str] = (),
        depth: int | None = None,
    ) -> None:
        self.skipped = 0
        self._root = root
        self._labels = label_function
        self._exclude = frozenset(identity for path in exclude if (identity := inode_identity(path)))
        self._depth = depth

    def __iter__(self) -> Iterator[ImageRef | Failure]:
        """Files of a folder in the order of their names, then its folders likewise."""
        waiting: list[tuple[str, tuple[str, ...]]] = [(self._root, ())]
        while waiting:
            folder, below = waiting.pop()
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone: half the memory of entries
            except OSError as e:
                yield unreadable_path(folder, e)
                continue
            if layout.MARKER not in names:
                folders: list[str] = []
                yield from self._files(folder, names, self._labels(below), folders)
                if self._depth is None or len(below) + 1 < self._depth:
                    waiting += [(os.path.join(folder, n), (*below, n)) for n in reversed(folders)]  # noqa: PTH118

    def _files(
        self, folder: str, names: list[str], said: LabelAndSplit, folders: list[str]
    ) -> Iterator[ImageRef | Failure]:
        """What lies in one folder; its folders are put into ``folders``."""
        label, split = said
        prefix = folder if folder.endswith("/") else folder + "/"
        for name in names:
            path = prefix + name
            try:
                s = os.lstat(path)
            except OSError as e:
                yield unreadable_path(path, e)
                continue
            if stat.S_ISREG(s.st_mode):
                if name in SYSTEM_FILES or name.startswith(APPLE_DOUBLE_PREFIX):
                    self.skipped += 1
                else:
                    yield ImageRef(display_uri(path), path, s.st_size, s.st_mtime_ns, label, split)
            elif not stat.S_ISDIR(s.st_mode):
                yield stat_file(path, label, split)
            elif (s.st_dev, s.st_ino) not in self._exclude:
                folders.append(name)


def inode_identity(path: str) -> InodeIdentity | None:
    """Device and inode of what is there, by whatever name; None where nothing is."""
    try:
        s = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return s.st_dev, s.st_ino
