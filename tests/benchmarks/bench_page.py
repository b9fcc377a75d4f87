"""Seconds of the page in a real browser on a store of a million items: ``python -m tests.benchmarks.bench_page``.

The store is made of imported vectors, so no network and no image is needed; ``--store PATH`` uses one that exists.
``embedstore serve`` runs in a process of its own. A time is that of the browser: from the action to the moment when the
items that belong to it are in the document, or, for the map, until the first drawn frame. Each is measured after a
restart of the server (cold) and once more (warm). The memory is that of the server after a tenth of the requests of
`tests.server.requests`, and after all of them.
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
def opened(browser: Browser, server: Server) -> Iterator[Page]:
    """Open the page in a window without a cache."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    page.goto(server.address, wait_until="commit")
    yield page
    context.close()


def times(browser: Browser, server: Server) -> dict[str, float]:
    """Return the seconds of each thing that a person does."""
    with opened(browser, server) as page:
        found = {"first page": in_browser(page, _FIRST)}
        found["scroll to the middle"] = in_browser(page, _SCROLL)
        found["filter"] = in_browser(page, _FILTER, FILTER)
        found["map"] = in_browser(page, _MAP)
    return found


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
        with serving(store) as server, client_of(server) as client:
            cold, warm = times(browser, server), times(browser, server)
            memory = memory_over_requests(client, server.process.pid, requests)
        browser.close()
    return {"cold": cold, "warm": warm, "places of the map": places, "memory": [n >> 20 for n in memory]}


def table(figures: dict[str, Any]) -> str:
    """Return the figures as a table."""
    lines = [f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", "", "| s | cold | warm | goal |", "|-|-|-|-|"]
    for name, goal in TARGETS.items():
        lines.append(f"| {name} | {figures['cold'][name]:.2f} | {figures['warm'][name]:.2f} | {goal:.1f} |")
    early, late = figures["memory"]
    lines += ["", f"places of the map, computed once: {figures['places of the map']:.0f} s"]
    return "\n".join([*lines, f"memory of the server after a tenth of the requests: {early} MB, after all: {late} MB"])


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
