"""Ctrl-C, SIGTERM and SIGKILL end a command within seconds, with its exit status and no process left."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import embedstore as es
from embedstore.media.image import isolation
from tests.conftest import TINY, picture
from tests.reliability.fork_server import CLI, ForkServer, Process

PICTURES = 2400
INTERRUPTED = "embedstore: interrupted; what was committed is kept, run the command again to continue"


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Create pictures for some seconds, every fourth of a format that workers decode, and an empty store."""
    folder = tmp_path_factory.mktemp("signals")
    (folder / "many").mkdir()
    for n in range(PICTURES):
        picture(n, (20, 20)).save(folder / "many" / f"{n:04d}.{'png' if n % 4 else 'tif'}")
    es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    return folder


@pytest.fixture
def store(many, tmp_path):
    """Copy the store."""
    (tmp_path / "many").symlink_to(many / "many")
    shutil.copytree(many / "s", tmp_path / "s")
    return tmp_path / "s"


def start_embed(commands: ForkServer, store: Path, *options: str) -> Process:
    """Start ``embedstore embed`` in a fork of a process that has imported everything, slowly enough for a signal."""
    return commands.start(
        CLI, "embed", store, store.parent / "many", "--batch-size", "4", "--runtime", "eager", *options
    )


def is_decode_worker(pid: int) -> bool:
    """Return whether a process is a running decode worker, by the code in its command line; a zombie has none."""
    code = isolation.WORKER_CODE.partition("{}")[0].encode()
    try:
        return code in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def children(pid: int) -> list[int]:
    """Return the ids of the child processes."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(c) for c in task.read_text().split()]
        except OSError:
            continue
    return found


def wait_for_workers(process: Process) -> list[int]:
    """Wait until the command has started decode workers and return their ids."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and process.poll() is None:
        if found := [pid for pid in children(process.pid) if is_decode_worker(pid)]:
            return found
        time.sleep(0.01)
    pytest.fail(f"no worker was started: {process.result()}")


def have_ended(pids: list[int], seconds: float) -> bool:
    """Return whether all these workers end within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(map(is_decode_worker, pids)):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_ends_a_run_within_seconds(commands, store, number, status):
    """The current batch is committed, the exit status is right, no worker is left, and the next run continues."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the tests run under nohup, which a run respects")
    process = start_embed(commands, store)
    pids = wait_for_workers(process)
    time.sleep(0.3)
    begin = time.monotonic()
    process.send_signal(number)
    done = process.result(timeout=30)
    assert done.returncode == status
    assert done.stderr.splitlines()[-1] == INTERRUPTED
    assert time.monotonic() - begin < 10
    assert have_ended(pids, 5)
    opened = es.open(store)
    kept = opened.info().items
    assert kept < PICTURES
    assert opened.verify().ok
    report = opened.embed(store.parent / "many")
    assert (report.unchanged, report.scanned) == (kept, PICTURES)
    assert opened.info().items == PICTURES


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_killed_run_leaves_no_process_and_the_next_run_finishes(commands, store):
    """After SIGKILL the workers end with their input, and the next run embeds every file."""
    process = start_embed(commands, store)
    pids = wait_for_workers(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert have_ended(pids, 10)
    second = start_embed(commands, store).result()
    assert second.returncode == 0, second.stderr
    assert f"{PICTURES:,} files" in second.stdout
    assert es.open(store).info().items == PICTURES


def test_second_writer_is_refused_or_waits(commands, store):
    """The refusal names process, time and command in one line, exit status 1; with ``--wait`` the command waits."""
    first = start_embed(commands, store)
    wait_for_workers(first)
    second = start_embed(commands, store).result()
    err = second.stderr
    assert second.returncode == 1
    assert err.startswith("embedstore: ")
    assert f"process {first.pid} since " in err
    assert "embed" in err
    assert "--wait" in err
    assert err.count("\n") == 1
    third = start_embed(commands, store, "--wait", "60")
    assert first.wait() == 0
    done = third.result()
    assert done.returncode == 0, done.stderr
    assert f"{PICTURES:,} unchanged" in done.stdout


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process in seconds."""
    found = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(found[11]) + int(found[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_ends_an_endless_query(commands, many):
    """A query in DuckDB ends within seconds after Ctrl-C, with one line and exit status 130."""
    process = commands.start(
        CLI, "sql", many / "s", "SELECT count(*) FROM range(1000000000000) r WHERE r.range % 7 = 3"
    )
    deadline = time.monotonic() + 60
    while cpu_seconds(process.pid) < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = process.result(timeout=30)
    assert time.monotonic() - begin < 10
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == INTERRUPTED + "\n"
