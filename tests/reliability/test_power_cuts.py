"""The power goes at any moment: nothing acknowledged is lost, everything opens. Broken stores are noticed."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from embedstore.storage import recover
from embedstore.storage.layout import GUARD
from tests.helpers.vector_stores import make
from tests.reliability.disk_simulation import Disk, File, Step, read_log, run
from tests.reliability.fork_server import Warm
from tests.reliability.oracle import acknowledged, check

SIZE = 8


def recorded(
    shim: Warm, tmp_path: Path, *, commits: int, above: int, control: str = "", size: int = SIZE
) -> tuple[Path, list[Step], str]:
    """A store before, and the steps of a job that adds to it."""
    folder = tmp_path / "d"
    folder.mkdir()
    make(folder / "s", size, size)
    base = tmp_path / "base"
    shutil.copytree(folder, base)
    done = run(shim, folder, commits, size, above, log=tmp_path / "log", control=control)
    assert done.returncode == 0, done.stderr
    return base, read_log(tmp_path / "log"), str(folder)


def cuts(
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
    """Cut the power at each moment; what went wrong, one line a cut, and at most so many."""
    wrong = []
    disk, done = Disk(base, root), 0
    for seed, moment in enumerate(sorted(moments)):
        for step in steps[done:moment]:
            disk.do(step, synced=synced)
        done = max(done, moment)
        target = tmp_path / f"cut{seed}"
        disk.cut(np.random.default_rng(seed), target)
        said = disk.find(root + "/acknowledged")
        least = int(said.seen.split()[-1]) if isinstance(said, File) and said.seen else 2 * size
        try:
            check(target, least, size)
        except Exception as e:  # whatever keeps the store from being used counts
            wrong.append(f"cut {seed} after step {moment}: {type(e).__name__}: {str(e)[:300]}")
        shutil.rmtree(target)
        if len(wrong) >= most:
            break
    return wrong


def anywhere(steps: list[Step], count: int) -> list[int]:
    """Moments over the whole job."""
    return np.random.default_rng(0).integers(1, len(steps) + 1, count).tolist()


def at_checkpoints(steps: list[Step], count: int) -> list[int]:
    """Moments while the catalog itself is rewritten, and just after."""
    spots = [
        i + extra
        for i, s in enumerate(steps)
        if Path(s.path).name == "catalog.duckdb" and Path(s.path).parent.name != GUARD
        for extra in (1, 2, 3)
        if i + extra <= len(steps)
    ]
    assert spots
    return np.random.default_rng(1).choice(spots, count).tolist()


def test_a_power_cut_loses_nothing_acknowledged(shim, tmp_path):
    """Twenty cuts anywhere and ten at the checkpoints of a job of six commits: every acknowledged row is right."""
    base, steps, root = recorded(shim, tmp_path, commits=6, above=3000)
    assert sum(s.kind == "s" for s in steps) > 30
    assert cuts(base, steps, root, anywhere(steps, 20) + at_checkpoints(steps, 10), tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_eight_hundred_power_cuts_and_three_hundred_at_checkpoints(shim, tmp_path):
    """The same, long."""
    base, steps, root = recorded(shim, tmp_path, commits=12, above=3000)
    wrong = cuts(base, steps, root, anywhere(steps, 800) + at_checkpoints(steps, 300), tmp_path)
    assert wrong == []


@pytest.mark.parametrize("control", ["no fsync", "catalog before shard", "no name of the log"])
def test_a_store_broken_on_purpose_is_noticed(shim, tmp_path, control):
    """Without syncs, with the catalog before the vectors, or with an unsynced name of the log, rows are lost."""
    base, steps, root = recorded(shim, tmp_path, commits=6, above=3000, control=control)
    assert cuts(base, steps, root, anywhere(steps, 60), tmp_path, synced=control != "no fsync", most=1) != []


def test_a_store_that_does_not_cut_its_torn_log_is_noticed(shim, tmp_path, monkeypatch):
    """Without the cut at the last whole entry, some stores do not open."""
    base, steps, root = recorded(shim, tmp_path, commits=2, above=1 << 30, size=200)
    log = f"{root}/s/catalog.duckdb.wal"
    written = [i for i, s in enumerate(steps, 1) if s.kind == "w" and s.path == log]
    monkeypatch.setattr(recover, "_cut_torn_log", lambda *_: [])
    assert cuts(base, steps, root, [written[-2]] * 12, tmp_path, most=1, size=200) != []


@pytest.mark.slow
def test_a_checkpoint_without_its_guard_is_noticed(shim, tmp_path):
    """Cuts aimed at bare checkpoints find the hazard that the guard is there for."""
    base, steps, root = recorded(shim, tmp_path, commits=12, above=3000, control="no guard")
    assert cuts(base, steps, root, at_checkpoints(steps, 300), tmp_path, most=1) != []


def test_a_whole_run_without_a_cut_passes_the_same_check(shim, tmp_path):
    """The simulation itself loses nothing: after the last step and every sync, all is there."""
    base, steps, root = recorded(shim, tmp_path, commits=3, above=3000)
    folder = Path(root)
    assert acknowledged(folder) == 5 * SIZE
    assert check(folder, 5 * SIZE, SIZE) == []
    assert cuts(base, steps, root, [len(steps)] * 3, tmp_path) == []
