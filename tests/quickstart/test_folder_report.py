"""From a labeled folder to a report in one call."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from embedstore.errors import BadOption
from embedstore.quickstart.folder_report import folder_report


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve small pictures of each of two classes."""
    rng = np.random.default_rng(0)
    for label, shade in (("dark", 40), ("light", 200)):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for n in range(12):
            pixels = (shade + rng.integers(0, 40, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("name", [".", "dark/.."])
def test_the_store_is_next_to_the_folder_however_it_is_named(photos, monkeypatch, name):
    """Names without a last part, such as the current folder, stand for the folder that they lead to."""
    monkeypatch.chdir(photos)
    report = folder_report(Path(name), photos.parent / "r.html", backbone="embedstore/tiny", device="cpu")
    assert report.store.path == photos.with_name("photos.store")
    assert report.store.sql("SELECT count(*) FROM items").rows[0] == (24,)
    assert (photos.parent / "r.html").exists()


def test_a_folder_without_one_above_needs_the_name_of_a_store(tmp_path):
    """The root of the file system has nothing next to it."""
    with pytest.raises(BadOption, match="--store"):
        folder_report(Path("/"), tmp_path / "r.html", backbone="embedstore/tiny")
