"""Frozen rows that cross floors. No behaviour beyond what their own fields say."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Split(StrEnum):
    """The three splits the field knows."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class FailureReason(StrEnum):
    """Why an image could not be embedded: the ``reason`` column of ``failures``."""

    MISSING = "missing"  # named, but not there (a dangling link, a manifest row)
    UNREADABLE = "unreadable"  # the operating system refuses: permission, I/O error
    NOT_A_FILE = "not_a_file"  # a FIFO, a socket, a device
    NOT_FOLLOWED = "not_followed"  # a link to a folder: following it could loop for ever
    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # no decoder knows the format
    TRUNCATED = "truncated"  # the data end before the picture does
    CORRUPT = "corrupt"  # the decoder found broken data
    TOO_LARGE = "too_large"  # more pixels than the limit: a decompression bomb
    TOO_MANY_SCANS = "too_many_scans"  # a progressive JPEG made to be slow
    NO_MEMORY = "no_memory"  # decoding ran out of memory
    TIMED_OUT = "timed_out"  # decoding did not end within its time
    CRASHED = "crashed"  # the decoder died of it, twice
    NOT_FINITE = "not_finite"  # the backbone gave NaN, infinity or a zero vector


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One file as a source found it, before anything was read of it.

    Attributes:
        uri: the name a person sees and a query returns: valid UTF-8. For a local file its absolute path.
        path: what to open: ``os.fsdecode`` of the file name, equal to ``uri`` unless the name is not UTF-8.
        size: bytes. mtime_ns: modification time in nanoseconds.
        label, split, group: what the source says of the image, or None.
    """

    uri: str
    path: str
    size: int
    mtime_ns: int
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """One image that could not be embedded, and why. Retried only when its size or mtime change."""

    uri: str
    path: str
    size: int
    mtime_ns: int
    reason: FailureReason
    detail: str

    @classmethod
    def from_ref(cls, ref: ImageRef, reason: FailureReason, detail: str) -> Failure:
        """The failure of one reference."""
        return cls(ref.uri, ref.path, ref.size, ref.mtime_ns, reason, detail)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What one file held: facts that go into ``contents``."""

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer of a search.

    Attributes:
        rank: from 1.
        score: cosine similarity in [-1, 1]; higher is nearer.
        item: the item's id.
        columns: the user's own columns.
    """

    rank: int
    score: float
    item: int
    uri: str
    label: str | None
    split: str | None
    columns: dict[str, Any] = field(default_factory=dict)


def content_digest(data: bytes) -> str:
    """Return the identity of a content: the first 128 bits of SHA-256, as 32 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()[:32]


def display_uri(path: str) -> str:
    r"""The UTF-8 name of an ``os.fsdecode``d path; undecodable bytes are shown as ``\xNN``."""
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return path
