"""The layout of WebDataset: files of one key belong together, and sidecar files describe the image.

The key is the name up to the first dot of its last part. ``000017.cls`` is the label of ``000017.jpg``, ``000017.txt``
its caption, and the values of ``000017.json`` are columns; its ``label``, ``split`` and ``group`` have their meaning.
Where ``.cls`` is a number, a label in the JSON is its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from embedstore.sources.archives.archive import Member

SIDECARS = frozenset({"cls", "txt", "json"})
MAX_SIDECAR_BYTES = 1 << 20
CAPTION = "caption"


@dataclass(frozen=True)
class Description:
    """What the sidecar files of an image state.

    Attributes:
        label: its label, or None.
        split: its split, or None.
        group: its group, or None.
        columns: the other values, by name.
    """

    label: str | None = None
    split: str | None = None
    group: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


def split_key(name: str) -> tuple[str, str]:
    """Return the key of a member and the rest of its name, in lower case: ``("a/17", "jpg")`` of ``a/17.jpg``."""
    folder, slash, last = name.rpartition("/")
    stem, _, rest = last.partition(".")
    return folder + slash + stem, rest.lower()


def by_key(members: Iterable[Member]) -> Iterator[tuple[list[Member], dict[str, Member]]]:
    """Yield consecutive members of one key: the files that may be images, and the sidecars by suffix.

    Sidecars without an image of their key are ordinary files.
    """
    for _, group in groupby(members, key=lambda member: split_key(member.name)[0]):
        files: list[Member] = []
        sidecars: dict[str, Member] = {}
        for member in group:
            suffix = split_key(member.name)[1]
            if suffix in SIDECARS and member.size <= MAX_SIDECAR_BYTES and suffix not in sidecars:
                sidecars[suffix] = member
            else:
                files.append(member)
        yield (files, sidecars) if files else (list(sidecars.values()), {})


def describe(contents: Mapping[str, bytes]) -> Description:
    """Return what sidecars say.

    Args:
        contents: the bytes of each sidecar, by suffix.

    Raises:
        ValueError: if a sidecar is not UTF-8 text, or the JSON is not an object.
        RecursionError: if the JSON is nested too deeply.
    """
    columns: dict[str, Any] = {}
    if "json" in contents:
        columns = json.loads(contents["json"].decode("utf-8-sig"))
        if not isinstance(columns, dict):
            raise ValueError("the JSON is not an object")
    roles = {name: _text(columns.pop(name, None)) for name in ("label", "split", "group")}
    if "txt" in contents:
        columns[CAPTION] = contents["txt"].decode("utf-8-sig").strip()
    if "cls" in contents:
        number_or_name = contents["cls"].decode("utf-8-sig").strip()
        if not (number_or_name.isdecimal() and roles["label"]):  # the JSON has the name that the number stands for
            roles["label"] = number_or_name or None
    return Description(**roles, columns=columns)


def _text(value: object) -> str | None:
    """Return a value as a label; None if there is none."""
    return None if value is None or value == "" else str(value)
