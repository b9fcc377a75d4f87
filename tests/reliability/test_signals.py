"""Ctrl-C, SIGTERM and kills through the command line: exit statuses, seconds, and nothing left running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import embedstore as es
from tests.conftest import TINY, picture


@pytest.fixture
def store(tmp_path):
    """A store, and a folder of 800 pictures, every fourth of them of an odd format."""
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(800):
        picture(n, (20, 20)).save(folder / f"{n:04d}.{'png' if n % 4 else 'tif'}")
    es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    return tmp_path / "s"


def embedding(store: Path, *options: str) -> subprocess.Popen:
    """``embedstore embed`` as a person starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "embedstore", "embed", store, store.parent / "many", "--batch-size", "4", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def workers() -> list[int]:
    """Processes that decode, of anybody, by their command line; zombies have none and count by their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"embedstore.decode import worker" in text:
            found.append(int(path.parent.name))
    return found


def children(pid: int) -> list[int]:
    """Processes started by one process."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(c) for c in task.read_text().split()]
        except OSError:
            continue
    return found


def busy(process: subprocess.Popen) -> list[int]:
    """Wait until the run decodes: its workers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if found := children(process.pid):
            return found
        time.sleep(0.01)
    pytest.fail(f"no worker was started: {process.communicate()}")


def gone(pids: list[int], seconds: float) -> bool:
    """None of these processes is there any more."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not set(pids) & set(workers()):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_within_seconds(store, number, status):
    """The current batch is committed, the status is the signal's, no worker is left, and the rest is done next time."""
    process = embedding(store)
    pids = busy(process)
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(number)
    assert process.wait(timeout=30) == status
    assert time.monotonic() - begin < 10
    assert gone(pids, 5)
    opened = es.open(store)
    kept = opened.info()["items"]
    assert kept < 800
    assert opened.verify().ok
    report = opened.embed(store.parent / "many")
    assert (report.unchanged, report.found) == (kept, 800)
    assert opened.info()["items"] == 800


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_process_and_the_next_one_is_careful(store):
    """SIGKILL: the workers end with their input; the next run decodes everything apart, and finishes."""
    process = embedding(store)
    pids = busy(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(pids, 10)
    second = embedding(store)
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0, err
    assert "800 files" in out
    assert es.open(store).info()["items"] == 800


def test_a_second_run_is_told_who_writes_or_waits(store):
    """One line with pid, since when and doing what, and exit status 1; with --wait it gets its turn."""
    first = embedding(store)
    busy(first)
    second = embedding(store)
    _, err = second.communicate(timeout=60)
    assert second.returncode == 1
    assert err.startswith("embedstore: ")
    assert f"process {first.pid} since " in err
    assert "embed" in err
    assert "--wait" in err
    assert err.count("\n") == 1
    third = embedding(store, "--wait", "60")
    assert first.wait(timeout=120) == 0
    out, err = third.communicate(timeout=120)
    assert third.returncode == 0, err
    assert "800 unchanged" in out
