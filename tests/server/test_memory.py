"""The memory of a server that runs for long."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import ROOT

REQUESTS = int(os.environ.get("EMBEDSTORE_REQUESTS", "10000"))


def resident(pid: int) -> int:
    """The anonymous memory of a process in bytes."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say how much memory is used")
def test_memory_stays_flat_over_ten_thousand_requests(color_store):
    """After a tenth of the requests warmed every cache, the others add less than 24 MB."""
    command = [sys.executable, "-m", "embedstore", "serve", str(color_store), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            address, token = re.search(r"at (http://[^/]+)/#token=(\S+)", server.stdout.readline()).groups()
            headers = {"authorization": f"Bearer {token}"}
            with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=60) as client:
                sizes = []
                for n in range(REQUESTS):
                    ask(client, n)
                    if n + 1 in (REQUESTS // 10, REQUESTS):
                        sizes.append(resident(server.pid))
        finally:
            server.terminate()
    assert sizes[1] - sizes[0] < 24 << 20


def ask(client: httpx.Client, n: int) -> None:
    """Send one of a cycle of requests; filters and selections are new ones each time."""
    kind = n % 8
    if kind == 0:
        answer = client.get("/items", params={"where": f"item <> {n}", "order": "label"})
    elif kind == 1:
        answer = client.post("/search", json={"item": n % 12 + 1, "k": 5, "where": f"size > {n}"})
    elif kind == 2:
        answer = client.post("/selections", json={"where": f"item <> {n}"})
    elif kind == 3:
        answer = client.get(f"/items/{n % 12 + 1}/thumbnail", params={"size": 64})
    elif kind == 4:
        answer = client.get("/facets", params={"columns": ["label"], "where": f"item <> {n}"})
    elif kind == 5:
        answer = client.get(f"/items/{n % 12 + 1}")
    elif kind == 6:
        answer = client.get("/map/mask", params={"where": f"item <> {n}"})
    else:
        answer = client.get("/items", params={"where": f"no_column = {n}"})
    assert answer.status_code in (200, 400)
