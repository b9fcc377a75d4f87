"""Single files and globs."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from embedstore.sources.companions import RawPairs
from embedstore.sources.folder_labels import LabelAndSplit, SplitFolderCheck, from_names, label_and_split
from embedstore.sources.given_names import without_system_names
from embedstore.sources.local_files import stat_file
from embedstore.sources.skip_rules import SkipRules
from embedstore.sources.source import LocationSource, Scan
from embedstore.sources.uris import replace_parent
from embedstore.sources.walk import FolderWalk
from embedstore.types import Failure, ImageRef

ANY_FOLDERS = "**"  # any number of folders
_WILDCARD = re.compile(r"[*?[]")


def is_glob(text: str) -> bool:
    """Return whether the text has a wildcard and is not the name of a file."""
    return bool(_WILDCARD.search(text)) and not os.path.lexists(text)


class Files(LocationSource):
    """Files named one by one.

    Args:
        paths: as typed; a path that is given twice counts once.
        labels: take the class from the folders in the path as typed.
        splits: take the split from them.
    """

    def __init__(self, paths: Sequence[str], *, labels: bool = True, splits: bool = True) -> None:
        self._typed: dict[str, str] = {}
        for path in paths:
            self._typed.setdefault(os.path.abspath(path), path)  # noqa: PTH100
        self._labels, self._splits = labels, splits
        first = next(iter(self._typed), "nothing")
        self.description = first if len(self._typed) == 1 else f"{len(self._typed)} files, first {first}"

    def scan(self) -> Scan:
        """Start a pass over the files in the order given."""
        return Scan(self._refs())

    def contains(self, path: str) -> bool:
        """Return whether the path was named."""
        return path in self._typed

    def _refs(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every file, and check at the end which folders name a split."""
        above = {path: without_system_names(os.path.dirname(typed)) for path, typed in self._typed.items()}  # noqa: PTH120
        roots = {root for root, _ in above.values()}
        check = SplitFolderCheck(roots.pop() if len(roots) == 1 else "", above=())
        for path, typed in self._typed.items():
            folders = above[path][1]
            label, split = label_and_split(folders, splits=self._splits)
            check.add(folders, os.path.basename(typed))  # noqa: PTH119
            yield from_names(stat_file(path, label if self._labels else None, split))
        if self._splits:
            check.check()


class Glob(LocationSource):
    """The files that match a pattern: ``*``, ``?``, ``[a-z]`` within a name, ``**`` for any folders.

    As in a shell, a wildcard does not match the dot of a hidden name. Links to folders are not followed.

    Args:
        pattern: as typed.
        labels: take the class from the folders in the path as typed.
        splits: take the split from them.
        exclude: folders never entered.
        rules: which names are skipped; never those that the pattern writes without a wildcard.
    """

    def __init__(
        self,
        pattern: str,
        *,
        labels: bool = True,
        splits: bool = True,
        exclude: Collection[str] = (),
        rules: SkipRules = SkipRules(),
    ) -> None:
        parts = pattern.split("/")
        fixed = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
        typed_base = "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")
        self.description = pattern
        self._base = os.path.abspath(typed_base)  # noqa: PTH100
        self._base_folders = without_system_names(typed_base)[1]
        self._parts = parts[fixed:]
        self._depth = None if ANY_FOLDERS in parts else len(parts) - fixed
        self._labels, self._splits = labels, splits
        self._exclude = tuple(exclude)
        names_suffix = not _WILDCARD.search(os.path.splitext(parts[-1])[1] or "*")  # noqa: PTH122
        self._rules = replace(
            rules,
            hidden=rules.hidden or any(part.startswith(".") for part in self._parts),
            other_kinds=names_suffix,
            raw_pairs=RawPairs.BOTH if names_suffix else rules.raw_pairs,
            named=frozenset(self._parts),
        )

    def scan(self) -> Scan:
        """Start a pass over the matching files, sorted within their folder."""
        walk = FolderWalk(
            self._base,
            label_function=self._label_and_split,
            exclude=self._exclude,
            depth=self._depth,
            rules=self._rules,
            selects=self.contains,
        )
        entries = (entry for entry in walk if self.contains(entry.path))
        return Scan(SplitFolderCheck(self._base).watch(entries) if self._splits else entries, walk.summary)

    def contains(self, path: str) -> bool:
        """Return whether the pattern matches the path."""
        base = self._base.rstrip("/") + "/"
        return path.startswith(base) and _matches(self._parts, path[len(base) :].split("/"))

    def reaches_without_links(self, folder: str) -> bool:
        """Return whether no link leads from the part of the pattern without wildcards to that folder."""
        inside = replace_parent(folder, self._base, os.path.realpath(self._base))
        return inside is None or inside == os.path.realpath(folder)

    def _label_and_split(self, below: tuple[str, ...]) -> LabelAndSplit:
        """Return label and split of the files in one folder."""
        label, split = label_and_split([*self._base_folders, *below], splits=self._splits)
        return (label if self._labels else None), split


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether the components of a pattern match those of a path."""
    if not parts or not names:
        return not parts and not names
    if parts[0] != ANY_FOLDERS:
        return _matches_name(parts[0], names[0]) and _matches(parts[1:], names[1:])
    visible = not names[0].startswith(".")
    if len(parts) == 1:
        return visible and (len(names) == 1 or _matches(parts, names[1:]))
    return _matches(parts[1:], names) or (visible and _matches(parts, names[1:]))


def _matches_name(part: str, name: str) -> bool:
    """Return whether one component matches; a hidden name needs its dot written."""
    return fnmatch.fnmatchcase(name, part) and (part.startswith(".") or not name.startswith("."))
