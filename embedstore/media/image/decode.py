"""From the bytes of a file to an upright RGB image, or the reason why there is none.

Pillow decodes, and for some formats another library (:mod:`embedstore.media.image.formats`). They raise errors of every
type, which are raised here as :class:`~embedstore.errors.ImageError`. All functions can be called from many threads.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from types import MappingProxyType

import PIL
from PIL import Image, ImageFile

from embedstore.errors import ImageError, PluginError
from embedstore.media.image.color import to_rgb
from embedstore.media.image.crop import split_crop
from embedstore.media.image.formats.image_format import ImageFormat
from embedstore.media.image.formats.registry import find_built_in, find_plug_in
from embedstore.media.image.other_files import describe_file
from embedstore.media.image.warnings_filter import suppress_warnings
from embedstore.types import ContentInfo, FailureReason

MAX_PIXELS = 178_956_970  # Pillow refuses more: twice the pixels of 24-bit data in a quarter of a gibibyte

# Every scan of a progressive JPEG is a pass over all its pixels: 506 scans in 377 KB took 50 s. libjpeg's own script
# makes 10, and no file of the shared test data has more than 12; 100 scans of 12 megapixels take a second.
MAX_SCANS = 100
START_OF_SCAN = b"\xff\xda"

# Not images: EPS is a program that Pillow hands to Ghostscript; the others are stubs without a decoder.
DENIED_FORMATS = frozenset({"EPS", "BUFR", "GRIB", "HDF5", "MPEG", "WMF"})

ORIENTATION_TAG = 0x0112  # Exif 2.3, table 4
ORIENTATION_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_SIGNATURES = (  # offset, bytes, name
    (0, b"\x89PNG", "PNG"), (0, b"\xff\xd8\xff", "JPEG"), (0, b"GIF8", "GIF"), (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"), (0, b"MM\0*", "TIFF"), (0, b"RIFF", "WebP"), (0, b"8BPS", "PSD"),
    (4, b"ftypavif", "AVIF"), (4, b"ftypavis", "AVIF"),
)  # fmt: skip
_TRUNCATED = re.compile(
    r"truncat|end of file|not enough|no more data|unexpected end|\bEOF\b|incomplete|insufficient", re.IGNORECASE
)
NO_SETTINGS: Mapping[str, str] = MappingProxyType({})
_TOO_BIG = re.compile(r"decompressed data too large|exceeds limit|too large", re.IGNORECASE)
_OUT_OF_MEMORY = re.compile(r"out of memory|memory error", re.IGNORECASE)
_ADDRESS = re.compile(r"<[\w.]+ object at 0x[0-9a-f]+>")


def open_image(data: bytes, decoding: Mapping[str, str] = NO_SETTINGS) -> tuple[Image.Image, ContentInfo]:
    """Decode the first frame of one image file to RGB, upright, with transparency over white.

    Args:
        data: the bytes of the file, or of a file and a box in it (:mod:`embedstore.media.image.crop`).
        decoding: the settings of decoders that the space records, by ``FORMAT.OPTION``.

    Returns:
        The image, and its facts: width and height upright, format.

    Raises:
        ImageError: if the image cannot be decoded; ``reason`` says why.
        PluginError: if the plug-in of the format cannot be loaded.
    """
    box, data = split_crop(data)
    image, info = _open_file(data, decoding)
    if box is None:
        return image, info
    cropped = box.cut(image)
    return cropped, ContentInfo(cropped.width, cropped.height, info.format)


def _open_file(data: bytes, decoding: Mapping[str, str]) -> tuple[Image.Image, ContentInfo]:
    """Decode a file, and raise what its library raises as ImageError."""
    if not data:
        raise ImageError(FailureReason.EMPTY, "no bytes")
    _require_few_scans(data)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # gray rows in place of an error; some training scripts switch it on
    try:
        with suppress_warnings():
            return _decode(data, decoding)
    except (ImageError, PluginError):
        raise
    except Exception as e:  # Pillow's plugins raise every type there is
        raise _image_error(e, data) from e


def to_rgb_image(image: bytes | Image.Image, decoding: Mapping[str, str] = NO_SETTINGS) -> Image.Image:
    """Return an image as RGB, upright, with transparency over white.

    Args:
        image: the bytes of a file, or an image opened by Pillow.
        decoding: as for :func:`open_image`.

    Raises:
        ImageError: if the image cannot be decoded; ``reason`` says why.
    """
    if not isinstance(image, Image.Image):
        return open_image(image, decoding)[0]
    try:
        with suppress_warnings():
            return _load_upright_rgb(image)
    except ImageError:
        raise
    except Exception as e:
        raise _image_error(e, b"") from e


def _decode(data: bytes, decoding: Mapping[str, str]) -> tuple[Image.Image, ContentInfo]:
    """Decode, or raise whatever the library raises."""
    image_format = find_built_in(data)
    if image_format is not None:
        return _decode_format(data, image_format, decoding)
    try:
        return _decode_pillow(data)
    except PIL.UnidentifiedImageError:
        plug_in = find_plug_in(data)
        if plug_in is None:
            raise
        return _decode_format(data, plug_in, decoding)


def _decode_format(
    data: bytes, image_format: ImageFormat, decoding: Mapping[str, str]
) -> tuple[Image.Image, ContentInfo]:
    """Decode by the library of a format that Pillow does not decode."""
    if image_format.package_version is None:
        cure = f"run `pip install '{image_format.install}'` and embed again"
        raise ImageError(
            FailureReason.MISSING_EXTRA, f"{image_format.name} needs the package {image_format.package}; {cure}"
        )
    image = image_format.open(data, **image_format.settings(decoding))
    upright = _load_upright_rgb(image, max_pixels=image_format.max_pixels)
    return upright, ContentInfo(upright.width, upright.height, image_format.name)


def _decode_pillow(data: bytes) -> tuple[Image.Image, ContentInfo]:
    """Decode by Pillow."""
    Image.preinit()
    Image.init()  # all plugins: naming the formats skips Pillow's own second look
    with Image.open(io.BytesIO(data), formats=[f for f in Image.ID if f not in DENIED_FORMATS]) as image:
        if image.format == "JPEG2000":
            _require_end_marker(data)
        upright = _load_upright_rgb(image)
        return upright, ContentInfo(upright.width, upright.height, image.format or "unknown")


def _load_upright_rgb(image: Image.Image, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Load an opened image and return it as RGB, upright."""
    _require_pixel_limit(image, max_pixels)
    raw_mode = _raw_mode(image)  # known before loading only
    image.load()
    _require_pixel_limit(image, max_pixels)  # icons learn their size only now
    return to_upright(to_rgb(image, raw_mode=raw_mode), exif_orientation(image))


def _raw_mode(image: Image.Image) -> str:
    """Return Pillow's name for the layout of the pixels in the file; "" if it is unknown or there is no file."""
    tile = getattr(image, "tile", None)
    args = tile[0].args if tile else None
    return args if isinstance(args, str) else ""


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 if there is none or it cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except MemoryError:
        raise
    except Exception:  # a broken EXIF block does not make the image unusable
        return 1
    return value if isinstance(value, int) else 1


def to_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Return the image turned as its EXIF orientation says."""
    transpose = ORIENTATION_TRANSPOSES.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _require_pixel_limit(image: Image.Image, max_pixels: int) -> None:
    """Raise ImageError if the image has more pixels than the limit, or none."""
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise ImageError(FailureReason.TOO_LARGE, f"{image.width} × {image.height} pixels; the limit is {max_pixels:,}")
    if pixels == 0:
        raise ImageError(FailureReason.CORRUPT, f"{image.width} × {image.height} pixels")


def _require_few_scans(data: bytes) -> None:
    """Raise ImageError for a JPEG that was made to be slow."""
    if data.startswith(b"\xff\xd8"):
        scans = data.count(START_OF_SCAN)  # inside compressed data 0xFF is followed by 0
        if scans > MAX_SCANS:
            raise ImageError(FailureReason.TOO_MANY_SCANS, f"{scans} scans; the limit is {MAX_SCANS}")


def _require_end_marker(data: bytes) -> None:
    """Raise ImageError for a JPEG 2000 stream without its end marker: OpenJPEG decodes a truncated one as black.

    Packet data hold no byte above 0x8F after 0xFF (ISO 15444-1, B.10.1), so 0xFFD9 occurs only as the marker.
    """
    if data.find(b"\xff\xd9", data.find(b"\xff\x4f\xff\x51")) < 0:
        raise ImageError(FailureReason.TRUNCATED, "the JPEG 2000 stream has no end")


def _image_error(e: Exception, data: bytes) -> ImageError:
    """Return the reason behind what Pillow raised, with a one-line detail that is the same in every run."""
    text = " ".join(_ADDRESS.sub("data", str(e)).split())[:200]
    detail = f"{type(e).__name__}: {text}" if text else type(e).__name__
    if isinstance(e, MemoryError) or _OUT_OF_MEMORY.search(text):
        return ImageError(FailureReason.NO_MEMORY, "decoding ran out of memory")
    if isinstance(e, Image.DecompressionBombError):
        return ImageError(FailureReason.TOO_LARGE, text)
    if isinstance(e, PIL.UnidentifiedImageError):
        return _unidentified(data)
    if isinstance(e, EOFError) or _TRUNCATED.search(text):
        return ImageError(FailureReason.TRUNCATED, detail)
    return ImageError(FailureReason.TOO_LARGE if _TOO_BIG.search(text) else FailureReason.CORRUPT, detail)


def _unidentified(data: bytes) -> ImageError:
    """Return the reason why no plugin of Pillow accepted a file: another format, or a broken header."""
    if data.startswith(b"RIFF") and int.from_bytes(data[4:8], "little") + 8 > len(data):
        return ImageError(FailureReason.TRUNCATED, "the file ends before the size that its header gives")
    name = next((name for offset, magic, name in _SIGNATURES if data.startswith(magic, offset)), None)
    if name:
        return ImageError(
            FailureReason.CORRUPT, f"starts like a {name}, but its header is broken or of a kind that is not supported"
        )
    unknown = f"not an image, or of a format that Pillow {PIL.__version__} and the installed plug-ins do not decode"
    return ImageError(FailureReason.NOT_AN_IMAGE, describe_file(data) or unknown)
