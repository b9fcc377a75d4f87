"""The finest detail of two thumbnails tells copies from other pictures of one outline."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from embedstore.media.image.gray_thumbnails import gray_thumbnail
from embedstore.search.picture_detail import SAME_DETAIL, detail_scores
from embedstore.search.picture_match import MATCH, crop_matches, local_contrast, whole_matches
from embedstore.search.pixel_limit import SAME_PICTURE
from tests.helpers.natural_images import natural_image, saved_again

COUNT = 40


def shape(outline, texture, side=64):
    """Return a dark shape on a bright ground: its rough outline by one seed, all that is finer by another."""
    rng = np.random.default_rng(1000 + texture)
    height = _field(np.random.default_rng(outline), side, 10) + 0.25 * _field(rng, side, 4)
    height -= 40 * ((np.mgrid[:side, :side] / side - 0.5) ** 2).sum(axis=0)
    levels = np.where(height > np.quantile(height, 0.75), 80, 200) + 8 * _field(rng, side, 1.5)
    return Image.fromarray(levels.clip(0, 255).astype(np.uint8)).convert("RGB")


def _field(rng, side, width):
    """Return smooth noise with a spread of 1."""
    field = gaussian_filter(rng.standard_normal((side, side)), width)
    return field / field.std()


def scores(one, others, match=None):
    """Return the scores of the match and of the detail of pairs of images."""
    thumbnails = np.stack([gray_thumbnail(image) for image in [*one, *others]])
    a, b = np.arange(len(one)), np.arange(len(one)) + len(one)
    matches = crop_matches(thumbnails, a, b) if match == "crop" else whole_matches(local_contrast(thumbnails), a, b)
    return matches["score"], detail_scores(thumbnails, a, b, matches)


def test_pictures_of_one_outline_differ_in_detail():
    """Forty pairs of shapes with one rough outline match, and none has the same detail."""
    match, detail = scores([shape(n, n) for n in range(COUNT)], [shape(n, n + COUNT) for n in range(COUNT)])
    assert match.min() >= SAME_PICTURE
    assert detail.max() < SAME_DETAIL


def test_copies_of_shapes_have_the_same_detail():
    """Shapes that were scaled, brightened and saved again have it."""
    images = [shape(n, n) for n in range(COUNT)]
    copies = [saved_again(ImageEnhance.Brightness(image.resize((48, 48))).enhance(0.9), 75) for image in images]
    match, detail = scores(images, copies)
    assert match.min() >= SAME_PICTURE
    assert detail.min() >= SAME_DETAIL


@pytest.mark.parametrize(("part", "match"), [(0.97, None), (0.93, None), (0.85, "crop"), (0.72, "crop")])
def test_parts_are_laid_over_the_whole(part, match):
    """Parts between the pixels of a thumbnail have the detail of the whole, mirrored and in another contrast."""
    images = [natural_image(seed) for seed in range(COUNT)]
    side = images[0].width
    boxes = [(x, y, x + part * side, y + part * side) for x, y in np.random.default_rng(0).random((COUNT, 2)) * 3]
    parts = [
        image.resize((side, side), Image.Resampling.BICUBIC, box) for image, box in zip(images, boxes, strict=True)
    ]
    copies = [ImageEnhance.Contrast(p).enhance(0.8).transpose(Image.Transpose.FLIP_LEFT_RIGHT) for p in parts]
    assert scores(images, copies, match)[1].min() > 0.85
    assert scores(copies, images, match)[1].min() > 0.85


def test_nothing_in_a_picture_is_no_detail():
    """White and gray images have the score 0 with each other and with a photo, and no warning is raised."""
    thumbnails = np.stack(
        [np.full((32, 32), 255, np.uint8), np.full((32, 32), 80, np.uint8), np.eye(32, dtype=np.uint8)]
    )
    a, b = np.array([0, 0, 1]), np.array([1, 2, 2])
    matches = np.zeros(3, MATCH)
    matches["side"] = 32
    with np.errstate(all="raise"):
        found = detail_scores(thumbnails, a, b, matches)
    assert found.tolist() == [0, 0, 0]
