"""Stage "commit" on a thread of its own: order, errors, and an early end."""

import signal
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from embedstore.pipeline.commit import CommitStage
from embedstore.pipeline.decode import PreparedFile
from embedstore.pipeline.forward import EncodedBatch
from embedstore.pipeline.plan import PlannedFile
from embedstore.pipeline.signals import StopSignal, catch_stop_signals
from embedstore.pipeline.stage_times import StageTimer
from embedstore.types import ImageRef

SECONDS = 60


def batch(first, count=2):
    """Files with a vector each, which is their number."""
    files = [
        PreparedFile(PlannedFile(ImageRef(f"{n}", f"{n}", 1, 1), None), f"{n:032x}", input=n)
        for n in range(first, first + count)
    ]
    return EncodedBatch(files, np.arange(first, first + count, dtype=np.float32)[:, None] + 1)


def stage(commit, max_rows=2):
    """A stage that commits after two files."""
    return CommitStage(commit, SimpleNamespace(dtype="float32"), max_rows=max_rows, max_seconds=1e9)


def rows(batches):
    """The digests and vectors of what was committed."""
    return [(b.digests, np.concatenate(b.vectors).ravel().tolist()) for b in batches]


def test_files_are_accepted_while_a_batch_is_written_and_the_order_stays():
    """The caller goes on while the first batch is written; everything is durable at the end, in order."""
    go_on, written, threads = threading.Event(), [], set()

    def commit(b):
        assert go_on.wait(SECONDS)
        threads.add(threading.current_thread())
        written.append(b)

    commits = stage(commit)
    with commits.on_thread(StageTimer(), StopSignal()):
        commits.add(batch(0))
        commits.add(batch(2, count=1))  # the first batch is not written yet
        assert not written
        go_on.set()
        for n in range(3, 9):
            commits.add(batch(n, count=1))
    assert [digest for digests, _ in rows(written) for digest in digests] == [f"{n:032x}" for n in range(9)]
    assert [value for _, values in rows(written) for value in values] == list(range(1, 10))
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    commits.add(batch(9))  # after the block the caller commits itself
    assert len(written) == 6
    assert commits.totals.commits == 6
    assert commits.totals.embedded == 11


@pytest.mark.parametrize("fails_at", [0, 1])
def test_an_error_of_the_disk_reaches_the_caller_and_nothing_after_it_is_written(fails_at):
    """What was written before is kept; the batch that waits is dropped."""
    written = []

    def commit(b):
        if len(written) == fails_at:
            raise OSError("disk full")
        written.append(b)

    def add_all():
        with commits.on_thread(StageTimer(), StopSignal()):
            for n in range(0, 20, 2):
                commits.add(batch(n))

    commits = stage(commit)
    with pytest.raises(OSError, match="disk full"):
        add_all()
    assert [digests for digests, _ in rows(written)] == [[f"{n:032x}" for n in (0, 1)]] * fails_at


def test_an_interrupted_block_ends_after_the_batch_that_is_being_written():
    """A second Ctrl-C leaves no thread behind that uses the store, and writes nothing more."""
    begun, written = threading.Event(), []

    def commit(b):
        begun.set()
        threading.Event().wait(0.2)
        written.append(b)

    def interrupted():
        with commits.on_thread(StageTimer(), StopSignal()):
            commits.add(batch(0))
            commits.add(batch(2, count=1))
            assert begun.wait(SECONDS)
            raise KeyboardInterrupt

    commits = stage(commit)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [digests for digests, _ in rows(written)] == [[f"{n:032x}" for n in (0, 1)]]
    assert not [t for t in threading.enumerate() if t.name.startswith("commit")]


def test_signals_wait_for_the_batch_that_is_being_written():
    """However often a person presses Ctrl-C, the block, and the store's lock around it, ends after the batch."""
    begun, written = threading.Event(), []

    def commit(b):
        begun.set()
        for _ in range(5):
            threading.Event().wait(0.1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        threading.Event().wait(0.1)
        written.append(b)

    def interrupted():
        with catch_stop_signals() as stop, commits.on_thread(StageTimer(), stop):
            commits.add(batch(0))
            assert begun.wait(SECONDS)
            threading.Event().wait(SECONDS)

    commits = stage(commit)
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(written) == 1
    assert not [t for t in threading.enumerate() if t.name.startswith("commit")]


def test_only_rows_that_can_be_stored_are_written():
    """A vector of zeros becomes a failure; the rows around it keep their own vectors."""
    encoded = batch(0, count=4)
    encoded.vectors[1] = 0
    written = []
    commits = stage(written.append, max_rows=4)
    with commits.on_thread(StageTimer(), StopSignal()):
        commits.add(encoded)
    assert rows(written) == [([f"{n:032x}" for n in (0, 2, 3)], [1.0, 3.0, 4.0])]
    assert [r.failure.uri for r in written[0].failures] == ["1"]
