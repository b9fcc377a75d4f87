"""Camera RAW, by the preview that the camera embedded; a file without one is developed in half size. LibRaw decodes.

The preview is what the photographer saw on the camera. Its own EXIF orientation is used where it has one, otherwise the
one of the RAW file.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

from PIL import Image

from embedstore.media.image.formats.image_format import ImageFormat

MIN_PREVIEW_PIXELS = 256 * 256  # a smaller preview is a thumbnail: the file is developed instead

_SIGNATURES = {  # by their place; Phase One's follows a TIFF header of which Pillow would read an image of one pixel
    0: (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"),  # the last is Minolta
    4: (b"ftypcrx ",),  # Canon CR3
    6: (b"HEAPCCDR", b".reV"),  # Canon CRW, Kyocera
    8: (b"IIII", b"MMMM"),  # Phase One
}
_DNG_VERSION, _COMPRESSION, _PHOTOMETRIC, _SUB_IFDS = 50706, 259, 262, 330
_RAW_COMPRESSIONS = frozenset({32767, 32769, 34713, 65535})  # Sony, Samsung, Nikon, Pentax
_RAW_PHOTOMETRICS = frozenset({32803, 34892})  # color filter array, linear raw (DNG 1.7)
_MAX_IFDS, _MAX_ENTRIES = 16, 512
_SHORT = 3  # the type of a 16-bit number in TIFF
_EXIF_ORIENTATION = 0x0112
_FLIPS = {  # LibRaw's sizes.flip
    3: Image.Transpose.ROTATE_180,
    5: Image.Transpose.ROTATE_90,
    6: Image.Transpose.ROTATE_270,
}


def is_raw(data: bytes) -> bool:
    """Return whether a file is a camera's RAW file, also one that is a TIFF file by its first bytes."""
    if any(data.startswith(signatures, place) for place, signatures in _SIGNATURES.items()):
        return True
    if not data.startswith((b"II*\0", b"MM\0*")):
        return False
    if data[8:10] == b"CR":  # Canon CR2
        return True
    return any(
        tag == _DNG_VERSION
        or (tag == _COMPRESSION and value in _RAW_COMPRESSIONS)
        or (tag == _PHOTOMETRIC and value in _RAW_PHOTOMETRICS)
        for tag, value in _tiff_tags(data)
    )


def open_raw(data: bytes) -> Image.Image:
    """Open the embedded preview, or develop the file in half size where there is none or only a thumbnail."""
    import rawpy

    try:
        return _open(data)
    except rawpy.LibRawError as e:
        why = e.args[0].decode() if e.args and isinstance(e.args[0], bytes) else str(e)
        raise OSError(f"LibRaw: {why[:1].lower()}{why[1:]}") from e


def _open(data: bytes) -> Image.Image:
    """Open the preview or develop the file; see :func:`open_raw`."""
    import rawpy

    with rawpy.imread(io.BytesIO(data)) as raw:
        preview = _preview(raw)
        if preview is None:
            return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
        if _EXIF_ORIENTATION in preview.getexif():
            return preview
        transpose = _FLIPS.get(raw.sizes.flip)
        return preview if transpose is None else preview.transpose(transpose)


def _preview(raw: Any) -> Image.Image | None:
    """Return the embedded preview, or None if there is none or only a thumbnail."""
    import rawpy

    try:
        thumbnail = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    is_jpeg = thumbnail.format == rawpy.ThumbFormat.JPEG
    image: Image.Image = (
        Image.open(io.BytesIO(thumbnail.data), formats=["JPEG"]) if is_jpeg else Image.fromarray(thumbnail.data)
    )
    return image if image.width * image.height >= MIN_PREVIEW_PIXELS else None


def _tiff_tags(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield tag and first value of every entry of a TIFF file, its sub-images included, as far as it can be read."""
    order = "<" if data[:2] == b"II" else ">"
    pointers, seen = [4], set[int]()  # where the offsets of directories are stored
    while pointers and len(seen) < _MAX_IFDS:
        start = _number(data, pointers.pop(0), "I", order)
        if not start or start in seen:
            continue
        seen.add(start)
        count = min(_number(data, start, "H", order), _MAX_ENTRIES)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = _number(data, at, "H", order), _number(data, at + 2, "H", order)
            yield tag, _number(data, at + 8, "H" if kind == _SHORT else "I", order)
            if tag == _SUB_IFDS:
                pointers.extend(_sub_pointers(data, at, order))
        pointers.append(start + 2 + 12 * count)


def _sub_pointers(data: bytes, at: int, order: str) -> list[int]:
    """Return where the offsets of the sub-images are stored; ``at`` is the entry that names them."""
    count = min(_number(data, at + 4, "I", order), _MAX_IFDS)
    first = at + 8 if count == 1 else _number(data, at + 8, "I", order)
    return [first + 4 * n for n in range(count)]


def _number(data: bytes, at: int, size: str, order: str) -> int:
    """Return an unsigned number of 2 (``H``) or 4 (``I``) bytes; 0 beyond the end."""
    try:
        value: int = struct.unpack_from(order + size, data, at)[0]
    except struct.error:
        return 0
    return value


RAW = ImageFormat(
    name="RAW",
    matches=is_raw,
    open=open_raw,
    package="rawpy",
    install="embedstore[raw]",
    max_pixels=1 << 28,
)
