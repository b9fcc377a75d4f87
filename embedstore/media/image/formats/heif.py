"""HEIF, the format of phone photos (HEIC, HIF), decoded by pillow-heif. AVIF is not here: Pillow decodes it itself.

libheif applies the rotation and mirroring of the file; pillow-heif resets the EXIF orientation, so that it is applied
once.
"""

from __future__ import annotations

import io

from PIL import Image

from embedstore.media.image.formats.image_format import ImageFormat

_HEVC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_GENERIC_BRANDS = frozenset({b"mif1", b"mif2", b"msf1"})  # ISO 23008-12: the codec is named by the other brands
_AV1_BRANDS = frozenset({b"avif", b"avis"})
_MAX_FTYP_BYTES = 1024


def is_heif(data: bytes) -> bool:
    """Return whether the file type box names HEIF with another codec than AV1."""
    if data[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(data[:4], "big"), _MAX_FTYP_BYTES)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}
    return bool(brands & _HEVC_BRANDS) or (bool(brands & _GENERIC_BRANDS) and not brands & _AV1_BRANDS)


def open_heif(data: bytes) -> Image.Image:
    """Open the primary image of a file; 10- and 12-bit color becomes 8-bit, gray 16-bit."""
    from pillow_heif import HeifImageFile

    image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]  # it has no annotations
    return image


HEIF = ImageFormat(
    name="HEIF",
    matches=is_heif,
    open=open_heif,
    package="pillow-heif",
    install="embedstore[heic]",
    max_pixels=1 << 28,  # 268 million: phones with a sensor of 200 megapixels exist
)
