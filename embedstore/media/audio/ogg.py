"""Pages of Ogg files (RFC 3533): where a sound ends, and whether a file ends inside a page."""

from __future__ import annotations

CAPTURE = b"OggS"  # what a page begins with
FIRST = CAPTURE + b"\0\x02" + bytes(8)  # what the first page of a stream begins with, at the position 0
_HEADER = 27  # bytes of a page before its table of segments
_FLAGS, _FIRST_PAGE = 5, 2  # where the flags of a page are, and that of a stream's first page


def sound_end(data: bytes, begin: int) -> int:
    """Return where the pages of a sound end: at a first page behind or inside others, or at bytes that are no page.

    Streams that begin together, as of a sound and its pictures, are one sound.

    Args:
        data: the bytes of a file.
        begin: where the first page begins.
    """
    at, is_in_header = begin, True
    while data.startswith(CAPTURE, at) and at + _HEADER <= len(data):
        is_first = bool(data[at + _FLAGS] & _FIRST_PAGE)
        if is_first and not is_in_header:
            return at
        is_in_header = is_first
        end = _page_end(data, at)
        if (first := data.find(FIRST, at + 1, end)) > 0:  # the page was cut off before another sound
            return first
        at = end
    return min(at, len(data))


def is_cut_off(data: bytes) -> bool:
    """Return whether the bytes end inside a page.

    A recording that was ended without a last page is whole as far as anybody can know.

    Args:
        data: the bytes of one sound.
    """
    at = 0
    while data.startswith(CAPTURE, at):
        at = _page_end(data, at)
    return at > len(data)


def _page_end(data: bytes, at: int) -> int:
    """Return where a page ends; that may be beyond the end of the data."""
    segments = data[at + _HEADER - 1 : at + _HEADER]
    if not segments:
        return at + _HEADER
    return at + _HEADER + segments[0] + sum(data[at + _HEADER : at + _HEADER + segments[0]])
