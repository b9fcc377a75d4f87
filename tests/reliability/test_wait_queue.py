"""Writers that wait get the lock in the order in which they came; ended and stopped ones hold up nobody."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from embedstore.errors import StoreBusy
from embedstore.storage import lock, wait_queue

WAIT = """
import os, sys, time
from pathlib import Path
from embedstore.storage.lock import writer_lock
folder, name, hold = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with writer_lock(folder / "LOCK", name, wait=120):
    with (folder / "order").open("a") as f:
        f.write(name + "\\n")
    time.sleep(hold)
"""


def start(folder: Path, name: str, hold: float = 0.1) -> subprocess.Popen:
    """Start a process that waits for the lock, and return when it is in the queue."""
    before = inodes(folder)
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(WAIT), str(folder), name, str(hold)])
    deadline = time.monotonic() + 60
    while not inodes(folder) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert inodes(folder) - before
    return process


def inodes(folder: Path) -> set[tuple[str, int]]:
    """Return names and times of the tickets; a number can be given out again."""
    found = set()
    for ticket in folder.glob("LOCK.0*"):
        with suppress(FileNotFoundError):  # it is removed while it is looked at
            found.add((ticket.name, ticket.stat().st_ctime_ns))
    return found


def tickets(folder: Path) -> list[str]:
    """Return the names of the tickets."""
    return sorted(p.name for p in folder.glob("LOCK.0*"))


def order(folder: Path) -> list[str]:
    """Return who got the lock, in order."""
    return (folder / "order").read_text().split()


@pytest.mark.timeout(300)
def test_waiting_writers_get_the_lock_in_the_order_in_which_they_came(tmp_path):
    """Eight processes wait; a newcomer that does not wait is refused; the order is that of their arrival."""
    with lock.writer_lock(tmp_path / "LOCK", "first"):
        waiting = [start(tmp_path, str(n), 0.05) for n in range(8)]
        assert tickets(tmp_path) == [f"LOCK.{n:09d}" for n in range(1, 9)]
    with pytest.raises(StoreBusy, match="is being written by"), lock.writer_lock(tmp_path / "LOCK", "hasty"):
        pass
    assert [p.wait(timeout=120) for p in waiting] == [0] * 8
    assert order(tmp_path) == [str(n) for n in range(8)]
    assert tickets(tmp_path) == []


def test_who_cannot_choose_to_wait_is_not_told_to(tmp_path):
    """The message of a lock names the option ``--wait`` only where there is one."""
    with lock.writer_lock(tmp_path / "LOCK", "first"):
        with pytest.raises(StoreBusy, match=r"or pass --wait SECONDS$"), lock.writer_lock(tmp_path / "LOCK", "hasty"):
            pass
        with (
            pytest.raises(StoreBusy, match=r"\(first\); wait until it has ended$"),
            lock.writer_lock(tmp_path / "LOCK", "train", wait=None),
        ):
            pass


def test_one_who_comes_again_and_again_overtakes_nobody(tmp_path):
    """A writer that takes the lock, works and asks for it at once again gets it after those that wait already."""
    got, waiting = [], []
    with lock.writer_lock(tmp_path / "LOCK", "greedy"):
        waiting = [start(tmp_path, str(n)) for n in range(3)]
    for _ in range(2):
        with lock.writer_lock(tmp_path / "LOCK", "greedy", wait=120):
            got.append(order(tmp_path))
    assert got[0] == ["0", "1", "2"]
    assert [p.wait(timeout=60) for p in waiting] == [0] * 3


def test_killed_and_stopped_writers_hold_up_nobody(tmp_path, monkeypatch):
    """The ticket of a process that was killed is removed; one whose time is over, because it is stopped, is passed."""
    with lock.writer_lock(tmp_path / "LOCK", "first"):
        killed = start(tmp_path, "killed")
        killed.kill()
        killed.wait()
        last = start(tmp_path, "last")
    assert last.wait(timeout=60) == 0
    assert (order(tmp_path), tickets(tmp_path)) == (["last"], [])
    with lock.writer_lock(tmp_path / "LOCK", "first"):
        stopped = start(tmp_path, "stopped")
        stopped.send_signal(signal.SIGSTOP)
        (ticket,) = tmp_path.glob("LOCK.0*")
        ticket.write_text(f"{time.time() - wait_queue.GRACE_SECONDS - 1:.3f}")
        last = start(tmp_path, "next")
    assert last.wait(timeout=60) == 0
    assert order(tmp_path)[-1] == "next"
    stopped.kill()
    stopped.wait()


def test_writer_gives_up_after_its_time_and_leaves_the_queue(tmp_path):
    """After ``wait`` seconds the error names the holder, and the ticket is gone."""
    with lock.writer_lock(tmp_path / "LOCK", "embed photos"):
        begin = time.monotonic()
        with pytest.raises(StoreBusy, match="embed photos"), lock.writer_lock(tmp_path / "LOCK", "x", wait=0.5):
            pass
        assert 0.5 <= time.monotonic() - begin < 10
    assert tickets(tmp_path) == []


def test_threads_of_one_process_wait_in_turn(tmp_path):
    """Threads draw different tickets, and each gets the lock."""
    got = []

    def work(n: int) -> None:
        with lock.writer_lock(tmp_path / "LOCK", str(n), wait=60):
            got.append(n)

    with lock.writer_lock(tmp_path / "LOCK", "first"):
        threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
        for n, thread in enumerate(threads, 1):
            thread.start()
            while len(tickets(tmp_path)) < n:
                time.sleep(0.005)
    for thread in threads:
        thread.join(timeout=60)
    assert got == list(range(6))
    assert [p.name for p in tmp_path.iterdir()] == ["LOCK"]


def test_drafts_of_killed_processes_are_removed(tmp_path):
    """A process that is killed before its ticket has a number leaves a file; the next writer that waits removes it."""
    left, fresh = tmp_path / "LOCK.12345.678.tmp", tmp_path / "LOCK.12345.679.tmp"
    for path in (left, fresh):
        path.touch()
    os.utime(left, (time.time() - 3600,) * 2)
    with lock.writer_lock(tmp_path / "LOCK", "first"):
        last = start(tmp_path, "last")
    assert last.wait(timeout=60) == 0
    assert (left.exists(), fresh.exists()) == (False, True)


HOLD = """
import sys, time
from pathlib import Path
from embedstore.storage.lock import writer_lock
with writer_lock(Path(sys.argv[1]) / "LOCK", sys.argv[2]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.mark.parametrize(("operation", "gets_it"), [(lock.RECOVERING, True), ("adding", False)])
def test_a_writer_that_waits_for_nobody_waits_for_a_reader_that_recovers(tmp_path, operation, gets_it):
    """A search beside writers recovers what a writer left that ends just then: that keeps nobody from writing."""
    command = [sys.executable, "-c", HOLD, str(tmp_path), operation]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        threading.Timer(1.0, lambda: holder.stdin.write("\n") and holder.stdin.flush()).start()
        start = time.monotonic()
        if gets_it:
            with lock.writer_lock(tmp_path / "LOCK", "deleting"):
                assert holder.wait() == 0
        else:
            with pytest.raises(StoreBusy, match="adding"), lock.writer_lock(tmp_path / "LOCK", "deleting"):
                pass
            assert time.monotonic() - start < 0.9
            holder.wait()
