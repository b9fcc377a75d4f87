"""The memory of a server that runs for long."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.server.conftest import ROOT
from tests.server.requests import memory_over_requests

REQUESTS = int(os.environ.get("EMBEDSTORE_REQUESTS", "10000"))
GROWTH = 24 << 20  # bytes; an answer of each kind that was kept would take more


def growth(store: Path, requests: int) -> int:
    """Return how many bytes a server of its own grows by, after a tenth of some requests warmed every cache."""
    command = [sys.executable, "-m", "embedstore", "serve", str(store), "--port", "0", "--no-open"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as server:
        try:
            address, token = re.search(r"at (http://[^/]+)/#token=(\S+)", server.stdout.readline()).groups()
            headers = {"authorization": f"Bearer {token}"}
            with httpx.Client(base_url=f"{address}/api/v1", headers=headers, timeout=60) as client:
                early, *_, late = memory_over_requests(client, server.pid, requests)
        finally:
            server.terminate()
    return late - early


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say how much memory is used")
@pytest.mark.parametrize("requests", [400, pytest.param(REQUESTS, marks=pytest.mark.slow)])
def test_memory_stays_flat(color_store, requests):
    """After a tenth of the requests the others add less than 24 MB."""
    assert growth(color_store, requests) < GROWTH
