"""Camera RAW files made by hand: DNG 1.4 with one color filter array and one JPEG preview."""

from __future__ import annotations

import struct

import numpy as np

SHORT, LONG, RATIONAL, SRATIONAL, BYTE, ASCII = 3, 4, 5, 10, 1, 2
_FORMATS = {BYTE: "B", ASCII: "B", SHORT: "H", LONG: "I", RATIONAL: "II", SRATIONAL: "ii"}

Tag = tuple[int, int, list[int]]


def dng(
    preview: bytes | None, *, preview_size: tuple[int, int] = (0, 0), orientation: int = 1, side: int = 64
) -> bytes:
    """Return a DNG file: a gray color filter array of ``side`` pixels, and a JPEG preview in a sub-image.

    Args:
        preview: a JPEG file, or None.
        preview_size: width and height of the preview.
        orientation: the EXIF orientation of the RAW file.
        side: of the RAW image, in pixels; a multiple of 2.
    """
    pixels = np.full((side, side), 30_000, "<u2").tobytes()
    image_at = 8
    preview_at = image_at + len(pixels)
    body = pixels + (preview or b"")
    body += b"\0" * (len(body) % 2)
    sub_at = 8 + len(body)
    sub = b""
    if preview is not None:
        sub = _ifd(_preview_tags(preview_at, len(preview), preview_size), sub_at)
    main = _raw_tags(image_at, len(pixels), side, orientation)
    if preview is not None:
        main.append((330, LONG, [sub_at]))
    main_at = sub_at + len(sub)
    return b"II*\0" + struct.pack("<I", main_at) + body + sub + _ifd(sorted(main), main_at)


def _raw_tags(at: int, size: int, side: int, orientation: int) -> list[Tag]:
    """Return the tags of the RAW image (DNG 1.4, chapter 4)."""
    unit = [x for row in np.eye(3, dtype=int) * 10_000 for value in row for x in (int(value), 10_000)]
    return [
        (254, LONG, [0]), (256, LONG, [side]), (257, LONG, [side]), (258, SHORT, [16]), (259, SHORT, [1]),
        (262, SHORT, [32803]), (271, ASCII, list(b"Test\0\0")), (272, ASCII, list(b"Camera\0\0")), (273, LONG, [at]),
        (274, SHORT, [orientation]), (277, SHORT, [1]), (278, LONG, [side]), (279, LONG, [size]),
        (33421, SHORT, [2, 2]), (33422, BYTE, [0, 1, 1, 2]), (50706, BYTE, [1, 4, 0, 0]), (50707, BYTE, [1, 1, 0, 0]),
        (50708, ASCII, list(b"Test Camera\0")), (50714, LONG, [0]), (50717, LONG, [65535]),
        (50721, SRATIONAL, unit), (50728, RATIONAL, [1, 1] * 3), (50778, SHORT, [21]),
    ]  # fmt: skip


def _preview_tags(at: int, size: int, dimensions: tuple[int, int]) -> list[Tag]:
    """Return the tags of the preview."""
    width, height = dimensions
    return [
        (254, LONG, [1]), (256, LONG, [width]), (257, LONG, [height]), (258, SHORT, [8, 8, 8]), (259, SHORT, [7]),
        (262, SHORT, [6]), (273, LONG, [at]), (277, SHORT, [3]), (278, LONG, [height]), (279, LONG, [size]),
    ]  # fmt: skip


def _ifd(tags: list[Tag], at: int) -> bytes:
    """Return one image file directory (TIFF 6.0, section 2) that stands at an offset, with its values behind it."""
    entries, behind = b"", b""
    values_at = at + 2 + 12 * len(tags) + 4
    for tag, kind, values in tags:
        packed = struct.pack("<" + _FORMATS[kind][0] * len(values), *values)
        count = len(values) // len(_FORMATS[kind])
        if len(packed) <= 4:
            entries += struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
        else:
            entries += struct.pack("<HHII", tag, kind, count, values_at + len(behind))
            behind += packed + b"\0" * (len(packed) % 2)
    return struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + behind
