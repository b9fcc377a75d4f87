"""Simulate power cuts at any moment: nothing acknowledged is lost, and stores broken on purpose are detected."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedstore.storage import recover
from embedstore.storage.layout import GUARD
from tests.helpers.vector_stores import make
from tests.reliability.disk_simulation import Disk, File, Step, read_log, run
from tests.reliability.fork_server import ForkServer
from tests.reliability.oracle import acknowledged_rows, check_store

SIZE = 8


def record_job(
    recorder: ForkServer, tmp_path: Path, *, commits: int, above: int, control: str = "", size: int = SIZE
) -> tuple[Path, list[Step], str]:
    """Record a job that adds to a store; return the folder before it, its steps, and the path of its folder."""
    folder = tmp_path / "d"
    folder.mkdir()
    make(folder / "s", size, size)
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    done = run(recorder, folder, commits, size, above, log=tmp_path / "log", control=control)
    assert done.returncode == 0, done.stderr
    return base, read_log(tmp_path / "log"), str(folder)


def cut_failures(
    base: Path,
    steps: list[Step],
    root: str,
    moments: list[int],
    tmp_path: Path,
    *,
    synced: bool = True,
    most: int = 1000,
    size: int = SIZE,
) -> list[str]:
    """Cut the power at each moment and return one line per cut that failed, at most ``most``."""
    wrong = []
    disk, done = Disk(base, root), 0
    for seed, moment in enumerate(sorted(moments)):
        for step in steps[done:moment]:
            disk.apply(step, synced=synced)
        done = max(done, moment)
        target = tmp_path / f"cut{seed}"
        disk.cut_power(np.random.default_rng(seed), target)
        written = disk.find(root + "/acknowledged")
        least = int(written.visible.split()[-1]) if isinstance(written, File) and written.visible else 2 * size
        try:
            check_store(target, least, size)
        except Exception as e:  # any error that makes the store unusable counts
            wrong.append(f"cut {seed} after step {moment}: {type(e).__name__}: {str(e)[:300]}")
        shutil.rmtree(target)
        if len(wrong) >= most:
            break
    return wrong


def random_moments(steps: list[Step], count: int) -> list[int]:
    """Return random step numbers of the whole job."""
    return np.random.default_rng(0).integers(1, len(steps) + 1, count).tolist()


def checkpoint_moments(steps: list[Step], count: int) -> list[int]:
    """Return random step numbers at which the catalog file is rewritten, and up to three steps later."""
    spots = [
        i + extra
        for i, s in enumerate(steps)
        if Path(s.path).name == "catalog.duckdb" and Path(s.path).parent.name != GUARD
        for extra in (1, 2, 3)
        if i + extra <= len(steps)
    ]
    assert spots
    return np.random.default_rng(1).choice(spots, count).tolist()


def test_power_cuts_lose_nothing_acknowledged(recorder, tmp_path):
    """Every acknowledged row survives twenty cuts anywhere and ten at checkpoints of a job of six commits."""
    base, steps, root = record_job(recorder, tmp_path, commits=6, above=3000)
    assert sum(s.kind == "s" for s in steps) > 30
    assert cut_failures(base, steps, root, random_moments(steps, 20) + checkpoint_moments(steps, 10), tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_eleven_hundred_power_cuts_lose_nothing_acknowledged(recorder, tmp_path):
    """Every acknowledged row survives 800 cuts anywhere and 300 at checkpoints of a job of twelve commits."""
    base, steps, root = record_job(recorder, tmp_path, commits=12, above=3000)
    wrong = cut_failures(base, steps, root, random_moments(steps, 800) + checkpoint_moments(steps, 300), tmp_path)
    assert wrong == []


@pytest.mark.parametrize("control", ["no fsync", "catalog before shard", "no name of the log"])
def test_power_cuts_detect_a_store_that_is_broken_on_purpose(recorder, tmp_path, control):
    """Rows are lost without syncs, with the catalog before the vectors, and with an unsynced name of the log."""
    base, steps, root = record_job(recorder, tmp_path, commits=6, above=3000, control=control)
    assert (
        cut_failures(base, steps, root, random_moments(steps, 60), tmp_path, synced=control != "no fsync", most=1) != []
    )


def test_power_cuts_detect_a_recovery_that_does_not_cut_a_torn_log(recorder, tmp_path, monkeypatch):
    """Some stores do not open when the log is not cut after its last whole entry."""
    base, steps, root = record_job(recorder, tmp_path, commits=2, above=1 << 30, size=200)
    log = f"{root}/s/catalog.duckdb.wal"
    written = [i for i, s in enumerate(steps, 1) if s.kind == "w" and s.path == log]
    monkeypatch.setattr(recover, "_cut_torn_log", lambda *_: [])
    assert cut_failures(base, steps, root, [written[-2]] * 12, tmp_path, most=1, size=200) != []


@pytest.mark.slow
def test_power_cuts_detect_a_checkpoint_without_its_guard(recorder, tmp_path):
    """Rows are lost in cuts at checkpoints that have no guard copy."""
    base, steps, root = record_job(recorder, tmp_path, commits=12, above=3000, control="no guard")
    assert cut_failures(base, steps, root, checkpoint_moments(steps, 300), tmp_path, most=1) != []


def test_simulation_without_a_cut_loses_nothing(recorder, tmp_path):
    """After the last step and every sync, all rows exist."""
    base, steps, root = record_job(recorder, tmp_path, commits=3, above=3000)
    folder = Path(root)
    assert acknowledged_rows(folder) == 5 * SIZE
    assert check_store(folder, 5 * SIZE, SIZE) == []
    assert cut_failures(base, steps, root, [len(steps)] * 3, tmp_path) == []
