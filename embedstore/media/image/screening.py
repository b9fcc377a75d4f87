"""Which files are safe to decode in this process, judged by their headers within microseconds.

Safe is a JPEG, PNG, WebP, GIF or BMP of the usual kind and size; every other file is decoded in a separate process
(:mod:`embedstore.media.image.isolation`), where it can hang, crash or use memory without harm.
"""

from __future__ import annotations

import numpy as np

from embedstore.media.image.crop import split_crop
from embedstore.resources import memory_share

MAX_IN_PROCESS_PIXELS = 1 << 26  # 67 million: 200 MB as RGB, more than the sensors of nearly all cameras have
# A progressive JPEG of libjpeg's own script has 10, and no file of the shared test data more than 12.
MAX_IN_PROCESS_SCANS = 16
MAX_JPEG_SEGMENTS = 512  # before the frame of a JPEG: metadata in pieces of 64 KiB
METADATA_ALLOWANCE_BYTES = 4 << 20  # of metadata, in addition to twice the size of the raw pixels

_FRAME_MARKERS = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; Huffman-coded
_SCAN_MARKER = 0xDAFF  # FF DA, read as a little-endian number
_MARKERS_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})


def max_in_process_pixels() -> int:
    """Return the most pixels that a thread of this process decodes: as RGB, a sixteenth of the process's memory."""
    return memory_share(3 * MAX_IN_PROCESS_PIXELS, 16) // 3


def is_safe_in_process(data: bytes) -> bool:
    """Return whether a file can be decoded on a thread of this process.

    Args:
        data: the bytes of the whole file; of a crop, those of its photo count.
    """
    _, data = split_crop(data)
    try:
        size = _size(data)
    except IndexError:
        return False
    if size is None:
        return False
    pixels = size[0] * size[1]
    return 0 < pixels <= max_in_process_pixels() and len(data) <= 8 * pixels + METADATA_ALLOWANCE_BYTES


def _size(data: bytes) -> tuple[int, int] | None:
    """Return width and height of a file of the usual kind, else None."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg_size(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return _big(data, 16), _big(data, 20)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _little(data, 6, 2), _little(data, 8, 2)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp_size(data)
    if data.startswith(b"BM") and _little(data, 14, 4) in (40, 108, 124) and _little(data, 30, 4) in (0, 3):
        return _little(data, 18, 4), abs(int.from_bytes(data[22:26], "little", signed=True))
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Return the size of the frame, if the JPEG has few scans and is of the usual kind."""
    if count_scans(data) > MAX_IN_PROCESS_SCANS:
        return None
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        if data[at] != 0xFF:
            return None
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _FRAME_MARKERS:
            return _big(data, at + 5, 2), _big(data, at + 3, 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None  # lossless, hierarchical or arithmetic
        if marker not in _MARKERS_WITHOUT_LENGTH:
            at += _big(data, at, 2)
    return None


def count_scans(data: bytes) -> int:
    """Count the markers of scans, at even and at odd offsets; numpy does so without holding the GIL."""
    even = np.frombuffer(data, "<u2", len(data) // 2)
    odd = np.frombuffer(data, "<u2", (len(data) - 1) // 2, 1)
    return int(np.count_nonzero(even == _SCAN_MARKER)) + int(np.count_nonzero(odd == _SCAN_MARKER))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Return the size of an image that is not an animation."""
    kind = data[12:16]
    if kind == b"VP8 ":
        return _little(data, 26, 2) & 0x3FFF, _little(data, 28, 2) & 0x3FFF
    if kind == b"VP8L":
        bits = _little(data, 21, 4)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and not data[20] & 0x02:
        return _little(data, 24, 3) + 1, _little(data, 27, 3) + 1
    return None


def _big(data: bytes, at: int, size: int = 4) -> int:
    """Return a number stored with its most significant byte first.

    Raises:
        IndexError: if the data end before it.
    """
    return int.from_bytes(_slice(data, at, size), "big")


def _little(data: bytes, at: int, size: int) -> int:
    """Return a number stored with its least significant byte first; raise IndexError if the data end before it."""
    return int.from_bytes(_slice(data, at, size), "little")


def _slice(data: bytes, at: int, size: int) -> bytes:
    """Return ``size`` bytes; raise IndexError if there are fewer."""
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]
