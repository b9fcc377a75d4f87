"""Interrupt every operation that is not a plain commit by kills, power cuts and failing disks; see operations.py."""

import errno
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embedstore.classify import registry
from embedstore.errors import UnknownHead
from tests.helpers.vector_stores import expected, make
from tests.reliability.disk_simulation import Disk, Step, is_our_traceback, read_log, run
from tests.reliability.fork_server import ForkServer
from tests.reliability.operations import HEAD, OPERATIONS, Operation, fitted_head, open_and_compare

POWER_CUTS = 50  # power cuts per operation in the slow test


@dataclass(frozen=True)
class RecordedOperation:
    """An operation that was run once without interruption."""

    name: str
    base: Path
    folder: Path
    steps: list[Step]

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.name]

    def reset(self) -> Path:
        """Restore the folder from before the operation."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base, self.folder)
        return self.folder

    def spread_steps(self, most: int | None) -> list[int]:
        """Return ``most`` step numbers that are spread over the operation, or all of them."""
        total = len(self.steps)
        return sorted({max(1, total * (n + 1) // (most + 1)) for n in range(most)}) if most else [*range(1, total + 1)]

    def check(self, what: str) -> None:
        """Check the store, and that the operation can run again."""
        try:
            self.operation.check_state(self.folder)
        except BaseException as e:
            e.add_note(f"{self.name}: {what} of {len(self.steps)}")
            raise


@pytest.fixture(scope="module")
def work(recorder, tmp_path_factory, request):
    """Record the operation that the test names."""
    here = tmp_path_factory.mktemp("work")
    base, folder = here / "base", here / "d"
    base.mkdir()
    found = RecordedOperation(request.param, base, folder, [])
    found.operation.prepare(base)
    done = run(recorder, found.reset(), code=found.operation.code, log=here / "log")
    assert done.returncode == 0, done.stderr
    found.operation.check_acknowledged(folder)
    found.steps.extend(read_log(here / "log"))
    assert len(found.steps) > 5
    found.check("undisturbed")
    return found


def check_kills(recorder: ForkServer, work: RecordedOperation, most: int | None) -> None:
    """Kill the operation before some of its steps, or before each."""
    for step in work.spread_steps(most):
        done = run(recorder, work.reset(), code=work.operation.code, kill=step)
        assert done.returncode == -signal.SIGKILL, (step, done.stderr)
        work.check(f"killed before step {step}")


def check_disk_failures(
    recorder: ForkServer, work: RecordedOperation, most: int | None, code: int, *, sticky: bool
) -> None:
    """Let some of its steps fail, or each, with ``sticky`` also every later write, as on a full disk."""
    for step in work.spread_steps(most):
        done = run(recorder, work.reset(), code=work.operation.code, fail=step, errno=code, sticky=int(sticky))
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        clean = last.startswith("embedstore.errors.StoreIOError: cannot") or not is_our_traceback(done.stderr)
        assert done.returncode == 0 or clean, (step, work.steps[step - 1].kind, work.steps[step - 1].path, done.stderr)
        if done.returncode == 0:
            work.operation.check_acknowledged(work.folder)
        work.check(f"{errno.errorcode[code]} at step {step}")


def check_power_cuts(work: RecordedOperation, most: int) -> None:
    """Cut the power after some of its steps, and after the last, when the result was acknowledged."""
    disk, done = Disk(work.base, str(work.folder)), 0
    for seed, step in enumerate([*work.spread_steps(most), len(work.steps)]):
        for s in work.steps[done:step]:
            disk.apply(s)
        done = step
        shutil.rmtree(work.folder, ignore_errors=True)
        disk.cut_power(np.random.default_rng(seed), work.folder)
        if step == len(work.steps):
            work.operation.check_acknowledged(work.folder)
        work.check(f"cut off after step {step}")


each_operation = pytest.mark.parametrize("work", OPERATIONS, indirect=True)


@each_operation
def test_killed_operation_leaves_a_consistent_store(recorder, work):
    """After a kill in the middle, the store is consistent and the operation can run again."""
    check_kills(recorder, work, 1)


@each_operation
def test_power_cut_during_an_operation_leaves_a_consistent_store(work):
    """After a power cut in the middle the store is consistent; after one at the end the result exists."""
    check_power_cuts(work, 1)


@each_operation
def test_full_disk_during_an_operation_is_reported_and_leaves_a_consistent_store(recorder, work):
    """With a disk that is full from the middle on: a StoreIOError, and the operation can run again."""
    check_disk_failures(recorder, work, 1, errno.ENOSPC, sticky=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@each_operation
def test_kill_before_every_step_of_an_operation_leaves_a_consistent_store(recorder, work):
    """After a kill before every step, the store is consistent and the operation can run again."""
    check_kills(recorder, work, None)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@each_operation
def test_fifty_power_cuts_during_an_operation_leave_a_consistent_store(work):
    """After each of fifty power cuts, the store is consistent and the operation can run again."""
    check_power_cuts(work, POWER_CUTS)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("code", "sticky"), [(errno.ENOSPC, True), (errno.EIO, False)])
@each_operation
def test_failing_disk_at_every_step_of_an_operation_leaves_a_consistent_store(recorder, work, code, sticky):
    """With a failure at every step: a StoreIOError, and the operation can run again."""
    check_disk_failures(recorder, work, None, code, sticky=sticky)


def test_killed_first_save_of_a_head_leaves_no_head(recorder, tmp_path):
    """After a kill during the first save there is no head and no damage, and the head can be saved."""
    folder = tmp_path / "d"
    folder.mkdir()
    make(folder / "s", 16)
    done = run(recorder, folder, code=HEAD, log=tmp_path / "log")
    steps = [i for i, s in enumerate(read_log(tmp_path / "log"), 1) if "/heads/" in s.path]
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder)
    folder.mkdir()
    make(folder / "s", 16)
    run(recorder, folder, code=HEAD, kill=steps[-1])
    storage = open_and_compare(folder / "s", expected(16))
    with pytest.raises(UnknownHead):
        registry.load_head(storage, "kind")
    registry.save_head(storage, storage.space(), "kind", fitted_head(1), label="label", kind="prototype", metadata={})
    assert [p.name for p in (folder / "s" / "heads").iterdir()] == ["kind"]
