"""The uri of a part of a file: ``photo.jpg#xywh=10,20,30,40``, ``doc.pdf#page=3``, ``clip.mp4#t=12.5``.

The fragments are those of W3C's Media Fragments (section 4.2) and of PDF (RFC 8118, section 3). What is before the
fragment is the path or uri of the file.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from embedstore.media.image.crop import Box

_PART_URI = re.compile(r"(?P<file>.+)#(?P<kind>xywh|page|t)=(?P<value>[^#/]+)", re.DOTALL)
_PAGE = re.compile(r"[1-9]\d{0,8}")
_SECONDS = re.compile(r"\d{1,9}(\.\d{1,9})?")


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a document, counted from 1."""

    number: int

    def __str__(self) -> str:
        return f"page={self.number}"


@dataclass(frozen=True, slots=True)
class Moment:
    """The frame of a video that is shown at a time, in seconds from its begin."""

    seconds: float

    def __str__(self) -> str:
        return f"t={self.seconds:.3f}".rstrip("0").rstrip(".")


@dataclass(frozen=True, slots=True)
class PartUri:
    """A part of a file.

    Attributes:
        file: the path or uri of the file.
        part: which part.
    """

    file: str
    part: Box | Page | Moment

    def __str__(self) -> str:
        return f"{self.file}#{'xywh=' if isinstance(self.part, Box) else ''}{self.part}"


def parse_part_uri(uri: str) -> PartUri | None:
    """Return the part that a uri names; None if it names something else.

    A file whose name looks like such a uri is a file.
    """
    match = _PART_URI.fullmatch(uri) if "#" in uri else None
    if match is None or os.path.lexists(uri):
        return None
    part = _parse_part(match["kind"], match["value"])
    return None if part is None else PartUri(match["file"], part)


def _parse_part(kind: str, value: str) -> Box | Page | Moment | None:
    """Return what a fragment means, or None."""
    if kind == "xywh":
        return Box.parse(value)
    if kind == "page":
        return Page(int(value)) if _PAGE.fullmatch(value) else None
    return Moment(float(value)) if _SECONDS.fullmatch(value) else None
