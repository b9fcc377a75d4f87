"""Contact sheets show the images of items, whatever the names of their files."""

import base64
import io
import os
import re

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.reports.contact_sheet import contact_sheet_png, figure_html
from embedstore.types import Hit
from tests.conftest import TINY

RED = (255, 0, 0)


@pytest.fixture
def hits(tmp_path):
    """A search over one red image whose file name is not UTF-8."""
    folder, data = tmp_path / "photos", io.BytesIO()
    folder.mkdir()
    Image.new("RGB", (20, 20), RED).save(data, "PNG")
    try:
        (folder / os.fsdecode(b"caf\xe9.png")).write_bytes(data.getvalue())
    except OSError:
        pytest.skip("this file system has UTF-8 names only")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(folder)
    return store.search(1)


def first_pixel(image):
    return np.asarray(image.convert("RGB"))[image.height // 2, image.width // 2]


def test_a_file_whose_name_is_not_utf8_is_shown(hits, tmp_path):
    """The page, the notebook fragment and the PNG show the image, not the gray tile of an unreadable file."""
    for page in (hits.html(), hits._repr_html_()):
        jpeg = base64.b64decode(re.search(r"base64,([^\"]+)", page).group(1))
        assert np.abs(first_pixel(Image.open(io.BytesIO(jpeg))).astype(int) - RED).max() < 10
    hits.png(tmp_path / "new" / "sheet.png")
    sheet = Image.open(tmp_path / "new" / "sheet.png")
    assert tuple(np.asarray(sheet)[8 + 90, 8 + 90]) == RED


def test_an_image_that_is_gone_is_a_gray_tile(hits, tmp_path):
    """A file that was removed after it was embedded does not fail the page."""
    for file in (tmp_path / "photos").iterdir():
        file.unlink()
    jpeg = base64.b64decode(re.search(r"base64,([^\"]+)", hits.html()).group(1))
    assert np.abs(first_pixel(Image.open(io.BytesIO(jpeg))).astype(int) - 225).max() < 5


def test_an_item_without_a_score_shows_none():
    """What is suggested because it is typical has no confidence, and the page states none."""
    typical, unsure = (Hit(1, score, 1, "/a.png", None, None) for score in (float("nan"), 0.5))
    assert "<code>" not in figure_html(typical, None)
    assert "<code>0.500</code>" in figure_html(unsure, None)
    sheets = [contact_sheet_png([hit], lambda items: iter([None] * len(items)), columns=1) for hit in (typical, unsure)]
    dark = [(np.asarray(Image.open(io.BytesIO(sheet))) < 99).all(-1).sum() for sheet in sheets]
    assert 0 < 3 * dark[0] < dark[1]  # the rank alone
