"""The names in the paths that a user gives which may state a label or a split."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from embedstore.sources.folder_labels import NO_FOLDERS, LabelAndSplit, label_and_split
from embedstore.text_form import UNASSIGNED, known_split

PART_NUMBER = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]{8,})?$", re.IGNORECASE)  # at the end of a name
_WORD_END = re.compile(r"[-_.]")
_ARCHIVE_SUFFIX = re.compile(r"\.(tar|zip|tgz|tbz2?|txz|tzst)(\.\w+)?$", re.IGNORECASE)


def without_system_names(path: str) -> tuple[str, list[str]]:
    """Return the part of a path that says where a user's files are, and the names after it.

    Neither ``/dev`` nor the home folder of a user called ``dev`` or ``test`` states a split.

    Args:
        path: as typed, without the name of the file; only an absolute one has such a part.
    """
    names = [name for name in path.split("/") if name not in NO_FOLDERS]
    if not path.startswith("/"):
        return "", names
    home = os.path.expanduser("~").strip("/").split("/")  # noqa: PTH111 - it is no error to have none
    of_system = 0
    if names[: len(home)] == home:
        of_system = len(home)
    elif names[:1] == ["dev"]:
        of_system = 1
    elif names[:1] in (["home"], ["Users"]):
        of_system = 2
    return "/" + "/".join(names[:of_system]), names[of_system:]


def names_below_common(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the names of each place from below the folder that all are in, outermost first; its own is the last.

    Args:
        paths: absolute paths, or urls; of one alone it is its own name.
    """
    parts = [path.rstrip("/").split("/") for path in paths]
    common = _common_length(parts)
    return [tuple(names[common:]) for names in parts]


def _common_length(parts: Sequence[Sequence[str]]) -> int:
    """Return how many names at the begin all paths share, the last name of each left aside."""
    shortest = min((len(names) for names in parts), default=1) - 1
    return next((n for n in range(shortest) if len({names[n] for names in parts}) > 1), shortest)


def with_names_above(above: Sequence[str], below: Sequence[str], *, splits: bool) -> LabelAndSplit:
    """Return label and split of a file in a folder that was given.

    Args:
        above: the names down to the folder that was given, which count where one of them names a split.
        below: the folders in it.
        splits: whether folders may name splits at all.
    """
    label, split = label_and_split(below, splits=splits)
    if split is not None or not splits or not any(map(known_split, above)):
        return label, split
    return label_and_split((*above, *below))


def split_of_file_name(stem: str) -> str | None:
    """Return the split that a file's name states: ``train-00000-of-00001``, ``val_3``; None if it states none.

    Args:
        stem: the name without its suffix.
    """
    split = known_split(stem) or known_split(PART_NUMBER.sub("", stem))
    return split.value if split else None


def splits_of_archives(paths: Iterable[str]) -> dict[str, str | None]:
    """Return the split that the name of each archive states, or the folder that holds all archives or one below it.

    The last word of a name counts, before the number of a shard: ``imagenet1k-train-0000.tar``.

    Args:
        paths: absolute paths and urls.
    """
    given = [(path, *os.path.split(path)) for path in paths]
    names = [[*without_system_names(folder)[1], name] for _, folder, name in given]
    holder = max(0, _common_length(names) - 1)
    found: dict[str, str | None] = {}
    for (path, _, name), (*folders, _) in zip(given, names, strict=True):
        stem, last_word = _stem_and_last_word(name)
        found[path] = split_of_file_name(stem) or split_of_file_name(last_word) or label_and_split(folders[holder:])[1]
    return found


def is_unassigned(path: str) -> bool:
    """Return whether the name of an archive says that its files are in no split, as that of an export does."""
    return _stem_and_last_word(os.path.basename(path))[1].lower() == UNASSIGNED  # noqa: PTH119


def _stem_and_last_word(name: str) -> tuple[str, str]:
    """Return the name of an archive without its suffix, and the last word of that before the number of a shard."""
    stem = _ARCHIVE_SUFFIX.sub("", name)
    return stem, _WORD_END.split(PART_NUMBER.sub("", stem))[-1]
