"""A cycle of requests to a server, and its memory while they are sent."""

import re
from pathlib import Path

import httpx


def resident(pid: int) -> int:
    """Return the anonymous memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"RssAnon:\s+(\d+)", status)[1]) * 1024


def memory_over_requests(client: httpx.Client, pid: int, count: int, samples: int = 10) -> list[int]:
    """Return the memory of a server in bytes after every part of some requests, the last of which ends with them."""
    sizes = []
    for n in range(count):
        ask(client, n)
        if (n + 1) % (count // samples) == 0:
            sizes.append(resident(pid))
    return sizes


def ask(client: httpx.Client, n: int) -> None:
    """Send one of a cycle of requests; filters and selections are new ones each time."""
    item = n % 12 + 1
    requests = (
        lambda: client.get("/items", params={"where": f"item <> {n}", "order": "label"}),
        lambda: client.post("/search", json={"item": item, "k": 5, "where": f"item > {n % 7}"}),
        lambda: client.post("/selections", json={"where": f"item <> {n}"}),
        lambda: client.get(f"/items/{item}/thumbnail", params={"size": 64}),
        lambda: client.get("/facets", params={"columns": ["label"], "where": f"item <> {n}"}),
        lambda: client.get(f"/items/{item}"),
        lambda: client.get("/map/mask", params={"where": f"item <> {n}"}),
        lambda: client.get("/items", params={"where": f"no_column = {n}"}),
    )
    answer = requests[n % len(requests)]()
    assert answer.status_code in (200, 400), answer.text
