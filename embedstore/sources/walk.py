"""Every file below a folder, without following links to folders and without opening anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence

from embedstore.sources.companions import find_companions
from embedstore.sources.folder_labels import NAMED_ROLES, LabelAndSplit, from_names
from embedstore.sources.local_files import stat_file, stored_mtime_ns, unreadable_path
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import ScanSummary
from embedstore.storage import layout
from embedstore.types import Failure, ImageRef, display_uri

InodeIdentity = tuple[int, int]


class FolderWalk:
    """One pass over a folder.

    Args:
        root: an absolute folder.
        label_function: returns ``(label, split)`` from the folder names below the root.
        exclude: folders never entered. A store is never entered either.
        depth: how many levels to enter; None is all, 1 the folder itself.
        rules: which names are skipped.
        selects: whether the source contains a path: a photo that it does not contain has no companions.

    Attributes:
        summary: what was skipped so far.
    """

    def __init__(
        self,
        root: str,
        *,
        label_function: Callable[[tuple[str, ...]], LabelAndSplit],
        exclude: Collection[str] = (),
        depth: int | None = None,
        rules: SkipRules = SkipRules(),
        selects: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.summary = ScanSummary()
        self._root = root
        self._label_function = label_function
        self._exclude = frozenset(identity for path in exclude if (identity := inode_identity(path)))
        self._depth = depth
        self._rules = rules
        self._selects = selects

    def __iter__(self) -> Iterator[ImageRef | Failure]:
        """Yield the files of a folder in the order of their names, then those of its folders likewise."""
        pending: list[tuple[str, tuple[str, ...]]] = [(self._root, ())]
        while pending:
            folder, below = pending.pop()
            try:
                names = sorted(os.listdir(folder))  # noqa: PTH208 - names alone: half the memory of entries
            except OSError as e:
                yield unreadable_path(folder, e)
                continue
            if layout.MARKER in names:
                continue
            folders: list[str] = []
            yield from self._files(folder, names, below, folders)
            if self._depth is None or len(below) + 1 < self._depth:
                pending += [(os.path.join(folder, n), (*below, n)) for n in reversed(folders)]  # noqa: PTH118

    def _files(
        self, folder: str, names: Sequence[str], below: tuple[str, ...], folders: list[str]
    ) -> Iterator[ImageRef | Failure]:
        """Yield the files of one folder, and append the names of the folders to enter to ``folders``."""
        label, split = self._label_function(below)
        prefix = folder if folder.endswith("/") else folder + "/"
        companions = self._companions(prefix, names, below)
        for name in names:
            path = prefix + name
            try:
                status = os.lstat(path)
            except OSError as e:
                yield unreadable_path(path, e)
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            kind = self._skipped_kind(name, below, is_folder=is_folder) or (None if is_folder else companions.get(name))
            if kind:
                self.summary.skipped[kind] += 1
            elif stat.S_ISREG(status.st_mode):
                yield ImageRef(
                    display_uri(path),
                    path,
                    status.st_size,
                    stored_mtime_ns(status),
                    label,
                    split,
                    named_roles=NAMED_ROLES,
                )
            elif not is_folder:
                yield from_names(stat_file(path, label, split))
            elif (status.st_dev, status.st_ino) not in self._exclude:
                folders.append(name)

    def _companions(self, prefix: str, names: Sequence[str], below: tuple[str, ...]) -> dict[str, str]:
        """Return the files of one folder that are companions of a photo in it."""

        def is_embedded(name: str) -> bool:
            path = prefix + name
            return not self._skipped_kind(name, below, is_folder=False) and self._selects(path) and os.path.isfile(path)  # noqa: PTH113

        return find_companions(names, is_embedded, raw_pairs=self._rules.raw_pairs)

    def _skipped_kind(self, name: str, below: tuple[str, ...], *, is_folder: bool) -> str | None:
        """Return how a name is counted that is skipped, None for one that is embedded or entered."""
        kind_of = self._rules.kind_of_folder if is_folder else self._rules.kind_of_file
        return kind_of(name, "/".join((*below, name)))


def inode_identity(path: str) -> InodeIdentity | None:
    """Return device and inode of a file or folder, which are the same under all its names; None where there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return status.st_dev, status.st_ino
