"""Work that is not a plain commit: killed, cut off from its power, or on a disk that fails. Whole, and it goes on."""

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
from tests.reliability.disk_simulation import Disk, Step, ours, read_log, run
from tests.reliability.fork_server import Warm
from tests.reliability.operations import HEAD, JOBS, Job, head, whole

POWER = 50  # cuts of each kind of work in the long form


@dataclass(frozen=True)
class Recorded:
    """A kind of work that was done once, undisturbed."""

    name: str
    base: Path
    folder: Path
    steps: list[Step]

    @property
    def job(self) -> Job:
        return JOBS[self.name]

    def again(self) -> Path:
        """The folder as it was before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base, self.folder)
        return self.folder

    def some(self, most: int | None) -> list[int]:
        """Steps spread over all of it, or each."""
        total = len(self.steps)
        return sorted({max(1, total * (n + 1) // (most + 1)) for n in range(most)}) if most else [*range(1, total + 1)]

    def check(self, what: str) -> None:
        """Whole, and the work can be done again."""
        try:
            self.job.check(self.folder)
        except BaseException as e:
            e.add_note(f"{self.name}: {what} of {len(self.steps)}")
            raise


@pytest.fixture(scope="module")
def work(shim, tmp_path_factory, request):
    """The kind of work that tests name, recorded."""
    here = tmp_path_factory.mktemp("work")
    base, folder = here / "base", here / "d"
    base.mkdir()
    found = Recorded(request.param, base, folder, [])
    found.job.prepare(base)
    done = run(shim, found.again(), code=found.job.code, log=here / "log")
    assert done.returncode == 0, done.stderr
    found.job.done(folder)
    found.steps.extend(read_log(here / "log"))
    assert len(found.steps) > 5
    found.check("undisturbed")
    return found


def killed(shim: Warm, work: Recorded, most: int | None) -> None:
    """Kill the work before some of its steps, or each."""
    for step in work.some(most):
        done = run(shim, work.again(), code=work.job.code, kill=step)
        assert done.returncode == -signal.SIGKILL, (step, done.stderr)
        work.check(f"killed before step {step}")


def failed(shim: Warm, work: Recorded, most: int | None, code: int, *, sticky: bool) -> None:
    """Let some of its steps fail, or each; with ``sticky`` every later write too, as on a full disk."""
    for step in work.some(most):
        done = run(shim, work.again(), code=work.job.code, fail=step, errno=code, sticky=int(sticky))
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else ""
        clean = last.startswith("embedstore.errors.StoreIOError: cannot") or not ours(done.stderr)
        assert done.returncode == 0 or clean, (step, work.steps[step - 1].kind, work.steps[step - 1].path, done.stderr)
        if done.returncode == 0:
            work.job.done(work.folder)
        work.check(f"{errno.errorcode[code]} at step {step}")


def cut(work: Recorded, most: int) -> None:
    """The power goes after some of its steps, and after the last, when it was acknowledged."""
    disk, done = Disk(work.base, str(work.folder)), 0
    for seed, step in enumerate([*work.some(most), len(work.steps)]):
        for s in work.steps[done:step]:
            disk.do(s)
        done = step
        shutil.rmtree(work.folder, ignore_errors=True)
        disk.cut(np.random.default_rng(seed), work.folder)
        if step == len(work.steps):
            work.job.done(work.folder)
        work.check(f"cut off after step {step}")


every_kind = pytest.mark.parametrize("work", JOBS, indirect=True)


@every_kind
def test_a_kill_during_other_work(shim, work):
    """One step in the middle of each kind of work."""
    killed(shim, work, 1)


@every_kind
def test_a_power_cut_during_other_work(work):
    """One in the middle of each kind of work, and one when it was acknowledged."""
    cut(work, 1)


@every_kind
def test_a_disk_that_is_full_during_other_work(shim, work):
    """From the middle of each on: one line of ours, nothing is lost, and with room it can be done again."""
    failed(shim, work, 1, errno.ENOSPC, sticky=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@every_kind
def test_a_kill_before_every_step_of_other_work(shim, work):
    """Each of them."""
    killed(shim, work, None)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@every_kind
def test_many_power_cuts_during_other_work(work):
    """Fifty, spread over it."""
    cut(work, POWER)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("code", "sticky"), [(errno.ENOSPC, True), (errno.EIO, False)])
@every_kind
def test_a_disk_that_fails_at_every_step_of_other_work(shim, work, code, sticky):
    """Each of them: the same."""
    failed(shim, work, None, code, sticky=sticky)


def test_a_head_that_was_never_acknowledged_is_unknown(shim, tmp_path):
    """The first save of a head, killed half-way: no head, no damage, and it can be saved."""
    folder = tmp_path / "d"
    folder.mkdir()
    make(folder / "s", 16)
    done = run(shim, folder, code=HEAD, log=tmp_path / "log")
    steps = [i for i, s in enumerate(read_log(tmp_path / "log"), 1) if "/heads/" in s.path]
    assert done.returncode == 0, done.stderr
    shutil.rmtree(folder)
    folder.mkdir()
    make(folder / "s", 16)
    run(shim, folder, code=HEAD, kill=steps[-1])
    storage = whole(folder / "s", expected(16))
    with pytest.raises(UnknownHead):
        registry.load_head(storage, "kind")
    registry.save_head(storage, storage.space(), "kind", head(1), label="label", kind="prototype", metadata={})
    assert [p.name for p in (folder / "s" / "heads").iterdir()] == ["kind"]
