"""Write the screenshots of the documentation: ``python -m tools.screenshots``; it needs Chromium and the built page.

``python -m tools.screenshots label clean`` writes these alone.

The page shows the folder of a picture, so the pictures are in one that could be anybody's, `/srv/pictures`, which must
not exist and is removed at the end.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import embedstore as es
from embedstore.quickstart.run import write_digits
from embedstore.quickstart.scenes.collection import write_manifest, write_scenes
from embedstore.temporary import temporary_folder

FOLDER = Path(__file__).parents[1] / "docs" / "images"
PICTURES = Path("/srv/pictures")
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--disable-background-networking", "--disable-sync"]
WIDE, NARROW = (1280, 800), (390, 844)
TIMEOUT_MS = 120_000
SETTLE_MS = 2500  # thumbnails arrive one by one
QUALITY = 78


def main() -> None:
    """Write the screenshots that are named, or every one."""
    FOLDER.mkdir(exist_ok=True)
    browser_path = shutil.which("chromium") or sys.exit("there is no Chromium: apt-get install chromium")
    with new_pictures() as images, temporary_folder() as folder, sync_playwright() as driver:
        write_all(make_store(images, folder), driver.chromium.launch(executable_path=browser_path, args=FLAGS))


def write_all(store: Path, browser: Browser) -> None:
    """Write every screenshot of a store."""
    with serving(store) as address:
        for name, steps, size, scheme in SHOTS:
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
            page.set_default_timeout(TIMEOUT_MS)
            page.goto(address)
            page.locator("nav button").first.wait_for()
            steps(page)
            page.wait_for_timeout(SETTLE_MS)
            with Image.open(io.BytesIO(page.screenshot())) as image:
                image.convert("RGB").save(FOLDER / f"page-{name}.webp", quality=QUALITY, method=6)
            page.close()
    browser.close()


@contextmanager
def new_pictures() -> Iterator[Path]:
    """Create the folder of the pictures, and remove it at the end."""
    PICTURES.mkdir()
    try:
        yield PICTURES
    finally:
        shutil.rmtree(PICTURES)


def make_store(images: Path, folder: Path) -> Path:
    """Return a store of drawn scenes and scanned digits, of which a third have no label."""
    rows = [*write_scenes(images / "scenes", 400), *write_digits(images / "digits", 30)]
    for row in rows:
        row["uri"] = str(Path(str(row["uri"])).relative_to(images))
    write_manifest(images / "collection.csv", rows)
    path = folder / "drawings.store"
    with es.create(path, "embedstore/tiny") as store:
        store.embed(images / "collection.csv")
        store.edit({"label": "NULL"}, where="item % 3 = 0")
    return path


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """Run ``embedstore serve`` and give its address."""
    command = [sys.executable, "-m", "embedstore", "serve", str(store), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().rpartition(" at ")[2]
        finally:
            process.kill()


def _mode(page: Page, name: str) -> None:
    """Choose a view."""
    page.get_by_role("navigation").get_by_role("button", name=name).click()


def look(page: Page) -> None:
    """Search by words, with an item open."""
    page.get_by_label("Search", exact=True).fill("a heart")
    page.keyboard.press("Enter")
    page.locator("[aria-label*=score]").first.wait_for()
    page.locator("#cell-0").click()
    page.get_by_test_id("neighbours").wait_for()


def select(page: Page) -> None:
    """Select a few items."""
    page.locator("#cell-0 img").wait_for()
    for place in (0, 1, 2, 4):
        page.locator(f"#cell-{place} .tick").click()


def draw(page: Page) -> None:
    """Show the map by a column."""
    _mode(page, "Map")
    page.locator("[data-testid=map][data-drawn=true]").wait_for()
    page.get_by_label("Colour by").select_option("kind")
    page.get_by_label("Zoom in").click()


def label(page: Page) -> None:
    """Give a few labels."""
    _mode(page, "Label")
    page.locator(".strip img").first.wait_for()
    page.keyboard.type("121")
    page.locator(".strip button .done").nth(2).wait_for()


def clean(page: Page) -> None:
    """Show the queue of label errors."""
    _mode(page, "Clean")
    page.get_by_test_id("clean-mode").get_by_role("button", name="Label errors").click()
    page.get_by_test_id("reason").wait_for()


def judge(page: Page) -> None:
    """Show a report of the scans."""
    box = page.get_by_label("Filter", exact=True)
    box.fill("kind = 'scan'")
    box.press("Enter")
    _mode(page, "Judge")
    page.get_by_label("Split the figures by").select_option("split")
    page.get_by_test_id("judge-mode").get_by_role("button", name="Judge", exact=True).click()
    page.get_by_test_id("figures").wait_for()


SHOTS: tuple[tuple[str, Callable[[Page], Any], tuple[int, int], Any], ...] = (
    ("look", look, WIDE, "light"),
    ("narrow", select, NARROW, "light"),
    ("map", draw, WIDE, "dark"),
    ("judge", judge, WIDE, "light"),
    ("label", label, WIDE, "light"),
    ("clean", clean, WIDE, "dark"),
)

if __name__ == "__main__":
    main()
