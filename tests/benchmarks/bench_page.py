"""Seconds of the page in a real browser on a store of a million items: ``python -m tests.benchmarks.bench_page``.

The store is made of imported vectors, so no network and no image is needed; ``--store PATH`` uses one that exists.
``embedstore serve`` runs in a process of its own. A time is that of the browser: from the action to the moment when the
items that belong to it are in the document, or, for the map, until the first drawn frame. Each is measured after a
restart of the server (cold) and once more (warm), with the processor time that the server and the main thread of the
page took for it, which depends little on what else the machine does. The memory is that of the server after each tenth
of the requests of `tests.server.requests`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from embedstore.temporary import temporary_folder
from tests.benchmarks.bench_server import make_store
from tests.browser.conftest import FLAGS, Server, serving
from tests.server.requests import memory_over_requests

TARGETS = {"first page": 1.0, "scroll to the middle": 1.0, "filter": 0.5, "map": 2.0}  # seconds
TIMEOUT_MS = 600_000
FILTER = "year >= 2015 and label <> 'c3'"

# resolves with the seconds since `begin` when a condition holds in a frame
_UNTIL = """(begin, holds) => new Promise(resolve => {
    const look = () => holds() ? resolve((performance.now() - begin) / 1000) : requestAnimationFrame(look);
    look();
})"""
_FIRST = """() => (UNTIL)(0, () => document.querySelector('[role=option]:not([aria-label=loading])'))"""
_SCROLL = """() => {
    const grid = document.querySelector('[data-testid=grid]');
    const total = Number(document.querySelector('[role=option]').getAttribute('aria-setsize'));
    const begin = performance.now();
    grid.scrollTop = grid.scrollHeight / 2;
    return (UNTIL)(begin, () => {
        const cells = [...document.querySelectorAll('[role=option]')];
        const places = cells.map(cell => Number(cell.getAttribute('aria-posinset')));
        return Math.min(...places) > total / 3 && cells.every(cell => cell.getAttribute('aria-label') !== 'loading');
    });
}"""
_FILTER = """filter => {
    const count = () => document.querySelector('[data-testid=count]').textContent;
    const before = count();
    const box = document.querySelector('[aria-label=Filter]');
    box.value = filter;
    box.dispatchEvent(new Event('input', { bubbles: true }));
    const begin = performance.now();
    box.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
    box.form?.requestSubmit();
    return (UNTIL)(begin, () => count() !== before);
}"""
_MAP = """() => {
    const begin = performance.now();
    [...document.querySelectorAll('nav button')].find(button => button.textContent === 'Map').click();
    return (UNTIL)(begin, () => document.querySelector('[data-testid=map][data-drawn=true]'));
}"""


def in_browser(page: Page, script: str, *arguments: str) -> float:
    """Return the seconds that a script measures in the page."""
    found: float = page.evaluate(script.replace("UNTIL", _UNTIL), *arguments)
    return round(found, 3)


@contextmanager
def opened(browser: Browser) -> Iterator[Page]:
    """Open a window without a cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    yield page
    context.close()


class Stopwatch:
    """Measures what a person waits for on one page, and what the processors do meanwhile.

    Args:
        page: the page.
        server: its server.
    """

    def __init__(self, page: Page, server: Server) -> None:
        self._page = page
        self._server = server
        self._protocol = page.context.new_cdp_session(page)
        self._protocol.send("Performance.enable", {"timeDomain": "threadTicks"})

    def measure(self, action: Callable[[], float]) -> dict[str, float]:
        """Return the seconds of an action: of the wall, of the server's processor, and of the page's main thread."""
        server, page = self._server_seconds(), self._page_seconds()
        wall = action()
        # a navigation begins at zero
        passed = self._page_seconds()
        return {
            "wall": wall,
            "server": round(self._server_seconds() - server, 2),
            "page": round(passed - page if passed > page else passed, 2),
        }

    def _server_seconds(self) -> float:
        """Return the processor time of the server."""
        fields = Path(f"/proc/{self._server.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def _page_seconds(self) -> float:
        """Return the time of the tasks of the page's main thread."""
        metrics = self._protocol.send("Performance.getMetrics")["metrics"]
        return float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def times(browser: Browser, server: Server) -> dict[str, dict[str, float]]:
    """Return the seconds of each thing that a person does."""
    with opened(browser) as page:
        watch = Stopwatch(page, server)

        def first() -> float:
            page.goto(server.address, wait_until="commit")
            return in_browser(page, _FIRST)

        return {
            "first page": watch.measure(first),
            "scroll to the middle": watch.measure(lambda: in_browser(page, _SCROLL)),
            "filter": watch.measure(lambda: in_browser(page, _FILTER, FILTER)),
            "map": watch.measure(lambda: in_browser(page, _MAP)),
        }


def client_of(server: Server) -> httpx.Client:
    """Return a client with the token."""
    address, _, token = server.address.partition("/#token=")
    return httpx.Client(base_url=f"{address}/api/v1", headers={"authorization": f"Bearer {token}"}, timeout=600)


def seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds of some work."""
    begin = time.perf_counter()
    work()
    return round(time.perf_counter() - begin, 2)


def measure(store: Path, requests: int) -> dict[str, Any]:
    """Return all figures of a store."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS)
        with serving(store) as server, client_of(server) as client:  # the places are kept from then on
            places = seconds_of(lambda: client.get("/map").raise_for_status())
            times(browser, server)  # the first page of a Chromium takes a second of its own
        with serving(store) as server, client_of(server) as client:
            cold, warm = times(browser, server), times(browser, server)
            memory = memory_over_requests(client, server.process.pid, requests)
        browser.close()
    return {"cold": cold, "warm": warm, "places of the map": places, "memory": [n >> 20 for n in memory]}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a table."""
    lines = [
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores",
        "",
        "| s | cold | warm | goal | processor, cold: server | page | warm: server | page |",
        "|-|-|-|-|-|-|-|-|",
    ]
    for name, goal in TARGETS.items():
        cold, warm = figures["cold"][name], figures["warm"][name]
        spent = " | ".join(f"{run[part]:.2f}" for run in (cold, warm) for part in ("server", "page"))
        lines.append(f"| {name} | {cold['wall']:.2f} | {warm['wall']:.2f} | {goal:.1f} | {spent} |")
    sizes = ", ".join(str(size) for size in figures["memory"])
    lines += ["", f"places of the map, computed once: {figures['places of the map']:.0f} s"]
    return "\n".join([*lines, f"memory of the server after each tenth of the requests, MB: {sizes}"])


def main() -> None:
    """Make the store, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000, help="items of the store")
    parser.add_argument("--requests", type=int, default=10_000, help="requests of the measurement of memory")
    parser.add_argument("--store", type=Path, help="a store that is there, with the columns label and year")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    wanted = parser.parse_args()
    with nullcontext(None) if wanted.store else temporary_folder() as folder:
        store = wanted.store
        if store is None:
            with make_store(folder, wanted.items) as made:
                store = made.path
        figures = measure(store, wanted.requests)
    print(json.dumps(figures, indent=1) if wanted.json else table(figures))


if __name__ == "__main__":
    main()
