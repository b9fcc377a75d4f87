"""Ctrl-C, SIGTERM and kills through the command line: exit statuses, seconds, and nothing left running."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import embedstore as es
from tests.conftest import TINY, picture
from tests.reliability.warm import CLI, Process, Warm

INTERRUPTED = "embedstore: interrupted; what was committed is kept, run it again to go on"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A folder of 800 pictures, every fourth of them of an odd format, and a new store beside it."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "many").mkdir()
    for n in range(800):
        picture(n, (20, 20)).save(folder / "many" / f"{n:04d}.{'png' if n % 4 else 'tif'}")
    es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    return folder


@pytest.fixture
def store(many, tmp_path):
    """Its copy."""
    (tmp_path / "many").symlink_to(many / "many")
    shutil.copytree(many / "s", tmp_path / "s")
    return tmp_path / "s"


def embedding(commands: Warm, store: Path, *options: str) -> Process:
    """``embedstore embed``, in a process of its own that need not import anything."""
    return commands.start(CLI, "embed", store, store.parent / "many", "--batch-size", "4", *options)


def workers() -> list[int]:
    """Processes that decode, of anybody, by their command line; zombies have none and count by their parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes()
        except OSError:
            continue
        if b"embedstore.media.image import isolation_worker" in text:
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


def busy(process: Process) -> list[int]:
    """Wait until the run decodes: its workers."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if found := children(process.pid):
            return found
        time.sleep(0.01)
    pytest.fail(f"no worker was started: {process.done()}")


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
def test_a_signal_ends_a_run_within_seconds(commands, store, number, status):
    """The current batch is committed, the status is the signal's, no worker is left, and the rest is done next time."""
    process = embedding(commands, store)
    pids = busy(process)
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(number)
    done = process.done(timeout=30)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == INTERRUPTED
    assert time.monotonic() - begin < 10
    assert gone(pids, 5)
    opened = es.open(store)
    kept = opened.info()["items"]
    assert kept < 800
    assert opened.verify().ok
    report = opened.embed(store.parent / "many")
    assert (report.unchanged, report.scanned) == (kept, 800)
    assert opened.info()["items"] == 800


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_process_and_the_next_one_is_careful(commands, store):
    """SIGKILL: the workers end with their input; the next run decodes everything apart, and finishes."""
    process = embedding(commands, store)
    pids = busy(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(pids, 10)
    second = embedding(commands, store).done()
    assert second.returncode == 0, second.stderr
    assert "800 files" in second.stdout
    assert es.open(store).info()["items"] == 800


def test_a_second_run_is_told_who_writes_or_waits(commands, store):
    """One line with pid, since when and doing what, and exit status 1; with --wait it gets its turn."""
    first = embedding(commands, store)
    busy(first)
    second = embedding(commands, store).done()
    err = second.stderr
    assert second.returncode == 1
    assert err.startswith("embedstore: ")
    assert f"process {first.pid} since " in err
    assert "embed" in err
    assert "--wait" in err
    assert err.count("\n") == 1
    third = embedding(commands, store, "--wait", "60")
    assert first.wait() == 0
    done = third.done()
    assert done.returncode == 0, done.stderr
    assert "800 unchanged" in done.stdout


def spent(pid: int) -> float:
    """Seconds of processor time of a process."""
    found = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_a_question_that_would_take_for_ever(commands, many):
    """DuckDB's calls do not return to Python by themselves: stopped within seconds, one line, status 130."""
    process = commands.start(
        CLI, "sql", many / "s", "SELECT count(*) FROM range(1000000000000) r WHERE r.range % 7 = 3"
    )
    deadline = time.monotonic() + 60
    while spent(process.pid) < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = process.done(timeout=30)
    assert time.monotonic() - begin < 10
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == INTERRUPTED + "\n"
