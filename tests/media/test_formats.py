"""Formats that other libraries decode: HEIF, camera RAW, and those of plug-ins."""

import contextlib
import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.media.image import decode
from embedstore.media.image.formats import registry
from embedstore.media.image.formats.heif import is_heif
from embedstore.media.image.formats.raw import MIN_PREVIEW_PIXELS, is_raw
from embedstore.types import ContentInfo, FailureReason
from tests.helpers.dng import dng
from tests.helpers.image_files import BLUE, RED, decode_error, decode_failure, encode

pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed (extra heic)")
rawpy = pytest.importorskip("rawpy", reason="rawpy is not installed (extra raw)")


def two_halves(width: int, height: int) -> Image.Image:
    """Return an image with a red left half and a blue right half."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def heif(image: Image.Image, **options) -> bytes:
    """Return an image as a HEIF file in the best quality."""
    out = io.BytesIO()
    pillow_heif.from_pillow(image).save(out, quality=-1, **options)
    return out.getvalue()


def near(pixel: tuple[int, ...], color: tuple[int, ...]) -> bool:
    """Return whether a pixel that went through lossy coding still has the color."""
    return max(abs(a - b) for a, b in zip(pixel, color, strict=True)) < 12


# ---- HEIF


def test_a_heif_file_decodes_to_its_pixels():
    """Every pixel is within the loss of the coding, and the format is recorded."""
    image, facts = decode.open_image(heif(two_halves(64, 32)))
    assert facts == ContentInfo(64, 32, "HEIF")
    assert near(image.getpixel((5, 5)), RED)
    assert near(image.getpixel((60, 5)), BLUE)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_rotation_of_a_heif_file_is_applied_once(orientation):
    """A photo that phones store on its side decodes like the same photo as JPEG."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = orientation
    lying = two_halves(64, 32)
    lying.paste((255, 255, 255), (0, 0, 16, 16))
    jpeg, _ = decode.open_image(encode(lying, "JPEG", quality=100, subsampling=0, exif=exif))
    image, facts = decode.open_image(heif(lying, exif=exif.tobytes()))
    assert (facts.width, facts.height) == jpeg.size
    assert np.abs(np.asarray(image, np.int16) - np.asarray(jpeg, np.int16)).mean() < 6


def test_transparency_of_a_heif_file_is_over_white():
    """A transparent HEIF decodes like a transparent PNG."""
    image, _ = decode.open_image(heif(Image.new("RGBA", (32, 32), (255, 0, 0, 0))))
    assert near(image.getpixel((16, 16)), (255, 255, 255))


@pytest.mark.parametrize("keep", [20, 200, 0.5, 0.9])
def test_a_cut_heif_file_is_a_failure(keep):
    """Half a file is not a gray picture: it has a reason."""
    data = heif(two_halves(640, 320))
    cut = data[: int(keep * len(data)) if keep < 1 else keep]
    assert decode_failure(cut) in (FailureReason.TRUNCATED, FailureReason.CORRUPT)


def over_white(image: Image.Image) -> np.ndarray:
    """Return 8-bit RGB of an image that pillow-heif decoded; what is transparent is over white."""
    if image.mode == "I;16":
        return np.repeat(np.asarray(image)[:, :, None] // 257, 3, axis=2).astype(np.int16)
    white = Image.new("RGBA", image.size, "white")
    white.alpha_composite(image.convert("RGBA"))
    return np.asarray(white.convert("RGB"), np.int16)


def test_every_file_of_the_conformance_sets_decodes_as_pillow_heif_does(unpacked):
    """What pillow-heif decodes has its pixels, upright; every other file has a reason."""
    folders = [unpacked("heic").parent, *map(Path, os.environ.get("EMBEDSTORE_HEIF_FILES", "").split(os.pathsep))]
    files = {p for folder in folders if folder.name for p in folder.rglob("*") if p.is_file() and p.stat().st_size}
    decoded = 0
    for path in sorted(p for p in files if p.suffix.lower() in {".heic", ".heif", ".hif"} and p.stem != "200MP"):
        data = path.read_bytes()
        try:
            expected = over_white(pillow_heif.open_heif(data).to_pillow())
        except Exception:  # pillow-heif raises ValueError, SyntaxError, EOFError ...
            assert decode_error(data).reason is not FailureReason.MISSING_EXTRA, path
            continue
        image, facts = decode.open_image(data)
        assert facts.format == "HEIF"
        assert np.abs(np.asarray(image, np.int16) - expected).mean() < 1, path
        decoded += 1
    assert decoded >= 30


def test_avif_stays_with_pillow():
    """AVIF shares the container and the generic brands with HEIF; Pillow decodes it itself."""
    data = encode(two_halves(64, 32), "AVIF")
    assert not is_heif(data)
    assert decode.open_image(data)[1].format == "AVIF"


# ---- camera RAW


def preview_of(width: int, height: int) -> bytes:
    """Return a JPEG with a red left half and a blue right half."""
    return encode(two_halves(width, height), "JPEG", quality=95)


def test_a_raw_file_decodes_to_its_preview():
    """The preview that the camera embedded is the image, not the small first image of the file."""
    image, facts = decode.open_image(dng(preview_of(640, 480), preview_size=(640, 480)))
    assert facts == ContentInfo(640, 480, "RAW")
    assert near(image.getpixel((100, 100)), RED)


@pytest.mark.parametrize(("orientation", "top_left"), [(1, RED), (3, BLUE), (6, RED), (8, BLUE)])
def test_a_preview_is_turned_upright(orientation, top_left):
    """The orientation of the RAW file holds for a preview without one: 6 means that row 0 is the right side."""
    image, facts = decode.open_image(dng(preview_of(640, 480), preview_size=(640, 480), orientation=orientation))
    assert (facts.width, facts.height) == ((640, 480) if orientation in (1, 3) else (480, 640))
    assert near(image.getpixel((20, 20)), top_left)


@pytest.mark.parametrize("preview", [None, preview_of(64, 48)])
def test_a_raw_file_without_a_real_preview_is_developed_in_half_size(preview):
    """A thumbnail of 64 pixels is no picture of a camera."""
    _, facts = decode.open_image(dng(preview, preview_size=(64, 48), side=600))
    assert facts == ContentInfo(300, 300, "RAW")


@pytest.mark.parametrize(
    "start",
    [
        b"FUJIFILMCCD-RAW 0201",
        b"II\x1a\0\0\0HEAPCCDR",
        b"\0MRM\0\0\x0a\0\0PRD",
        b"\x0070.1 .reV\0",
        b"II*\0\x08\x0a\0\0IIIICwaR",
        b"MM\0*\0\0\0\x08MMMMRawT",
        b"\0\0\0\x18ftypcrx \0\0\0\0",
        b"II*\0\x10\0\0\0CR\x02\0",
        b"IIU\0\x18\0\0\0",
        b"IIRO\x08\0\0\0",
        b"FOVb\x02\0\x02\0",
    ],
)
def test_each_maker_is_known_by_its_signature(start):
    """The first bytes of files of Fujifilm, Canon, Minolta, Kyocera, Phase One, Panasonic, Olympus and Sigma."""
    assert is_raw(start + b"\0" * 64)
    assert decode_failure(start + b"\0" * 64) is not FailureReason.NOT_AN_IMAGE


def test_every_raw_file_given_is_its_preview_or_is_developed():
    """What LibRaw opens and reads is an image as wide as LibRaw's; any other file has a reason."""
    folders = [Path(f) for f in os.environ.get("EMBEDSTORE_RAW_FILES", "").split(os.pathsep) if f]
    if not folders:
        pytest.skip("EMBEDSTORE_RAW_FILES names no folder of camera RAW files")
    for path in (p for folder in folders for p in folder.rglob("*") if p.is_file() and is_raw(p.read_bytes())):
        data = path.read_bytes()
        size = size_by_libraw(path)
        if size is None:
            assert decode_failure(data) is FailureReason.CORRUPT, path
        else:
            _, facts = decode.open_image(data)
            assert (facts.format, {facts.width, facts.height}) == ("RAW", set(size)), path


def size_by_libraw(path: Path) -> tuple[int, int] | None:
    """Return width and height of the preview, or of the developed file in half size; None if LibRaw reads neither."""
    try:
        with rawpy.imread(str(path)) as raw:
            with contextlib.suppress(rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
                thumbnail = raw.extract_thumb()
                is_jpeg = thumbnail.format is rawpy.ThumbFormat.JPEG
                width, height = Image.open(io.BytesIO(thumbnail.data)).size if is_jpeg else thumbnail.data.shape[1::-1]
                if width * height >= MIN_PREVIEW_PIXELS:
                    return width, height
            return raw.postprocess(half_size=True).shape[1::-1]
    except rawpy.LibRawError:
        return None


def test_an_ordinary_tiff_is_no_raw_file():
    """TIFF files start like RAW files and stay with Pillow."""
    for options in ({}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}):
        data = encode(two_halves(64, 32), "TIFF", **options)
        assert not is_raw(data)
        assert decode.open_image(data)[1].format == "TIFF"


@pytest.mark.parametrize("length", [9, 12, 60, 8300])
def test_a_cut_raw_file_is_a_failure(length):
    """A header alone, or half the pixels, is a failure with a reason."""
    assert decode_failure(dng(None, side=128)[:length]) is not FailureReason.MISSING_EXTRA


def test_a_loop_of_directories_ends():
    """A TIFF whose directory follows itself is read once."""
    data = b"II*\0\x08\0\0\0" + b"\0\0" + (8).to_bytes(4, "little")
    assert not is_raw(data)


# ---- plug-ins

PLUG_IN = """
    import io
    from PIL import Image
    from embedstore.media.image.formats.image_format import ImageFormat

    SHAPES = ImageFormat(
        name="SHAPES",
        matches=lambda data: data.startswith(b"SHAPES"),
        open=lambda data: Image.new("L", (data[6], data[7])),
        package={package!r}, install={package!r}, max_pixels=10_000,
    )
"""


def run_with_plug_in(tmp_path, entry_point: str, code: str, *, package: str = "pillow") -> str:
    """Install a plug-in package in a folder, run code that can import it, and return what it prints."""
    (tmp_path / "shapes.py").write_text(textwrap.dedent(PLUG_IN.format(package=package)))
    info = tmp_path / "shapes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shapes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\nshapes = {entry_point}\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + textwrap.dedent(code)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return run.stdout.strip()


DECODE = """
    from embedstore.errors import EmbedstoreError
    from embedstore.media.image.decode import open_image
    try:
        print(open_image(b"SHAPES" + bytes([30, 20]))[1])
    except EmbedstoreError as e:
        print(type(e).__name__, getattr(e, "reason", ""), e)
"""


def test_a_plug_in_adds_a_format(tmp_path):
    """An installed package with an entry point decodes files that Pillow does not know."""
    assert run_with_plug_in(tmp_path, "shapes:SHAPES", DECODE) == str(ContentInfo(30, 20, "SHAPES"))


def test_a_format_without_its_package_names_the_package(tmp_path):
    """The reason is one of its own, so that the files are counted apart, and the detail is the command to run."""
    output = run_with_plug_in(tmp_path, "shapes:SHAPES", DECODE, package="no-such-package-here")
    assert output.startswith("ImageError missing_extra")
    assert "pip install 'no-such-package-here'" in output


@pytest.mark.parametrize("entry_point", ["shapes:NOT_THERE", "no_such_module:SHAPES", "shapes:io"])
def test_a_broken_plug_in_is_named(tmp_path, entry_point):
    """A plug-in that cannot be loaded is an error of ours, never a format that is silently missing."""
    output = run_with_plug_in(tmp_path, entry_point, DECODE)
    assert output.startswith("PluginError")
    assert "shapes" in output


def test_the_decoder_version_names_every_installed_package(tmp_path):
    """Failures are tried again when Pillow or a package of a format changes, or one is added."""
    import PIL

    version = registry.decoder_version()
    assert version.startswith(f"pillow-{PIL.__version__}+")
    assert f"pillow-heif-{pillow_heif.__version__}" in version
    code = "from embedstore.media.image.formats.registry import decoder_version; print(decoder_version())"
    with_plug_in = run_with_plug_in(tmp_path, "shapes:SHAPES", code, package="numpy")
    assert with_plug_in == f"pillow-{PIL.__version__}+numpy-{np.__version__}" + version.removeprefix(
        f"pillow-{PIL.__version__}"
    )
