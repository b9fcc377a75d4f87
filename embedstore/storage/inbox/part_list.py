"""The list of the files of one part: one JSON array per line, in the order of the scan."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

import xxhash

from embedstore.errors import StoreDamaged
from embedstore.types import ImageRef


class PartFile(NamedTuple):
    """One file of a part.

    Attributes:
        ref: the file, as the scan found it.
        item: the id of the item that had this uri when the plan was made, or None.
    """

    ref: ImageRef
    item: int | None


def encode_list(files: Iterable[PartFile]) -> bytes:
    """Return the list of some files; names that are not UTF-8 are kept as surrogate escapes."""
    lines = (
        json.dumps([r.uri, None if r.path == r.uri else r.path, r.size, r.mtime_ns, r.label, r.split, r.group, item])
        for r, item in files
    )
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def decode_list(data: bytes, *, where: str, files: int, xxh3: str) -> list[PartFile]:
    """Return the files of a list, which may come from anybody.

    Args:
        data: the list.
        where: its name, for messages.
        files: how many files the plan says that it has.
        xxh3: the XXH3-128 that the plan names.

    Raises:
        StoreDamaged: if it is not the list that the plan names.
    """
    try:
        if xxhash.xxh3_128_hexdigest(data) != xxh3:
            raise ValueError("its checksum differs from that in the plan")
        listed = [_listed(json.loads(line)) for line in data.splitlines()]
        if len(listed) != files:
            raise ValueError(f"{len(listed)} files instead of {files}")
    except (ValueError, TypeError, RecursionError) as e:
        raise StoreDamaged(
            f"{where} is not the list of its part ({e!s:.80}); run `embedstore plan-parts STORE SOURCE --replace`"
        ) from e
    return listed


def _listed(row: Any) -> PartFile:
    """Return one file; raise ValueError or TypeError if a value is not one that embedstore writes."""
    uri, path, size, mtime_ns, *texts, item = row
    uri.encode("utf-8")
    if not isinstance(uri, str) or not all(type(n) is int and abs(n) < 1 << 63 for n in (size, mtime_ns)):
        raise TypeError("a file without name, size or time")
    if not (path is None or isinstance(path, str)) or not (item is None or type(item) is int):
        raise TypeError("a file with another path or item than text and number")
    if len(texts) != 3 or not all(text is None or isinstance(text, str) for text in texts):
        raise TypeError("a label, split or group that is no text")
    return PartFile(ImageRef(uri, uri if path is None else path, size, mtime_ns, *texts), item)
