"""Which files are ordinary enough to be decoded beside everything else, judged from their first bytes.

Microseconds a file. Ordinary is a JPEG, PNG, WebP, GIF or BMP of the usual kind and size; everything else is decoded
in a process of its own (:mod:`embedstore.media.image.isolation`), where it can hang, crash or grow without harm.
"""

from __future__ import annotations

import numpy as np

MAX_IN_PROCESS_PIXELS = 1 << 26  # 67 million: 200 MB as RGB, more than the sensors of nearly all cameras have
MAX_IN_PROCESS_SCANS = (
    16  # a progressive JPEG of libjpeg's own script has 10, and no file of the shared test data more than 12
)
MAX_JPEG_SEGMENTS = 512  # before the frame of a JPEG: metadata in pieces of 64 KiB
METADATA_ALLOWANCE_BYTES = 4 << 20  # bytes of metadata, beside twice the size of the raw pixels

_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive; Huffman-coded
_SCAN = 0xDAFF  # FF DA, read as a little-endian number
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


def is_safe_in_process(data: bytes) -> bool:
    """The file can be decoded on a thread of this process.

    Args:
        data: a whole file.
    """
    try:
        size = _size(data)
    except IndexError:
        return False
    if size is None:
        return False
    pixels = size[0] * size[1]
    return 0 < pixels <= MAX_IN_PROCESS_PIXELS and len(data) <= 8 * pixels + METADATA_ALLOWANCE_BYTES


def _size(data: bytes) -> tuple[int, int] | None:
    """Width and height of an ordinary file, else None."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
        return _big(data, 16), _big(data, 20)
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return _little(data, 6, 2), _little(data, 8, 2)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    if data.startswith(b"BM") and _little(data, 14, 4) in (40, 108, 124) and _little(data, 30, 4) in (0, 3):
        return _little(data, 18, 4), abs(int.from_bytes(data[22:26], "little", signed=True))
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """The frame's size, where there are few scans."""
    if _scans(data) > MAX_IN_PROCESS_SCANS:
        return None
    at = 2
    for _ in range(MAX_JPEG_SEGMENTS):
        if data[at] != 0xFF:
            return None
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker in _FRAMES:
            return _big(data, at + 5, 2), _big(data, at + 3, 2)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None  # lossless, hierarchical or arithmetic
        if marker not in _ALONE:
            at += _big(data, at, 2)
    return None


def _scans(data: bytes) -> int:
    """How often a scan's marker stands in it: pairs of bytes from even and from odd places, without holding the GIL."""
    even = np.frombuffer(data, "<u2", len(data) // 2)
    odd = np.frombuffer(data, "<u2", (len(data) - 1) // 2, 1)
    return int(np.count_nonzero(even == _SCAN)) + int(np.count_nonzero(odd == _SCAN))


def _webp(data: bytes) -> tuple[int, int] | None:
    """The size of a still picture."""
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
    """A number, most significant byte first.

    Raises:
        IndexError: the data end before it.
    """
    return int.from_bytes(_part(data, at, size), "big")


def _little(data: bytes, at: int, size: int) -> int:
    """A number, least significant byte first; raises as :func:`_big`."""
    return int.from_bytes(_part(data, at, size), "little")


def _part(data: bytes, at: int, size: int) -> bytes:
    """Some bytes, all of them."""
    if at + size > len(data):
        raise IndexError
    return data[at : at + size]
