"""The screenshots of the documents are made from the page as it is."""

import sys

import pytest
from PIL import Image

from tests.conftest import ROOT
from tools import screenshots


@pytest.mark.slow
def test_every_screenshot_of_the_documents_can_be_made(browser, tmp_path, monkeypatch):
    """Each has the size of its screen, and is one that the documents have."""
    if screenshots.PICTURES.exists():
        pytest.skip(f"{screenshots.PICTURES} exists")
    monkeypatch.setattr(screenshots, "FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["screenshots"])
    with screenshots.new_pictures() as pictures:
        screenshots.write_all(screenshots.make_store(pictures, tmp_path), browser)
    for name, _, size, _ in screenshots.SHOTS:
        with Image.open(tmp_path / f"page-{name}.webp") as image:
            assert image.size == size
        assert (ROOT / "docs" / "images" / f"page-{name}.webp").is_file()
