"""The network's input has the same bytes as the transform of the network's library."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from embedstore.errors import ImageError
from embedstore.media.image.decode import open_image
from embedstore.media.image.preprocess import MAX_RESIZED_PIXELS, resize_and_crop, resize_dimensions
from embedstore.space import Interpolation, Preprocess, ResizeMode
from embedstore.types import FailureReason

HALF = (0.5, 0.5, 0.5)
SIZES = [
    (1, 1),
    (1, 37),
    (37, 1),
    (50, 50),
    (33, 97),
    (97, 33),
    (31, 500),
    (500, 31),
    (224, 224),
    (223, 225),
    (301, 200),
]


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return random pixels: a filter or a crop that is off by one shows at once."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def preprocess(size, resize, mode="shortest", interpolation="bicubic", fill=0) -> Preprocess:
    """Return a preprocessing from plain values."""
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    return Preprocess(
        size=pair(size),
        resize=pair(resize),
        mean=HALF,
        std=HALF,
        mode=ResizeMode(mode),
        interpolation=Interpolation(interpolation),
        fill=fill,
    )


def timm_pixels(image, size, crop_pct, interpolation, crop_mode):
    """Return the result of timm's evaluation transform, before scaling and normalizing."""
    from timm.data import create_transform

    shape = size if isinstance(size, tuple) else (size, size)
    transform = create_transform(
        (3, *shape), is_training=False, crop_pct=crop_pct, interpolation=interpolation, crop_mode=crop_mode,
        mean=HALF, normalize=False,
    )  # fmt: skip
    return transform(image).numpy()


def open_clip_pixels(image, size, mode, interpolation, fill=0):
    """Return the result of open_clip's evaluation transform, before ToTensor."""
    from open_clip import image_transform

    transform = image_transform(
        size, is_train=False, mean=HALF, std=HALF, resize_mode=mode, interpolation=interpolation, fill_color=fill
    )
    for step in transform.transforms[:-2]:
        image = step(image)
    return np.asarray(image).transpose(2, 0, 1)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("crop_mode", "mode"), [("center", "shortest"), ("squash", "squash"), ("border", "longest")])
def test_pixels_equal_the_transform_of_timm(crop_mode, mode, interpolation):
    """Byte by byte, for odd sizes, crop ratios and filters; border mode fills with the mean, 0.5 being 128."""
    for (width, height), (size, pct) in itertools.product(SIZES, [(32, 1.0), (32, 0.875), (31, 0.9), (40, 0.95)]):
        image = noise(width, height)
        scaled = math.floor(size / pct)
        p = preprocess(size, scaled, mode, interpolation, fill=128 if mode == "longest" else 0)
        if min(round(v * scaled / max(width, height)) for v in (width, height)) == 0 and mode == "longest":
            continue  # timm itself fails on these; see the strip tests
        want = timm_pixels(image, size, pct, interpolation, crop_mode)
        np.testing.assert_array_equal(resize_and_crop(image, p), want, err_msg=f"{width}x{height} to {size} at {pct}")


def test_pixels_equal_timm_for_an_oblong_input():
    """A network with a 32 × 48 input resizes by ratio and rounds to even, as timm does for such sizes."""
    for width, height in SIZES:
        image = noise(width, height)
        p = preprocess((32, 48), (36, 54), "shortest", "bilinear")
        want = timm_pixels(image, (32, 48), 32 / 36.5, "bilinear", "center")
        np.testing.assert_array_equal(resize_and_crop(image, p), want, err_msg=f"{width}x{height}")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_pixels_equal_the_transform_of_open_clip(mode, interpolation):
    """Byte by byte for its three resize modes, padding included."""
    for (width, height), size, fill in itertools.product(SIZES, [16, 33, 64], [0, 77]):
        if mode == "longest" and min(round(v * size / max(width, height)) for v in (width, height)) == 0:
            continue  # open_clip itself fails on these
        image = noise(width, height)
        want = open_clip_pixels(image, size, mode, interpolation, fill)
        got = resize_and_crop(image, preprocess(size, size, mode, interpolation, fill))
        np.testing.assert_array_equal(got, want, err_msg=f"{width}x{height} to {size}")


def test_a_crop_larger_than_the_resized_image_is_padded_with_black():
    """A crop of 40 from an image resized to 32 has four black pixels on every side, as in torchvision."""
    from torchvision.transforms import CenterCrop

    image = noise(32, 32)
    got = resize_and_crop(image, preprocess(40, 32, fill=200))
    np.testing.assert_array_equal(got, np.asarray(CenterCrop(40)(image)).transpose(2, 0, 1))
    assert got[:, :4].max() == 0
    np.testing.assert_array_equal(got[:, 4:36, 4:36], np.asarray(image).transpose(2, 0, 1))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 70), st.floats(0.5, 1.0), st.sampled_from(ResizeMode))
def test_any_size_equals_the_stages_of_torchvision(width, height, size, pct, mode):
    """Whatever the sizes, resize and crop agree with the libraries' stages where these do not fail."""
    scaled = math.floor(size / pct)
    crop_mode = {"shortest": "center", "squash": "squash", "longest": "border"}[mode.value]
    image = noise(width, height, seed=width)
    p = preprocess(size, scaled, mode.value, "bicubic", fill=128 if mode is ResizeMode.LONGEST else 0)
    got = resize_and_crop(image, p)
    assert got.shape == (3, size, size)
    if mode is not ResizeMode.LONGEST or min(round(v * scaled / max(width, height)) for v in (width, height)):
        np.testing.assert_array_equal(got, timm_pixels(image, size, pct, "bicubic", crop_mode))


def test_real_photos_equal_both_libraries(unpacked):
    """Forty real photos agree at the sizes of real networks."""
    photos = sorted(unpacked("imagenet250").rglob("*.JPEG"))[::25] + sorted(unpacked("hymenoptera").rglob("*.jpg"))[::8]
    for path in photos:
        image, _ = open_image(path.read_bytes())
        with Image.open(path) as opened:
            plain = opened.convert("RGB")
        np.testing.assert_array_equal(
            resize_and_crop(image, preprocess(224, 256)),
            timm_pixels(plain, 224, 0.875, "bicubic", "center"),
            err_msg=path.name,
        )
        np.testing.assert_array_equal(
            resize_and_crop(image, preprocess(224, 224)),
            open_clip_pixels(plain, 224, "shortest", "bicubic"),
            err_msg=path.name,
        )


def test_the_result_is_contiguous_uint8_channels_first():
    """One red pixel becomes three planes: 255, 0, 0."""
    got = resize_and_crop(Image.new("RGB", (1, 1), (255, 0, 0)), preprocess(2, 2))
    assert got.dtype == np.uint8
    assert got.flags.c_contiguous
    assert got.tolist() == [[[255, 255], [255, 255]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]


def test_a_thin_strip_keeps_one_pixel():
    """1000 × 1 with a longer side of 10 would be 10 × 0; it is 10 × 1, in the middle of the padding."""
    got = resize_and_crop(Image.new("RGB", (1000, 1), (9, 9, 9)), preprocess(10, 10, "longest", fill=200))
    assert got[0, :, 0].tolist() == [200] * 4 + [9] + [200] * 5


@pytest.mark.parametrize("wide", [True, False])
def test_a_very_long_strip_is_resized_in_bounded_memory(wide):
    """Above the limit only the middle is resized; the crop differs from the exact one by two levels at most."""
    p = preprocess(64, 64)
    ramp = np.linspace(0, 255, 9001).astype(np.uint8)
    pixels = np.repeat(ramp[None, :, None], 3, axis=2)
    image = Image.fromarray(pixels if wide else pixels.transpose(1, 0, 2))
    width, height = resize_dimensions(image.width, image.height, p)
    assert width * height > MAX_RESIZED_PIXELS
    whole = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - 64) / 2), round((height - 64) / 2)
    want = np.asarray(whole.crop((left, top, left + 64, top + 64))).transpose(2, 0, 1).astype(int)
    assert np.abs(resize_and_crop(image, p) - want).max() <= 2


def test_a_strip_of_a_million_to_one_is_resized():
    """Resizing it by its shorter side would need 150 GB."""
    got = resize_and_crop(Image.new("RGB", (1_000_000, 1), (1, 2, 3)), preprocess(224, 256))
    assert got.shape == (3, 224, 224)
    assert [int(c.min()) for c in got] == [int(c.max()) for c in got] == [1, 2, 3]


def test_running_out_of_memory_is_a_failure_of_the_image():
    """A size that Pillow cannot allocate fails one image and does not end the run."""
    with pytest.raises(ImageError) as e:
        resize_and_crop(noise(10, 10), preprocess((600_000_000, 1), (600_000_000, 1), "squash"))
    assert e.value.reason is FailureReason.NO_MEMORY
