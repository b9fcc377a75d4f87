"""Kill a writer at random moments and before single steps, and let single steps of the disk fail."""

import errno
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from embedstore.storage.integrity.verify import verify
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import expected, make, rows
from tests.reliability.disk_simulation import is_our_traceback, read_log, run, start
from tests.reliability.fork_server import ForkServer
from tests.reliability.oracle import acknowledged_rows, check_store

SIZE = 8
COMMITS = 2


def copy_store(folder: Path) -> None:
    """Create a store with two commits: made once, then copied."""
    base = folder.with_name("two commits")
    if not base.exists():
        make(base / "s", SIZE, SIZE)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)


def count_steps(recorder: ForkServer, tmp_path: Path, **options: object) -> int:
    """Return how many steps the job takes without interruption."""
    copy_store(tmp_path / "d")
    done = run(recorder, tmp_path / "d", COMMITS, SIZE, 3000, log=tmp_path / "log", **options)
    assert done.returncode == 0, done.stderr
    return len(read_log(tmp_path / "log"))


def kill_at(recorder: ForkServer, tmp_path: Path, step: int) -> None:
    """Kill the job before one step, then check the store."""
    copy_store(tmp_path / "d")
    done = run(recorder, tmp_path / "d", COMMITS, SIZE, 3000, kill=step)
    assert done.returncode == -signal.SIGKILL, (step, done.stderr)
    check_store(tmp_path / "d", acknowledged_rows(tmp_path / "d") or 2 * SIZE, SIZE)


def fail_at(recorder: ForkServer, tmp_path: Path, step: int, code: int, *, sticky: bool) -> None:
    """Let one step fail, with ``sticky`` also every later write, as on a full disk; then check the store."""
    copy_store(tmp_path / "d")
    done = run(recorder, tmp_path / "d", COMMITS, SIZE, 3000, fail=step, errno=code, sticky=int(sticky))
    last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    clean = done.returncode == 0 or last.startswith("embedstore.errors.StoreIOError: cannot")
    assert clean or not is_our_traceback(done.stderr), (step, done.stderr[-2000:])
    check_store(tmp_path / "d", acknowledged_rows(tmp_path / "d") or 2 * SIZE, SIZE)


def spread_steps(count: int, total: int) -> list[int]:
    """Return step numbers that are spread over the whole job."""
    return sorted({int(s) for s in np.linspace(1, total, count)})


def test_kill_before_single_steps_loses_nothing_acknowledged(recorder, tmp_path):
    """Every acknowledged row survives a kill before each of ten steps (write, sync, rename or unlink)."""
    for step in spread_steps(10, count_steps(recorder, tmp_path)):
        kill_at(recorder, tmp_path, step)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_before_every_step_loses_nothing_acknowledged(recorder, tmp_path):
    """Every acknowledged row survives a kill before every step of the job."""
    for step in range(1, count_steps(recorder, tmp_path) + 1):
        kill_at(recorder, tmp_path, step)


@pytest.mark.parametrize(("code", "sticky"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_failing_disk_is_reported_and_loses_nothing_acknowledged(recorder, tmp_path, code, sticky):
    """At eight steps, one EIO or a disk full from then on gives a StoreIOError, and the store can be used after."""
    for step in spread_steps(8, count_steps(recorder, tmp_path)):
        fail_at(recorder, tmp_path, step, code, sticky=sticky)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("code", "sticky"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_failing_disk_at_every_step_loses_nothing_acknowledged(recorder, tmp_path, code, sticky):
    """At every step, one EIO or a disk full from then on gives a StoreIOError, and the store can be used after."""
    for step in range(1, count_steps(recorder, tmp_path) + 1):
        fail_at(recorder, tmp_path, step, code, sticky=sticky)


def kill_at_random_moments(fork_server: ForkServer, tmp_path: Path, count: int) -> None:
    """Kill an endless job on one store at random moments, and check the store after each kill."""
    folder = tmp_path / "d"
    copy_store(folder)
    rng = np.random.default_rng(7)
    for _ in range(count):
        before = acknowledged_rows(folder)
        process = start(fork_server, folder, 1_000_000, SIZE, 20_000)
        deadline = time.monotonic() + 60
        while acknowledged_rows(folder) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        check_store(folder, acknowledged_rows(folder), SIZE)


def test_kills_at_random_moments_lose_nothing_acknowledged(fork_server, tmp_path):
    """Every acknowledged row survives six kills in sequence."""
    kill_at_random_moments(fork_server, tmp_path, 6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_at_random_moments_lose_nothing_acknowledged(fork_server, tmp_path):
    """Every acknowledged row survives two hundred kills, twenty per store."""
    for _ in range(10):
        kill_at_random_moments(fork_server, tmp_path, 20)


CREATE = """
import sys
from tests.helpers.vector_stores import expected, make, rows
make(sys.argv[1] + "/s", 8, 8)
"""


def kill_during_create(recorder: ForkServer, tmp_path: Path, most: int | None) -> None:
    """Kill the creation of a store and its first two commits before some of the steps, or before each."""
    folder = tmp_path / "d"
    folder.mkdir()
    assert run(recorder, folder, code=CREATE, log=tmp_path / "log").returncode == 0
    total = len(read_log(tmp_path / "log"))
    for step in spread_steps(most or total, total):
        shutil.rmtree(folder)
        folder.mkdir()
        assert run(recorder, folder, code=CREATE, kill=step).returncode == -signal.SIGKILL
        if (folder / "s").exists():
            with Storage.open(folder / "s").writer("after"):
                found = rows(Storage.open(folder / "s"))
            assert found in (expected(0), expected(8), expected(16))
        else:
            make(folder / "s", 8)
        assert verify(Storage.open(folder / "s")).ok
        assert sorted(p.name for p in folder.iterdir()) == ["s"]


def test_kill_during_creation_leaves_a_whole_store_or_nothing(recorder, tmp_path):
    """Before the rename there is no store, after it a whole one; a second creation removes what was left."""
    kill_during_create(recorder, tmp_path, 8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kill_before_every_step_of_creation_leaves_a_whole_store_or_nothing(recorder, tmp_path):
    """A kill before every step leaves no store or a whole one."""
    kill_during_create(recorder, tmp_path, None)


@pytest.mark.parametrize("megabytes", [3, 4, 6])
def test_full_file_system_is_reported_and_the_store_continues_with_more_space(fork_server, tmp_path, megabytes):
    """A real file system without space gives a StoreIOError, no acknowledged row is lost, and with space it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        make(disk / "s", SIZE, SIZE)
        done = start(fork_server, disk, 4000, 1024, 20_000).result()
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("embedstore.errors.StoreIOError: cannot") or not is_our_traceback(done.stderr), last
        kept = acknowledged_rows(disk) or 2 * SIZE
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        check_store(disk, kept, SIZE)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # lazily: the vectors are still mapped
