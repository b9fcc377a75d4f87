"""A real `embed` in another process, and the page meanwhile."""

import io
import os
import re
import subprocess
import sys

import numpy as np
from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import ROOT, count_text
from tests.browser.test_look import ITEMS

PHOTOS = 300  # of 2,400 x 1,800 pixels: several seconds for any machine


def write_photos(folder) -> None:
    """Write large photos in little time: the same pixels, with a number behind the end of each file."""
    data = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((2400, 1800)).save(data, "JPEG")
    folder.mkdir()
    for n in range(PHOTOS):
        (folder / f"{n}.jpg").write_bytes(data.getvalue() + str(n).encode())


def test_the_page_follows_an_embed_of_another_process(writer, visits, tmp_path):
    """The progress has its number and total, a search answers while it runs, and all items are there at its end."""
    write_photos(tmp_path / "photos")
    page = visits.open(writer)
    expect(page.get_by_test_id("count")).to_have_text(f"{ITEMS} of {ITEMS} items")
    command = [sys.executable, "-m", "embedstore", "embed", str(writer.store), str(tmp_path / "photos")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment) as process:
        try:
            status = page.locator("p.status")
            expect(status).to_contain_text(f"(process {process.pid}) writes to this store")
            expect(status).to_contain_text(re.compile(rf"[1-9]\d* of {PHOTOS} read"))
            assert page.get_by_label("Another process is at work").get_attribute("max") == str(PHOTOS)
            page.get_by_label("Search", exact=True).fill("a red heart")
            page.keyboard.press("Enter")
            expect(page.get_by_test_id("count")).to_contain_text("hit")
            assert process.poll() is None  # it still runs
            page.get_by_label("Clear the search").click()
            assert process.wait(300) == 0, process.stderr.read()
        finally:
            process.kill()
    expect(status).to_be_hidden()
    expect(page.get_by_test_id("count")).to_have_text(f"{ITEMS + PHOTOS} of {ITEMS + PHOTOS} items")
    assert count_text(page).startswith(str(ITEMS + PHOTOS))
