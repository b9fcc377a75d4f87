"""A real browser, a real server, and a small store with the bundled network, which understands words."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.quickstart.run import write_digits
from embedstore.quickstart.scenes.collection import write_manifest, write_scenes
from tests.conftest import ROOT

TIMEOUT_MS = 60_000  # for a machine with much else to do
SCENES, DIGITS_PER_CLASS = 120, 12
STATIC = ROOT / "embedstore" / "server" / "static"
# without a sandbox (root in a container), without a graphics card, and without requests of its own
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Attributes:
        address: of the page, with the token.
        store: the folder of its store.
        process: the process.
    """

    address: str
    store: Path
    process: subprocess.Popen


@contextmanager
def serving(store: Path, *options: str) -> Iterator[Server]:
    """Run ``embedstore serve`` on a free port until the block ends."""
    command = [sys.executable, "-m", "embedstore", "serve", str(store), "--port", "0", "--no-open", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            assert " at http://" in line, line + process.stdout.read()
            yield Server(line.strip().rpartition(" at ")[2], store, process)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    if not (STATIC / "index.html").is_file():
        pytest.skip("the page is not built: python hatch_build.py")
    playwright.expect.set_options(timeout=TIMEOUT_MS)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def scene_store(tmp_path_factory) -> Path:
    """Drawn scenes and scanned digits; treat it as read-only, or copy it."""
    folder = tmp_path_factory.mktemp("page")
    images = folder / "images"
    rows = [*write_scenes(images / "scenes", SCENES), *write_digits(images / "digits", DIGITS_PER_CLASS)]
    for row in rows:
        row["uri"] = str(Path(str(row["uri"])).relative_to(images))
    write_manifest(images / "collection.csv", rows)
    path = folder / "scenes.store"
    store = es.create(path, "embedstore/tiny")
    store.embed(images / "collection.csv")
    store.close()
    return path


@pytest.fixture(scope="session")
def reader(scene_store, browser) -> Iterator[Server]:
    """A server for tests that change nothing."""
    with serving(scene_store) as server:
        yield server


@pytest.fixture(scope="session")
def charted(reader) -> Server:
    """The server whose map is computed already: on a busy machine that takes longer than a browser waits."""
    address, _, token = reader.address.partition("/#token=")
    request = Request(f"{address}/api/v1/map", headers={"Authorization": f"Bearer {token}"})
    with urlopen(request, timeout=240) as answer:
        assert answer.read(8) == b"ESMAP001"
    return reader


@pytest.fixture
def own_store(scene_store, tmp_path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(scene_store, tmp_path / "own.store"))


@pytest.fixture
def writer(own_store, browser) -> Iterator[Server]:
    """A server for one test, which may change its store."""
    with serving(own_store) as server:
        yield server


class Visits:
    """Opens pages, and finds out what must never happen on one: a script error, or a request to another machine.

    Args:
        browser: the browser.
    """

    def __init__(self, browser) -> None:
        self._browser = browser
        self._contexts = []
        self.problems: list[str] = []

    def open(self, server: Server, fragment: str = "", **options):
        """Open the page in a window of its own."""
        context = self._browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        self._contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        context.on("request", self._check)
        page = context.new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._listen)
        page.goto(server.address + (f"&{fragment}" if fragment else ""))
        return page

    def _check(self, request) -> None:
        host = urlsplit(request.url).hostname
        if host not in (None, "127.0.0.1", "localhost") and not request.url.startswith(("data:", "blob:")):
            self.problems.append(f"a request to {request.url}")

    def _listen(self, message) -> None:
        if "Content Security Policy" in message.text:
            self.problems.append(message.text)

    def close(self) -> None:
        """Close every window."""
        for context in self._contexts:
            context.close()


@pytest.fixture
def visits(browser) -> Iterator[Visits]:
    """Windows of this test; it fails if a page had an error or made a request that it must not."""
    visits = Visits(browser)
    yield visits
    visits.close()
    assert visits.problems == []


@pytest.fixture
def page(reader, visits):
    """The page of the shared store, with its first items."""
    page = visits.open(reader)
    page.locator("[role=option] img").first.wait_for()
    return page


def count_text(page) -> str:
    """Return how many items the page says it shows."""
    return page.get_by_test_id("count").inner_text()


def store_rows(path: Path, query: str) -> list[tuple]:
    """Return rows of a store as another process reads them."""
    with es.open(path) as store:
        return [tuple(row) for row in store.sql(query).rows]


def expect_rows(path: Path, query: str, rows: list[tuple]) -> None:
    """Wait until another process reads these rows: the page shows a decision before the server has it."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while (found := store_rows(path, query)) != rows and time.monotonic() < deadline:
        time.sleep(0.1)
    assert found == rows


def image_bytes(seed: int = 0) -> bytes:
    """Return a small PNG."""
    pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
