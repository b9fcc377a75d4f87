"""The names of what a user gives: of several places, those below the folder that all are in, and that of an archive."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from embedstore.sources.folder_labels import LabelAndSplit, label_and_split
from embedstore.text_form import known_split

PART_NUMBER = re.compile(r"[-_.]\d+([-_.]of[-_.]\d+)?([-_.][0-9a-f]{8,})?$", re.IGNORECASE)  # at the end of a name
_WORD_END = re.compile(r"[-_.]")
_ARCHIVE_SUFFIX = re.compile(r"\.(tar|zip|tgz|tbz2?|txz|tzst)(\.\w+)?$", re.IGNORECASE)


def names_below_common(paths: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the names of each place from below the folder that all are in, outermost first; its own is the last.

    Args:
        paths: absolute paths, or urls; of one alone it is its own name.
    """
    parts = [path.rstrip("/").split("/") for path in paths]
    shortest = min(len(names) for names in parts) - 1 if parts else 0
    common = 0
    while common < shortest and len({names[common] for names in parts}) == 1:
        common += 1
    return [tuple(names[common:] if len(parts) > 1 else names[-1:]) for names in parts]


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
    """Return the split that the name of each archive states, or the folders it is in below that of all archives.

    The last word of a name counts, before the number of a shard: ``imagenet1k-train-0000.tar``.

    Args:
        paths: absolute paths and urls.
    """
    given = list(paths)
    found: dict[str, str | None] = {}
    for path, names in zip(given, names_below_common(given), strict=True):
        stem = _ARCHIVE_SUFFIX.sub("", names[-1])
        last_word = _WORD_END.split(PART_NUMBER.sub("", stem))[-1]
        found[path] = split_of_file_name(stem) or split_of_file_name(last_word) or label_and_split(names[:-1])[1]
    return found
