"""Image files of every kind, built by hand, and the result of opening one."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.image import decode
from embedstore.types import FailureReason

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8))
# Every format that Pillow writes without a further library; two of them in a second flavour.
FORMATS: dict[str, dict[str, object]] = {f: {} for f in "PNG GIF BMP WEBP PPM TGA ICO SGI PCX DDS JPEG2000 QOI".split()}
FORMATS |= {"JPEG": {"progressive": True}, "TIFF": {"compression": "tiff_lzw"}}


def encode(image: Image.Image, form: str = "PNG", **options) -> bytes:
    """Return the bytes of an image file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def decoded_pixels(data: bytes) -> list[list[tuple[int, ...]]]:
    """Return the rows of RGB pixels of a decoded file."""
    image, _ = decode.open_image(data)
    assert image.mode == "RGB"
    return [[tuple(int(c) for c in px) for px in row] for row in np.asarray(image)]


def decode_error(data: bytes) -> ImageError:
    """Return the error that decoding raises."""
    with pytest.raises(ImageError) as e:
        decode.open_image(data)
    assert "\n" not in e.value.detail
    assert " at 0x" not in e.value.detail
    return e.value


def decode_failure(data: bytes) -> FailureReason:
    """Return the reason why a file cannot be decoded."""
    return decode_error(data).reason


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """Build a PNG chunk by chunk."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    middle = b"".join(chunk(kind, body) for kind, body in extra)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def tiff(values: bytes, width: int, bits: int, photometric: int, kind: int = 1) -> bytes:
    """Build a TIFF of one row: little-endian, uncompressed, one sample per pixel."""
    tags = [
        (256, 4, width), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, len(values)), (339, 3, kind),
    ]  # fmt: skip
    body = values + b"\0" * (len(values) % 2)
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def jpeg_with_scans(scans: int) -> bytes:
    """Build a progressive JPEG with a number of scans, by repeating the last one."""
    data = encode(Image.linear_gradient("L").convert("RGB"), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]
