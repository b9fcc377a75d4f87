"""Scans of text are told from everything else."""

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.media.image.quality import Fault, picture_facts
from embedstore.media.image.text_lines import TEXT_SHARE, text_share
from tests.helpers.natural_images import natural_image
from tests.helpers.text_pages import charted, checked, ruled, striped, text_page


def is_text(image):
    """Return whether an image is reported as a scan of text, and as nothing else but its shape."""
    return picture_facts(image).faults[:1] == (Fault.TEXT,)


def test_pages_are_found():
    """Of 25 pages with any size of letters, on any paper, a little askew, all are."""
    assert [seed for seed in range(1000, 1025) if not is_text(text_page(seed))] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_nearly_all_pages_are_found():
    """Of 400 pages at least 99% are: one in a hundred is missed at most."""
    found = sum(is_text(text_page(seed)) for seed in range(2000, 2400))
    print(found)
    assert found >= 396


@pytest.mark.parametrize("period", [6, 9, 14, 20, 33, 60, 120])
@pytest.mark.parametrize("pattern", [striped, checked, ruled])
def test_regular_patterns_are_no_text(pattern, period):
    """Stripes, chessboards and squared paper have lines of one height, but no strokes."""
    assert text_share(pattern(period)) < TEXT_SHARE


def test_charts_and_images_are_no_text():
    """Neither bars on white paper nor images with detail at every scale are."""
    images = [*map(charted, range(20)), *map(natural_image, range(20))]
    assert [n for n, image in enumerate(images) if text_share(image) >= TEXT_SHARE] == []


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 3), (7, 7)])
@pytest.mark.parametrize("level", [0, 255])
def test_images_of_next_to_nothing_are_no_text(size, level):
    """Any size is measured."""
    assert text_share(Image.new("RGB", size, (level,) * 3)) == 0


def test_photos_and_digits_are_no_text():
    """None of 240 photos and 100 scans of a digit is."""
    folder = os.environ.get("EMBEDSTORE_SHARED_DATA")
    if not folder:
        pytest.skip("EMBEDSTORE_SHARED_DATA is not set")
    shares = [text_share(i) for name in ("hymenoptera", "mnist_test") for i in _images(Path(folder) / f"{name}.tar")]
    assert len(shares) >= 200
    assert np.max(shares) < TEXT_SHARE


def _images(path):
    """Yield at most 120 images of an archive, from its whole length."""
    with tarfile.open(path) as archive:
        members = [m for m in archive.getmembers() if m.name.lower().endswith((".jpg", ".png"))]
        for member in members[:: max(1, len(members) // 120)]:
            yield Image.open(io.BytesIO(archive.extractfile(member).read())).convert("RGB")
