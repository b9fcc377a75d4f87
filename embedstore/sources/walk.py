"""Every file below a folder, without following links to folders and without opening anything."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection, Iterator

from embedstore.types import Failure, FailureReason, ImageRef, display_uri

STORE_MARKER = "embedstore.json"  # a folder that holds it is a store, not a collection of photos
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
                yield _unreadable(folder, e)
                continue
            if STORE_MARKER not in names:
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
                yield _unreadable(path, e)
                continue
            if stat.S_ISREG(s.st_mode):
                if name in SYSTEM_FILES or name.startswith(APPLE_DOUBLE_PREFIX):
                    self.skipped += 1
                else:
                    yield ImageRef(display_uri(path), path, s.st_size, s.st_mtime_ns, label, split)
            elif not stat.S_ISDIR(s.st_mode):
                yield _special(path, s, label, split)
            elif (s.st_dev, s.st_ino) not in self._exclude:
                folders.append(name)


def stat_file(
    path: str, label: str | None = None, split: str | None = None, group: str | None = None
) -> ImageRef | Failure:
    """One named file, links to files followed."""
    try:
        s = os.lstat(path)
    except (OSError, ValueError) as e:
        return _unreadable(path, e)
    if stat.S_ISREG(s.st_mode):
        return ImageRef(display_uri(path), path, s.st_size, s.st_mtime_ns, label, split, group)
    return _special(path, s, label, split, group)


def inode_identity(path: str) -> InodeIdentity | None:
    """Device and inode of what is there, by whatever name; None where nothing is."""
    try:
        s = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return s.st_dev, s.st_ino


def _special(
    path: str, s: os.stat_result, label: str | None, split: str | None, group: str | None = None
) -> ImageRef | Failure:
    """A link, or something that is neither file nor folder."""
    uri = display_uri(path)
    if not stat.S_ISLNK(s.st_mode):
        kind = stat.filemode(s.st_mode)[0]
        words = {"p": "FIFO", "s": "socket", "c": "character device", "b": "block device", "d": "folder"}
        return _failure(path, s, FailureReason.NOT_A_FILE, f"a {words.get(kind, 'special file')}, not a file")
    try:
        target = os.stat(path)  # noqa: PTH116
    except OSError as e:
        return _failure(path, s, _reason_of(e), f"a link that leads nowhere: {e.strerror}")
    if stat.S_ISDIR(target.st_mode):
        return _failure(path, s, FailureReason.NOT_FOLLOWED, "a link to a folder; name that folder itself to embed it")
    if not stat.S_ISREG(target.st_mode):
        return _failure(path, s, FailureReason.NOT_A_FILE, "a link to something that is not a file")
    return ImageRef(uri, path, target.st_size, target.st_mtime_ns, label, split, group)


def _failure(path: str, s: os.stat_result, reason: FailureReason, detail: str) -> Failure:
    """A failure with the facts of the directory entry."""
    return Failure(display_uri(path), path, s.st_size, s.st_mtime_ns, reason, detail)


def _unreadable(path: str, e: OSError | ValueError) -> Failure:
    """What the operating system refuses."""
    said = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
    return Failure(display_uri(path), path, 0, 0, _reason_of(e), said)


def _reason_of(e: OSError | ValueError) -> FailureReason:
    """Not there, or there and closed to us."""
    absent = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
    return FailureReason.MISSING if not isinstance(e, OSError) or e.errno in absent else FailureReason.UNREADABLE
