"""JPEG XL, decoded by pillow-jxl-plugin. The library applies the orientation of the file itself."""

from __future__ import annotations

import io

from PIL import Image

from embedstore.media.image.formats.image_format import ImageFormat

_CODESTREAM = b"\xff\x0a"  # ISO/IEC 18181-2: a file is a bare codestream, or a container that begins with this box
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"


def is_jpeg_xl(data: bytes) -> bool:
    """Return whether a file is JPEG XL."""
    return data.startswith((_CODESTREAM, _CONTAINER))


def open_jpeg_xl(data: bytes) -> Image.Image:
    """Open a file, upright."""
    import pillow_jxl  # noqa: F401 - registers the format with Pillow

    return Image.open(io.BytesIO(data), formats=["JXL"])


JPEG_XL = ImageFormat(
    name="JXL",
    matches=is_jpeg_xl,
    open=open_jpeg_xl,
    package="pillow-jxl-plugin",
    install="embedstore-jpeg-xl",
    max_pixels=1 << 28,
)
