"""Frozen records that several rooms exchange."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Split(StrEnum):
    """The part of a data set that an item belongs to."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class FailureReason(StrEnum):
    """Why an item could not be embedded: the ``reason`` column of ``failures``."""

    MISSING = "missing"  # listed, but absent (a dangling link, a manifest row)
    UNREADABLE = "unreadable"  # the operating system reports an error: permission, I/O; tried again in every run
    UNREACHABLE = "unreachable"  # a server does not answer or refuses; tried again in every run
    NOT_A_FILE = "not_a_file"  # a FIFO, a socket, a device
    NOT_FOLLOWED = "not_followed"  # a link to a folder, which could form a loop
    SUPERSEDED = "superseded"  # a later file of the archive has the same name
    EMPTY = "empty"  # zero bytes
    BLANK = "blank"  # a text of white space alone
    NOT_AN_IMAGE = "not_an_image"  # no decoder knows the format
    NOT_A_TEXT = "not_a_text"  # bytes that are no text in UTF-8
    NOT_A_SOUND = "not_a_sound"  # no decoder of sound knows the format, or it is a video
    MISSING_EXTRA = "missing_extra"  # a package that decodes the format is not installed
    TRUNCATED = "truncated"  # the data ends before the image does
    CORRUPT = "corrupt"  # the decoder found invalid data
    TOO_SHORT = "too_short"  # a sound of fewer samples than the network needs
    SILENT = "silent"  # a sound whose samples are all equal
    TOO_LARGE = "too_large"  # more pixels or seconds than the limit: a decompression bomb
    TOO_MANY_SCANS = "too_many_scans"  # a progressive JPEG that is built to be slow
    NO_MEMORY = "no_memory"  # decoding ran out of memory
    TIMED_OUT = "timed_out"  # decoding exceeded its time limit
    CRASHED = "crashed"  # the decoder process crashed twice
    NOT_FINITE = "not_finite"  # the backbone gave NaN, infinity or a zero vector


@dataclass(frozen=True, slots=True)
class ImageRef:
    """One file that a source found, before its bytes are read.

    Attributes:
        uri: the name that a query returns, valid UTF-8; for a local file its absolute path.
        path: the path to open: ``os.fsdecode`` of the file name, equal to ``uri`` unless the name is not UTF-8.
        size: in bytes.
        mtime_ns: the modification time in nanoseconds.
        label: the label that the source states, or None.
        split: the split that the source states, or None.
        group: the group that the source states, or None; items of one group stay in one split.
        named_roles: which of ``label`` and ``split`` are those of the names of folders or files: what a user says of an
            item later outweighs them.
    """

    uri: str
    path: str
    size: int
    mtime_ns: int
    label: str | None = None
    split: str | None = None
    group: str | None = None
    named_roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that could not be embedded. It is tried again only when its size or mtime changes.

    Attributes:
        uri: as in :class:`ImageRef`.
        path: as in :class:`ImageRef`.
        size: in bytes.
        mtime_ns: the modification time in nanoseconds.
        reason: why it failed.
        detail: the message of the decoder or the operating system.
    """

    uri: str
    path: str
    size: int
    mtime_ns: int
    reason: FailureReason
    detail: str

    @classmethod
    def from_ref(cls, ref: ImageRef, reason: FailureReason, detail: str) -> Failure:
        """Return the failure of a file."""
        return cls(ref.uri, ref.path, ref.size, ref.mtime_ns, reason, detail)


@dataclass(frozen=True, slots=True)
class ContentInfo:
    """The facts about a content that the table ``contents`` holds.

    Attributes:
        width: in pixels; 0 for what is no image.
        height: in pixels; 0 for what is no image.
        format: the name that Pillow uses, such as ``JPEG``; ``TEXT``; or that of a sound file, such as ``WAV``.
    """

    width: int
    height: int
    format: str


@dataclass(frozen=True, slots=True)
class Hit:
    """One result of a search.

    Attributes:
        rank: from 1.
        score: cosine similarity in [-1, 1], or the score of a hybrid search; higher is nearer.
        item: the id of the item.
        uri: its name.
        label: its label, or None.
        split: its split, or None.
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
    r"""Return the UTF-8 name of an ``os.fsdecode``d path; undecodable bytes become ``\xNN``.

    :func:`~embedstore.sources.local_files.existing_path` finds the file again.
    """
    if path.isascii():
        return path
    try:
        path.encode("utf-8")
    except UnicodeEncodeError:
        return os.fsencode(path).decode("utf-8", errors="backslashreplace")
    return path
