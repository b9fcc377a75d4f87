"""Bytes to an upright RGB picture as a person sees it, or one reason why not."""

import csv
import io
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile

from embedstore import decode
from embedstore.errors import ImageError
from embedstore.records import Picture, Reason

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


def failure(data: bytes | str | Path) -> ImageError:
    """The error that opening raises."""
    with pytest.raises(ImageError) as e:
        decode.open_image(data)
    assert "\n" not in e.value.detail
    assert " at 0x" not in e.value.detail
    return e.value


def reason(data: bytes | str | Path) -> Reason:
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


# ---- facts


def test_the_facts_are_those_of_the_upright_image():
    """A 40 × 20 JPEG that lies on its side is 20 wide and 40 high."""
    exif = Image.Exif()
    exif[decode.ORIENTATION] = 6
    image, facts = decode.open_image(stored(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert facts == Picture(20, 40, "JPEG")
    assert image.size == (20, 40)


def test_the_decoder_names_its_version():
    """Failures are tried again when Pillow changes."""
    import PIL

    assert f"pillow-{PIL.__version__}" == decode.DECODER


def test_bytes_paths_and_strings_open_alike(tmp_path):
    """What is read from disk equals what is given as bytes; an opened image is finished the same way."""
    data = stored(Image.linear_gradient("L").convert("RGB"))
    path = tmp_path / "a.png"
    path.write_bytes(data)
    want = np.asarray(Image.linear_gradient("L").convert("RGB"))
    for given_ in (data, path, str(path)):
        np.testing.assert_array_equal(np.asarray(decode.open_image(given_)[0]), want)
        np.testing.assert_array_equal(np.asarray(decode.as_image(given_)), want)
    np.testing.assert_array_equal(np.asarray(decode.as_image(Image.open(path))), want)


# ---- orientation

# Corners of a 3 × 2 picture, row by row, once upright: red at the upper left, green right, blue below, white.
UPRIGHT = [[RED, BLACK, GREEN], [BLUE, BLACK, WHITE]]
# What is stored for each orientation, worked out from the table of Exif 2.3: 6 means that row 0 is the right side.
LYING = {
    1: UPRIGHT,
    2: [[GREEN, BLACK, RED], [WHITE, BLACK, BLUE]],
    3: [[WHITE, BLACK, BLUE], [GREEN, BLACK, RED]],
    4: [[BLUE, BLACK, WHITE], [RED, BLACK, GREEN]],
    5: [[RED, BLUE], [BLACK, BLACK], [GREEN, WHITE]],
    6: [[GREEN, WHITE], [BLACK, BLACK], [RED, BLUE]],
    7: [[WHITE, GREEN], [BLACK, BLACK], [BLUE, RED]],
    8: [[BLUE, RED], [BLACK, BLACK], [WHITE, GREEN]],
}


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_comes_upright(orientation, form):
    """All eight EXIF orientations, in every lossless format that carries EXIF."""
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    lying = Image.fromarray(np.array(LYING[orientation], dtype=np.uint8))
    assert pixels(stored(lying, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))) == UPRIGHT


def test_the_exif_sample_photos_agree_with_each_other(unpacked):
    """One photo stored in nine orientations decodes to one picture, within JPEG's losses."""
    folder = unpacked("nasty") / "exif_orientation"
    pictures = [np.asarray(decode.open_image(folder / f"Landscape_{n}.jpg")[0], dtype=np.int16) for n in range(9)]
    for other in pictures[1:]:
        assert other.shape == (1200, 1800, 3)
        assert np.abs(other - pictures[0]).mean() < 8


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation):
    """Values outside 1 to 8 turn nothing."""
    exif = Image.Exif()
    exif[decode.ORIENTATION] = orientation
    assert pixels(stored(Image.fromarray(np.array(UPRIGHT, dtype=np.uint8)), exif=exif)) == UPRIGHT


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0"]
)
def test_broken_exif_does_not_cost_the_picture(exif):
    """The picture opens as it is stored."""
    assert decode.open_image(stored(Image.new("RGB", (3, 2), RED), "JPEG", exif=b"Exif\0\0" + exif))[1] == Picture(
        3, 2, "JPEG"
    )


# ---- colour


def test_greys_and_bits_become_equal_channels():
    """Modes 1, L and P of known values."""
    assert pixels(stored(Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8)))) == [[BLACK, (7, 7, 7), WHITE]]
    assert pixels(stored(Image.fromarray(np.array([[True, False]])))) == [[WHITE, BLACK]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putdata([0, 1])
    assert pixels(stored(palette)) == [[RED, BLUE]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white_and_hides_what_is_below(mode):
    """Alpha 0 is white whatever colour it hides; 255 is the colour; 51 of 255 is a fifth of black."""
    grey = Image.new(mode, (3, 1))
    colour = (10, 20, 30) if mode == "RGBA" else (10,)
    for x, alpha in enumerate((0, 255, 51)):
        grey.putpixel((x, 0), (*((0,) * len(colour) if alpha == 51 else colour), alpha))
    seen = (10, 20, 30) if mode == "RGBA" else (10, 10, 10)
    assert pixels(stored(grey)) == [[WHITE, seen, (204, 204, 204)]]


def test_a_transparent_palette_entry_is_white():
    """PNG's tRNS with one byte a colour, GIF's one transparent index, and Pillow's PA."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    assert pixels(stored(image, "PNG", transparency=bytes([0, 255]))) == [[WHITE, BLUE]]
    assert pixels(stored(image, "GIF", transparency=1)) == [[RED, WHITE]]
    pa = image.convert("PA")
    pa.putalpha(0)
    assert np.asarray(decode.as_image(pa)).tolist() == [[list(WHITE), list(WHITE)]]


def test_a_transparent_colour_is_white_at_every_bit_depth():
    """tRNS of greys of 1, 2, 4, 8 and 16 bits and of RGB of 8 and 16: by hand, two pixels each."""
    key = lambda *v: (b"tRNS", struct.pack(f">{len(v)}H", *v))  # noqa: E731
    assert pixels(png(2, 1, 1, 0, b"\0\x40", key(0))) == [[WHITE, WHITE]]
    assert pixels(png(2, 1, 1, 0, b"\0\x40", key(1))) == [[BLACK, WHITE]]
    assert pixels(png(2, 1, 2, 0, b"\0\x60", key(1))) == [[WHITE, (170, 170, 170)]]
    assert pixels(png(2, 1, 4, 0, b"\0\x12", key(2))) == [[(17, 17, 17), WHITE]]
    assert pixels(png(2, 1, 8, 0, b"\0\x05\x11", key(5))) == [[WHITE, (17, 17, 17)]]
    assert pixels(png(2, 1, 16, 0, b"\0\x00\x00\x80\x80", key(0))) == [[WHITE, (128, 128, 128)]]
    assert pixels(png(2, 1, 8, 2, b"\0" + bytes([1, 2, 3, 1, 2, 4]), key(1, 2, 3))) == [[WHITE, (1, 2, 4)]]
    deep = struct.pack(">6H", 0x0102, 0x0304, 0x0506, 0x1102, 0x0304, 0x0506)
    assert pixels(png(2, 1, 16, 2, b"\0" + deep, key(0x0102, 0x0304, 0x0506))) == [[WHITE, (0x11, 3, 5)]]


def test_sixteen_bit_greys_are_scaled_and_not_saturated():
    """0, 256, 32768, 65535 are 0, 1, 128, 255, in PNG and in TIFF of either byte order."""
    values = [0, 256, 32768, 65535]
    want = [[(v, v, v) for v in (0, 1, 128, 255)]]
    assert pixels(png(4, 1, 16, 0, b"\0" + struct.pack(">4H", *values))) == want
    assert pixels(tiff(struct.pack("<4H", *values), 4, 16, 1)) == want
    big = Image.fromarray(np.array([values], dtype=">u2"))
    assert big.mode == "I;16B"
    assert np.asarray(decode.as_image(big))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_white_is_zero_where_a_tiff_says_so():
    """A 16-bit TIFF with photometric 0 is a negative."""
    assert [p[0] for p in pixels(tiff(struct.pack("<3H", 0, 32768, 65535), 3, 16, 0))[0]] == [255, 127, 0]


def test_thirty_two_bit_greys_are_read_by_their_range():
    """Up to 255 as 8 bits, up to 65535 as 16, beyond it or below zero stretched."""
    grey = lambda *v: [p[0] for p in pixels(tiff(struct.pack(f"<{len(v)}i", *v), len(v), 32, 1, 2))[0]]  # noqa: E731
    assert grey(0, 7, 255) == [0, 7, 255]
    assert grey(0, 32768, 65535) == [0, 128, 255]
    assert grey(-100, 0, 100) == [0, 128, 255]
    assert grey(0, 1_000_000_000, 2_000_000_000) == [0, 128, 255]


def test_floats_are_read_by_their_range_and_nan_is_black():
    """0..1 is black to white; any other range is stretched; NaN is black; infinities are the ends."""
    grey = lambda *v: [p[0] for p in pixels(tiff(struct.pack(f"<{len(v)}f", *v), len(v), 32, 1, 3))[0]]  # noqa: E731
    nan, inf = float("nan"), float("inf")
    assert grey(0.0, 0.5, 1.0) == [0, 128, 255]
    assert grey(0.0, 0.25) == [0, 64]
    assert grey(-5.0, 0.0, 5.0) == [0, 128, 255]
    assert grey(0.0, 0.5, nan, 1.0) == [0, 128, 0, 255]
    assert grey(10.0, 20.0, inf, -inf, nan) == [0, 255, 255, 0, 0]
    assert grey(nan, nan) == [0, 0]
    assert grey(7.0, 7.0) == [0, 0]


def test_cmyk_is_read_whether_adobe_inverted_it_or_not():
    """A TIFF stores ink as it is, Pillow's JPEG writer inverts as Adobe does: both give the colour meant."""
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow: red
    assert pixels(stored(ink, "TIFF"))[0][0] == RED
    red = pixels(stored(ink, "JPEG", quality=100))[0][0]
    assert np.abs(np.subtract(red, RED)).max() <= 3


def test_lab_hsv_and_ycbcr_become_the_colour_they_mean():
    """A red in L*a*b*, in HSV and in YCbCr."""
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), RED), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert np.abs(np.subtract(pixels(stored(lab, "TIFF"))[0][0], RED)).max() <= 5  # 8 bits of L, a and b are coarse
    assert decode.as_image(Image.new("HSV", (1, 1), (0, 255, 255))).getpixel((0, 0)) == RED
    red = decode.as_image(Image.new("RGB", (1, 1), RED).convert("YCbCr")).getpixel((0, 0))
    assert np.abs(np.subtract(red, RED)).max() <= 2


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_the_picture(form):
    """Animated GIF, WebP and PNG, and a TIFF of pages."""
    frames = [Image.new("RGB", (4, 4), c) for c in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = stored(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert pixels(data)[0][0] == RED


def test_rgb_is_exactly_what_the_libraries_own_loading_gives(unpacked):
    """For upright, opaque 8-bit files, nothing differs from ``Image.open(path).convert("RGB")``."""
    for path in sorted(unpacked("imagenet250").rglob("*.JPEG"))[::10]:
        with Image.open(path) as opened:
            want = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(decode.open_image(path)[0]), want)


# ---- failures


def test_no_bytes_and_no_image_are_told_apart():
    """Nothing, text, and a header without a body."""
    assert reason(b"") is Reason.EMPTY
    assert reason(b"hello\n") is Reason.NOT_AN_IMAGE
    assert reason(b"\xff\xd8\xff nonsense") is Reason.CORRUPT


def test_postscript_is_not_run():
    """EPS would be handed to Ghostscript; here it is refused by name."""
    e = failure(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert e.reason is Reason.NOT_AN_IMAGE
    assert "PostScript" in e.detail


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_whole_or_a_failure_and_never_half_a_picture(form):
    """Grey or black rows in place of what is missing would be embedded in silence."""
    data = stored(NOISE, form, **FORMATS[form])
    whole = pixels(data)
    for cut in range(1, len(data), 1 + len(data) // 150):
        try:
            got = pixels(data[:cut])
        except ImageError:
            continue
        assert got == whole, cut  # only what follows the picture was cut off


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
def test_a_cut_file_is_called_truncated(form):
    """The common formats say so."""
    rng = np.random.default_rng(0)
    data = stored(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), form)
    assert reason(data[: len(data) // 2]) is Reason.TRUNCATED


def test_a_truncated_file_fails_even_where_a_script_allowed_them(monkeypatch):
    """Pillow's global switch for grey rows is off while embedstore decodes."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = stored(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    assert reason(data[: len(data) // 2]) is Reason.TRUNCATED


def test_a_decompression_bomb_is_refused_before_it_is_decoded():
    """50,000 × 50,000 pixels in a few bytes: no time, no memory."""
    begin = time.perf_counter()
    e = failure(png(50_000, 50_000, 8, 2, b"\0" * 1000))
    assert e.reason is Reason.TOO_LARGE
    assert time.perf_counter() - begin < 1


def test_the_pixel_limit_is_pillows():
    """One pixel more than the limit is refused by its header; Pillow's own limit is the same number."""
    assert decode.MAX_PIXELS == 2 * (1024 * 1024 * 1024 // 4 // 3)
    assert reason(png(decode.MAX_PIXELS + 1, 1, 1, 0, b"\0")) is Reason.TOO_LARGE
    assert reason(png(13_377, 13_379, 1, 0, b"\0")) is Reason.TOO_LARGE  # 178,970,883 pixels


def test_a_jpeg_of_500_scans_is_refused_at_once_and_one_of_20_is_read():
    """Counting the scans costs nothing; decoding 500 of them costs minutes for a large picture."""
    begin = time.perf_counter()
    e = failure(many_scans(500))
    assert e.reason is Reason.TOO_MANY_SCANS
    assert "500" in e.detail
    assert time.perf_counter() - begin < 0.5
    assert decode.open_image(many_scans(20))[1] == Picture(256, 256, "JPEG")


def test_a_zipped_text_bomb_in_a_png_is_refused():
    """100 MB of zeros as a comment are not unpacked."""
    bomb = b"Comment\0\0" + zlib.compress(b"\0" * 100_000_000)
    assert reason(png(1, 1, 8, 0, b"\0\0", (b"zTXt", bomb))) in (Reason.TOO_LARGE, Reason.CORRUPT)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_gives_a_picture_or_an_image_error(data):
    """Bytes changed, cut or inserted anywhere in a small file of any format: nothing else ever comes out."""
    original = data.draw(st.sampled_from(SMALL))
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(1, len(damaged)))]
    try:
        image, facts = decode.open_image(bytes(damaged))
    except ImageError as e:
        found = (e.reason in Reason, "\n" in e.detail)
    else:
        found = (image.mode == "RGB", image.size != (facts.width, facts.height))
    assert found == (True, False)


def _small() -> list[bytes]:
    """One small file of each format that Pillow writes."""
    image = Image.linear_gradient("L").resize((9, 7)).convert("RGB")
    return [stored(image, form, **options) for form, options in FORMATS.items()] + [stored(image, "TIFF")]


SMALL = _small()

# ---- reading


def test_a_file_is_read_whole(tmp_path):
    """Bytes equal bytes, also under a name that is not UTF-8."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.jpg")
    Path(path).write_bytes(b"abc" * 100_000)
    assert decode.read(path) == b"abc" * 100_000


def test_what_is_not_a_regular_file_is_refused_and_never_blocks(tmp_path):
    """A FIFO without a writer, a socket, a device, a folder, and links to them."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "socket"))
        for name in ("fifo", "link", "socket", "."):
            with pytest.raises(ImageError) as e:
                decode.read(str(tmp_path / name))
            assert e.value.reason is Reason.NOT_A_FILE
    with pytest.raises(ImageError) as e:
        decode.read("/dev/zero")
    assert e.value.reason is Reason.NOT_A_FILE
    assert "device" in e.value.detail


def test_what_is_not_there_is_missing(tmp_path):
    """No such name, a file taken for a folder, a link to itself, a dangling link, a name with a zero byte."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for name in ("nothing", "file/below", "self", "dangling", "a\0b"):
        with pytest.raises(ImageError) as e:
            decode.read(f"{tmp_path}/{name}")
        assert e.value.reason is Reason.MISSING, name


def test_an_empty_file_is_empty(tmp_path):
    """Zero bytes have their own reason."""
    (tmp_path / "a.jpg").touch()
    assert reason(tmp_path / "a.jpg") is Reason.EMPTY


def test_a_file_that_may_not_be_read_is_unreadable(ordinary):
    """Permission denied."""
    path = ordinary / "a.jpg"
    path.write_bytes(b"x")
    path.chmod(0)
    assert reason(path) is Reason.UNREADABLE


def test_a_sparse_file_of_a_terabyte_is_refused_without_reading_it(tmp_path):
    """Its size says enough."""
    path = tmp_path / "huge.jpg"
    with path.open("wb") as f:
        f.truncate(1 << 40)
    begin = time.perf_counter()
    assert reason(path) is Reason.TOO_LARGE
    assert time.perf_counter() - begin < 1


# ---- quiet

NOISY = """
import sys, warnings
from pathlib import Path
from embedstore import decode
from embedstore.errors import ImageError
for path in sys.argv[1:]:
    try:
        decode.open_image(path)
    except ImageError:
        pass
print("torch" in sys.modules)
"""


def test_nothing_reaches_the_terminal_and_torch_is_not_imported(unpacked):
    """Every TIFF and PNG of the nasty corpus, in a fresh process with all warnings on, writes nothing to stderr."""
    files = [str(p) for p in sorted(unpacked("nasty").rglob("*")) if p.suffix in (".tif", ".tiff", ".png", ".gif")]
    done = subprocess.run([sys.executable, "-W", "always", "-c", NOISY, *files], capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout == b"False\n"


def test_a_warning_made_an_error_does_not_cost_the_picture():
    """Under ``-W error`` a picture that Pillow reads with a warning is still read."""
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode.open_image(stored(palette, "PNG", transparency=b"\0"))[0].mode == "RGB"
        row = b"\0" + b"\xff" * 1250
        image, _ = decode.open_image(png(10_000, 9_000, 1, 0, row * 9_000))  # Pillow warns of 90 million pixels
    assert image.getpixel((9_999, 8_999)) == WHITE


def test_the_users_own_warnings_are_left_alone():
    """Outside a decode, and on another thread during one, Pillow and everybody else warn as ever."""
    heard: list[str] = []

    def warn() -> None:
        with warnings.catch_warnings(record=True) as log:
            warnings.simplefilter("always")
            warnings.warn("mine", UserWarning, stacklevel=1)
            heard.extend(str(w.message) for w in log)

    decode.open_image(SMALL[0])
    warn()
    from embedstore.decode.quiet import quiet

    with quiet():
        thread = threading.Thread(target=warn)
        thread.start()
        thread.join()
    assert heard == ["mine", "mine"]


def test_many_threads_decode_what_one_thread_decodes():
    """Sixteen threads over all small files, fifty times: the same pixels."""
    want = [np.asarray(decode.open_image(d)[0]) for d in SMALL]
    with ThreadPoolExecutor(16) as pool:
        for i, got in enumerate(
            pool.map(lambda n: np.asarray(decode.open_image(SMALL[n % len(SMALL)])[0]), range(800))
        ):
            np.testing.assert_array_equal(got, want[i % len(SMALL)])


# ---- the nasty corpus

# The manifest says that these open. It was made with a first read whose error was passed over; the data are broken:
# an iPhone's own PNG dialect, streams that end early, an animation without its frames' headers.
BROKEN_ALL_THE_SAME = {
    "pillow/broken_data_stream.png", "pillow/truncated_end_chunk.png", "pillow/apng/chunk_no_fctl.png",
    "pngsuite/iphone/iphone_basi0g01.png", "pngsuite/iphone/iphone_basi0g02.png", "pngsuite/iphone/iphone_basi3p02.png",
    "pngsuite/iphone/iphone_bgwn6a08.png", "pngsuite/iphone/iphone_bgyn6a16.png", "pngsuite/iphone/iphone_tbyn3p08.png",
    "pngsuite/iphone/iphone_z06n2c08.png",
}  # fmt: skip
# The manifest looked for a second frame, which these have not; the first is whole.
WHOLE_FIRST_FRAME = {
    "pillow/negative_layer_count.psd", "pillow/psd-oob-write-overflow.psd", "pillow/psd-oob-write-x.psd",
    "pillow/psd-oob-write-y.psd", "pillow/psd-oob-write.psd",
}  # fmt: skip


def test_every_file_of_the_nasty_corpus_opens_or_says_why_not(unpacked):
    """1,538 files of other libraries' test suites: RGB where the manifest says so, one reason where it does not."""
    folder = unpacked("nasty")
    with (folder / "MANIFEST.csv").open(newline="") as f:
        manifest = {row["path"]: row for row in csv.DictReader(f)}
    counts: Counter[str] = Counter()
    wrong = []
    begin = time.perf_counter()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        try:
            image, facts = decode.open_image(path)
            outcome = "picture" if (image.mode, image.size) == ("RGB", (facts.width, facts.height)) else "wrong"
        except ImageError as e:
            outcome = e.reason.value
        counts[outcome] += 1
        if name in manifest:
            opens = manifest[name]["rgb"] == "ok"
            wanted = (opens or name in WHOLE_FIRST_FRAME) and name not in BROKEN_ALL_THE_SAME
            if wanted != (outcome == "picture"):
                wrong.append((name, outcome))
    assert wrong == []
    assert counts.total() == 1538
    assert counts["picture"] == 1221
    assert set(counts) == {"picture", "not_an_image", "corrupt", "truncated", "too_large"}
    assert time.perf_counter() - begin < 120


def test_upright_sizes_of_the_nasty_corpus_are_the_manifests(unpacked):
    """Width and height are the manifest's, swapped for the orientations that turn by a quarter (but in a TIFF, whose
    size Pillow gives upright)."""
    folder = unpacked("nasty")
    checked = 0
    with (folder / "MANIFEST.csv").open(newline="") as f:
        for row in csv.DictReader(f):
            turned = row["orientation"].isdigit() and int(row["orientation"]) > 1
            if turned and row["rgb"] == "ok" and (folder / row["path"]).exists():
                width, height = int(row["width"]), int(row["height"])
                quarter = int(row["orientation"]) >= 5 and row["format"] != "TIFF"
                stands = (height, width) if quarter else (width, height)
                facts = decode.open_image(folder / row["path"])[1]
                assert (facts.width, facts.height) == stands, row["path"]
                checked += 1
    assert checked == 49
