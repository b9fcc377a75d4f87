"""A run over 10,000 members of tars in a bucket that is killed twice, on a real S3 server on loopback."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from tests.helpers.s3_server import serve_bucket
from tests.sources.test_archives import tar_bytes

TARS, MEMBERS = 10, 1000
KILLS = (2000, 5000)  # requests after which the process is killed
EXTRA_MEMORY = 64 << 20  # bytes that ten times the members may add to the peak

RUN = """
import json, sys, embedstore as es
report = es.open(sys.argv[1], device="cpu").embed(sys.argv[2:], progress=False)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
facts = {"scanned": report.scanned, "embedded": report.embedded, "reused": report.reused, "unchanged": report.unchanged}
print(json.dumps(facts | {"failures": report.failures, "peak": int(peak.split()[1]) << 10}))
"""


def member(seed: int) -> bytes:
    """A PNG of its own."""
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def start(store, *urls) -> subprocess.Popen:
    """Start a run."""
    words = [sys.executable, "-c", RUN, str(store), *urls]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=os.environ)


def finish(process: subprocess.Popen) -> dict:
    """Wait for a run, and return what it did."""
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


def kill_after(bucket, requests: int, process: subprocess.Popen) -> None:
    """Kill a run once it has sent so many requests."""
    first = len(bucket.gets)
    while len(bucket.gets) - first < requests and process.poll() is None:
        time.sleep(0.02)
    assert process.poll() is None, "the run ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the peak of memory")
def test_a_long_run_over_a_bucket_that_is_killed_twice_ends_complete(tmp_path, monkeypatch, capsys):
    """Every member is an item once; a rescan downloads nothing; ten times the members need no more memory."""
    with serve_bucket(monkeypatch) as bucket:
        for n in range(TARS):
            files = [(f"{'cat' if m % 2 else 'dog'}/{m:04d}.png", member(n * MEMBERS + m)) for m in range(MEMBERS)]
            bucket.put({f"shard-{n}.tar": tar_bytes(files)})
        urls = [f"{bucket.url}/shard-{n}.tar" for n in range(TARS)]
        small, store = tmp_path / "small", tmp_path / "s"
        es.create(small, "embedstore/tiny", device="cpu").close()
        es.create(store, "embedstore/tiny", device="cpu").close()
        small_run = finish(start(small, urls[0]))
        assert small_run["embedded"] == MEMBERS
        for requests in KILLS:
            kill_after(bucket, requests, start(store, *urls))
        before = len(bucket.gets)
        last = finish(start(store, *urls))
        last_requests = len(bucket.gets) - before
        assert last["scanned"] == TARS * MEMBERS
        assert (last["embedded"] + last["reused"] + last["unchanged"], last["failures"]) == (TARS * MEMBERS, 0)
        opened = es.open(store, device="cpu")
        facts = "SELECT count(*), count(DISTINCT uri), count(DISTINCT content) FROM items WHERE present"
        assert opened.sql(facts).rows == ((TARS * MEMBERS,) * 3,)
        assert opened.verify().ok
        before = len(bucket.gets)
        again = finish(start(store, *urls))
        rescan_requests = len(bucket.gets) - before
        assert (again["unchanged"], rescan_requests) == (TARS * MEMBERS, 0)
    with capsys.disabled():
        print(
            f"\n{TARS * MEMBERS:,} members: the last run embedded {last['embedded']:,} with {last_requests:,} requests"
            f"; a rescan sent {rescan_requests}; peak {last['peak'] >> 20} MB, with {MEMBERS:,} members "
            f"{small_run['peak'] >> 20} MB"
        )
    assert last["peak"] < small_run["peak"] + EXTRA_MEMORY
