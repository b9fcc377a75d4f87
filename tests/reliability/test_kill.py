"""SIGKILL at random moments and before every single step, and disks that fail at one: every row is right after."""

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
from tests.reliability.disk_simulation import begin, ours, read_log, run
from tests.reliability.fork_server import Warm
from tests.reliability.oracle import acknowledged, check

SIZE = 8
COMMITS = 2


def fresh(folder: Path) -> None:
    """A store with two commits; made once, then copied."""
    base = folder.with_name("two commits")
    if not base.exists():
        make(base / "s", SIZE, SIZE)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(base, folder)


def steps_of(shim: Warm, tmp_path: Path, **options: object) -> int:
    """How many steps the job takes undisturbed."""
    fresh(tmp_path / "d")
    done = run(shim, tmp_path / "d", COMMITS, SIZE, 3000, log=tmp_path / "log", **options)
    assert done.returncode == 0, done.stderr
    return len(read_log(tmp_path / "log"))


def killed_at(shim: Warm, tmp_path: Path, step: int) -> None:
    """Kill before one step, then check everything."""
    fresh(tmp_path / "d")
    done = run(shim, tmp_path / "d", COMMITS, SIZE, 3000, kill=step)
    assert done.returncode == -signal.SIGKILL, (step, done.stderr)
    check(tmp_path / "d", acknowledged(tmp_path / "d") or 2 * SIZE, SIZE)


def failed_at(shim: Warm, tmp_path: Path, step: int, code: int, *, sticky: bool) -> None:
    """One step fails; with ``sticky`` every later write too, as on a full disk."""
    fresh(tmp_path / "d")
    done = run(shim, tmp_path / "d", COMMITS, SIZE, 3000, fail=step, errno=code, sticky=int(sticky))
    last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
    clean = done.returncode == 0 or last.startswith("embedstore.errors.StoreIOError: cannot")
    assert clean or not ours(done.stderr), (step, done.stderr[-2000:])
    check(tmp_path / "d", acknowledged(tmp_path / "d") or 2 * SIZE, SIZE)


def some(count: int, total: int) -> list[int]:
    """Steps spread over the whole job."""
    return sorted({int(s) for s in np.linspace(1, total, count)})


def test_a_kill_before_a_write_sync_rename_or_unlink(shim, tmp_path):
    """Ten steps of the job, spread over it."""
    for step in some(10, steps_of(shim, tmp_path)):
        killed_at(shim, tmp_path, step)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_before_every_step(shim, tmp_path):
    """Each of them."""
    for step in range(1, steps_of(shim, tmp_path) + 1):
        killed_at(shim, tmp_path, step)


@pytest.mark.parametrize(("code", "sticky"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_disk_that_fails_once_or_is_full_from_then_on(shim, tmp_path, code, sticky):
    """Eight steps: one of our errors, what was acknowledged is kept, and it goes on after."""
    for step in some(8, steps_of(shim, tmp_path)):
        failed_at(shim, tmp_path, step, code, sticky=sticky)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("code", "sticky"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_disk_that_fails_at_every_step(shim, tmp_path, code, sticky):
    """Each of them."""
    for step in range(1, steps_of(shim, tmp_path) + 1):
        failed_at(shim, tmp_path, step, code, sticky=sticky)


def random_kills(warm: Warm, tmp_path: Path, count: int) -> None:
    """One store, killed again and again at random moments of an endless job."""
    folder = tmp_path / "d"
    fresh(folder)
    rng = np.random.default_rng(7)
    for _ in range(count):
        before = acknowledged(folder)
        process = begin(warm, folder, 1_000_000, SIZE, 20_000)
        deadline = time.monotonic() + 60
        while acknowledged(folder) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        check(folder, acknowledged(folder), SIZE)


def test_kills_at_random_moments(warm, tmp_path):
    """Six of them, one after another on one store."""
    random_kills(warm, tmp_path, 6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills_at_random_moments(warm, tmp_path):
    """Two hundred, on stores of at most twenty kills."""
    for _ in range(10):
        random_kills(warm, tmp_path, 20)


CREATE = """
import sys
from tests.helpers.vector_stores import expected, make, rows
make(sys.argv[1] + "/s", 8, 8)
"""


def killed_while_made(shim: Warm, tmp_path: Path, most: int | None) -> None:
    """Kill the making of a store and its first two commits before some of the steps, or each."""
    folder = tmp_path / "d"
    folder.mkdir()
    assert run(shim, folder, code=CREATE, log=tmp_path / "log").returncode == 0
    total = len(read_log(tmp_path / "log"))
    for step in some(most or total, total):
        shutil.rmtree(folder)
        folder.mkdir()
        assert run(shim, folder, code=CREATE, kill=step).returncode == -signal.SIGKILL
        if (folder / "s").exists():
            with Storage.open(folder / "s").writer("after"):
                found = rows(Storage.open(folder / "s"))
            assert found in (expected(0), expected(8), expected(16))
        else:
            make(folder / "s", 8)
        assert verify(Storage.open(folder / "s")).ok
        assert sorted(p.name for p in folder.iterdir()) == ["s"]


def test_a_kill_while_a_store_is_made_leaves_a_store_or_nothing(shim, tmp_path):
    """Before the rename there is no store, after it a whole one; making it again works and sweeps up."""
    killed_while_made(shim, tmp_path, 8)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_kill_before_every_step_while_a_store_is_made(shim, tmp_path):
    """Each of them."""
    killed_while_made(shim, tmp_path, None)


@pytest.mark.parametrize("megabytes", [3, 4, 6])
def test_a_small_disk_that_fills_up(warm, tmp_path, megabytes):
    """A real file system without room: one of our errors, nothing acknowledged is lost; with room it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", disk], check=False, capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        make(disk / "s", SIZE, SIZE)
        done = begin(warm, disk, 4000, 1024, 20_000).done()
        assert done.returncode == 1
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("embedstore.errors.StoreIOError: cannot") or not ours(done.stderr), last
        kept = acknowledged(disk) or 2 * SIZE
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        check(disk, kept, SIZE)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)  # lazily: its vectors are still mapped
