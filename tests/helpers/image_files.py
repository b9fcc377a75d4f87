"""Image files of every kind, made by hand, and what opening one gives."""

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


def stored(image: Image.Image, form: str = "PNG", **options) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def pixels(data: bytes) -> list[list[tuple[int, ...]]]:
    """Rows of RGB pixels of what was decoded."""
    image, _ = decode.open_image(data)
    assert image.mode == "RGB"
    return [[tuple(int(c) for c in px) for px in row] for row in np.asarray(image)]


def failure(data: bytes) -> ImageError:
    """The error that opening raises."""
    with pytest.raises(ImageError) as e:
        decode.open_image(data)
    assert "\n" not in e.value.detail
    assert " at 0x" not in e.value.detail
    return e.value


def reason(data: bytes) -> FailureReason:
    """Why it cannot be opened."""
    return failure(data).reason


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG made by hand: its chunks as the specification says."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    middle = b"".join(chunk(kind, body) for kind, body in extra)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + middle + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def tiff(values: bytes, width: int, bits: int, photometric: int, kind: int = 1) -> bytes:
    """A TIFF of one row made by hand: little-endian, uncompressed, one sample a pixel."""
    tags = [
        (256, 4, width), (257, 4, 1), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
        (273, 4, 8), (277, 3, 1), (278, 4, 1), (279, 4, len(values)), (339, 3, kind),
    ]  # fmt: skip
    body = values + b"\0" * (len(values) % 2)
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0"


def many_scans(scans: int) -> bytes:
    """A progressive JPEG whose last scan is repeated until there are so many."""
    data = stored(Image.linear_gradient("L").convert("RGB"), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]
