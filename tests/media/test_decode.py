"""From bytes to an upright RGB image as a person sees it."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from embedstore.media.image import decode
from embedstore.types import ContentInfo
from tests.helpers.image_files import BLACK, BLUE, GREEN, RED, WHITE, decoded_pixels, encode, png, tiff

# ---- facts


def test_width_and_height_are_those_of_the_upright_image():
    """A 40 × 20 JPEG that is stored on its side is 20 wide and 40 high."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = 6
    image, facts = decode.open_image(encode(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert facts == ContentInfo(20, 40, "JPEG")
    assert image.size == (20, 40)


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
def test_every_orientation_is_turned_upright(orientation, form):
    """All eight EXIF orientations are turned, in every lossless format that has EXIF."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = orientation
    lying = Image.fromarray(np.array(LYING[orientation], dtype=np.uint8))
    assert decoded_pixels(encode(lying, form, exif=exif, **({"lossless": True} if form == "WEBP" else {}))) == UPRIGHT


def test_one_photo_in_nine_orientations_decodes_to_one_image(unpacked):
    """The nine files agree within the losses of JPEG."""
    folder = unpacked("nasty") / "exif_orientation"
    pictures = [
        np.asarray(decode.open_image((folder / f"Landscape_{n}.jpg").read_bytes())[0], dtype=np.int16) for n in range(9)
    ]
    for other in pictures[1:]:
        assert other.shape == (1200, 1800, 3)
        assert np.abs(other - pictures[0]).mean() < 8


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_unknown_orientation_is_ignored(orientation):
    """Values outside 1 to 8 do not turn the image."""
    exif = Image.Exif()
    exif[decode.ORIENTATION_TAG] = orientation
    assert decoded_pixels(encode(Image.fromarray(np.array(UPRIGHT, dtype=np.uint8)), exif=exif)) == UPRIGHT


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"\0"]
)
def test_broken_exif_is_ignored(exif):
    """The image decodes as it is stored."""
    assert decode.open_image(encode(Image.new("RGB", (3, 2), RED), "JPEG", exif=b"Exif\0\0" + exif))[1] == ContentInfo(
        3, 2, "JPEG"
    )


# ---- color


def test_gray_and_palette_images_become_rgb():
    """Modes 1, L and P with known values give the RGB values worked out by hand."""
    assert decoded_pixels(encode(Image.fromarray(np.array([[0, 7, 255]], dtype=np.uint8)))) == [
        [BLACK, (7, 7, 7), WHITE]
    ]
    assert decoded_pixels(encode(Image.fromarray(np.array([[True, False]])))) == [[WHITE, BLACK]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *BLUE])
    palette.putdata([0, 1])
    assert decoded_pixels(encode(palette)) == [[RED, BLUE]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_composed_over_white(mode):
    """Alpha 0 is white whatever color it hides, 255 is the color, and 51 of 255 is a fifth of black."""
    gray = Image.new(mode, (3, 1))
    color = (10, 20, 30) if mode == "RGBA" else (10,)
    for x, alpha in enumerate((0, 255, 51)):
        gray.putpixel((x, 0), (*((0,) * len(color) if alpha == 51 else color), alpha))
    seen = (10, 20, 30) if mode == "RGBA" else (10, 10, 10)
    assert decoded_pixels(encode(gray)) == [[WHITE, seen, (204, 204, 204)]]


def test_a_transparent_palette_entry_is_white():
    """This holds for PNG's tRNS with a byte per color, GIF's single transparent index, and Pillow's mode PA."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    assert decoded_pixels(encode(image, "PNG", transparency=bytes([0, 255]))) == [[WHITE, BLUE]]
    assert decoded_pixels(encode(image, "GIF", transparency=1)) == [[RED, WHITE]]
    pa = image.convert("PA")
    pa.putalpha(0)
    assert np.asarray(decode.to_rgb_image(pa)).tolist() == [[list(WHITE), list(WHITE)]]


def test_a_transparent_color_is_white_at_every_bit_depth():
    """tRNS of gray with 1, 2, 4, 8 and 16 bits and of RGB with 8 and 16 bits: two pixels each, worked out by hand."""
    key = lambda *v: (b"tRNS", struct.pack(f">{len(v)}H", *v))  # noqa: E731
    assert decoded_pixels(png(2, 1, 1, 0, b"\0\x40", key(0))) == [[WHITE, WHITE]]
    assert decoded_pixels(png(2, 1, 1, 0, b"\0\x40", key(1))) == [[BLACK, WHITE]]
    assert decoded_pixels(png(2, 1, 2, 0, b"\0\x60", key(1))) == [[WHITE, (170, 170, 170)]]
    assert decoded_pixels(png(2, 1, 4, 0, b"\0\x12", key(2))) == [[(17, 17, 17), WHITE]]
    assert decoded_pixels(png(2, 1, 8, 0, b"\0\x05\x11", key(5))) == [[WHITE, (17, 17, 17)]]
    assert decoded_pixels(png(2, 1, 16, 0, b"\0\x00\x00\x80\x80", key(0))) == [[WHITE, (128, 128, 128)]]
    assert decoded_pixels(png(2, 1, 8, 2, b"\0" + bytes([1, 2, 3, 1, 2, 4]), key(1, 2, 3))) == [[WHITE, (1, 2, 4)]]
    deep = struct.pack(">6H", 0x0102, 0x0304, 0x0506, 0x1102, 0x0304, 0x0506)
    assert decoded_pixels(png(2, 1, 16, 2, b"\0" + deep, key(0x0102, 0x0304, 0x0506))) == [[WHITE, (0x11, 3, 5)]]


def test_sixteen_bit_gray_is_scaled_and_not_saturated():
    """0, 256, 32768 and 65535 become 0, 1, 128 and 255, in PNG and in TIFF of either byte order."""
    values = [0, 256, 32768, 65535]
    want = [[(v, v, v) for v in (0, 1, 128, 255)]]
    assert decoded_pixels(png(4, 1, 16, 0, b"\0" + struct.pack(">4H", *values))) == want
    assert decoded_pixels(tiff(struct.pack("<4H", *values), 4, 16, 1)) == want
    big = Image.fromarray(np.array([values], dtype=">u2"))
    assert big.mode == "I;16B"
    assert np.asarray(decode.to_rgb_image(big))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_tiff_with_photometric_zero_is_inverted():
    """A 16-bit TIFF with photometric 0 is a negative."""
    assert [p[0] for p in decoded_pixels(tiff(struct.pack("<3H", 0, 32768, 65535), 3, 16, 0))[0]] == [255, 127, 0]


def test_thirty_two_bit_gray_is_scaled_by_its_range():
    """Values up to 255 are 8 bits, up to 65535 16 bits; others are stretched."""
    gray = lambda *v: [p[0] for p in decoded_pixels(tiff(struct.pack(f"<{len(v)}i", *v), len(v), 32, 1, 2))[0]]  # noqa: E731
    assert gray(0, 7, 255) == [0, 7, 255]
    assert gray(0, 32768, 65535) == [0, 128, 255]
    assert gray(-100, 0, 100) == [0, 128, 255]
    assert gray(0, 1_000_000_000, 2_000_000_000) == [0, 128, 255]


def test_floats_are_scaled_by_their_range_and_nan_is_black():
    """0..1 is black to white; any other range is stretched; infinities are black and white."""
    gray = lambda *v: [p[0] for p in decoded_pixels(tiff(struct.pack(f"<{len(v)}f", *v), len(v), 32, 1, 3))[0]]  # noqa: E731
    nan, inf = float("nan"), float("inf")
    assert gray(0.0, 0.5, 1.0) == [0, 128, 255]
    assert gray(0.0, 0.25) == [0, 64]
    assert gray(-5.0, 0.0, 5.0) == [0, 128, 255]
    assert gray(0.0, 0.5, nan, 1.0) == [0, 128, 0, 255]
    assert gray(10.0, 20.0, inf, -inf, nan) == [0, 255, 255, 0, 0]
    assert gray(nan, nan) == [0, 0]
    assert gray(7.0, 7.0) == [0, 0]


def test_cmyk_is_decoded_with_and_without_adobes_inversion():
    """A TIFF stores ink directly and Pillow's JPEG writer inverts it as Adobe does: both give the same color."""
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # magenta and yellow: red
    assert decoded_pixels(encode(ink, "TIFF"))[0][0] == RED
    red = decoded_pixels(encode(ink, "JPEG", quality=100))[0][0]
    assert np.abs(np.subtract(red, RED)).max() <= 3


def test_lab_hsv_and_ycbcr_are_converted():
    """Red in L*a*b*, in HSV and in YCbCr is red."""
    lab = ImageCms.profileToProfile(
        Image.new("RGB", (1, 1), RED), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert (
        np.abs(np.subtract(decoded_pixels(encode(lab, "TIFF"))[0][0], RED)).max() <= 5
    )  # 8 bits of L, a and b are coarse
    assert decode.to_rgb_image(Image.new("HSV", (1, 1), (0, 255, 255))).getpixel((0, 0)) == RED
    red = decode.to_rgb_image(Image.new("RGB", (1, 1), RED).convert("YCbCr")).getpixel((0, 0))
    assert np.abs(np.subtract(red, RED)).max() <= 2


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation_is_used(form):
    """This holds for animated GIF, WebP and PNG, and for a TIFF of several pages."""
    frames = [Image.new("RGB", (4, 4), c) for c in (RED, GREEN, BLUE)]
    options = {"lossless": True} if form == "WEBP" else {}
    data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert decoded_pixels(data)[0][0] == RED


def test_ordinary_photos_decode_as_pillow_converts_them(unpacked):
    """For upright, opaque 8-bit files, nothing differs from ``Image.open(path).convert("RGB")``."""
    for path in sorted(unpacked("imagenet250").rglob("*.JPEG"))[::10]:
        with Image.open(path) as opened:
            want = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(np.asarray(decode.open_image(path.read_bytes())[0]), want)
