"""A store that was moved, is open elsewhere, has no locks, or cannot be written to: the right name, at once."""

import errno
import shutil
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.errors import StoreBusy, StoreIOError, StoreNotFound, StoreTooNew
from embedstore.storage import lock
from embedstore.storage.integrity.repair import repair
from embedstore.storage.layout import COMPLETE
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import batch, expected, make, rows
from tests.reliability.operations import PREAMBLE
from tests.reliability.test_passing_errors import reads  # noqa: F401 - a fixture

QUICK = 20.0  # seconds; waiting for another process takes 30


@pytest.fixture
def quick():
    """Fail a test that takes as long as waiting for another process would."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < QUICK


def test_readers_refuse_a_later_schema(tmp_path):
    """A reader that is open and one that opens refuse tables of a later version, and so does ``repair``."""
    storage = make(tmp_path / "s", 3)
    with storage.writer("later") as writer, writer.transaction() as con:
        con.execute("INSERT INTO \"schema\" VALUES (99, 'm099_later', now())")
    for act in (
        lambda: rows(storage),
        lambda: Storage.open(tmp_path / "s"),
        lambda: storage.sql("SELECT 1"),
        lambda: repair(tmp_path / "s"),
    ):
        with pytest.raises(StoreTooNew, match=r"had 99 migrations.*pip install -U"):
            act()
    assert not storage.layout.quarantine.exists()


@pytest.mark.parametrize("how", ["moved", "deleted", "replaced by an empty folder"])
def test_store_that_is_gone_is_named(tmp_path, quick, how):
    """Reading and writing say that the store was moved or deleted, and create nothing in its place."""
    storage = make(tmp_path / "s", 3)
    rows(storage)
    shutil.move(tmp_path / "s", tmp_path / "t") if how == "moved" else shutil.rmtree(tmp_path / "s")
    if how == "replaced by an empty folder":
        (tmp_path / "s").mkdir()
    with pytest.raises(StoreNotFound, match="moved or deleted"):
        rows(storage)
    with pytest.raises(StoreNotFound, match="moved or deleted"), storage.writer("write"):
        pass
    assert not (tmp_path / "s" / "catalog.duckdb").exists()
    if how == "moved":
        assert rows(Storage.open(tmp_path / "t")) == expected(3)


def test_store_that_is_moved_during_a_run_is_named(tmp_path, quick):
    """A writer whose store is moved between two commits commits nothing anywhere, and the store has the first."""
    storage = make(tmp_path / "s", 3)

    def move_meanwhile():
        with storage.writer("adding") as writer:
            writer.commit(batch(4, 3), space=storage.space())
            (tmp_path / "s").rename(tmp_path / "t")
            writer.set_default(storage.space().key)

    with pytest.raises(StoreNotFound, match="moved or deleted"):
        move_meanwhile()
    assert rows(Storage.open(tmp_path / "t")) == expected(6)
    assert not (tmp_path / "s").exists()


def test_catalog_that_is_open_in_this_process_is_named(tmp_path, quick):
    """While a program has the catalog open with DuckDB itself, the store says so at once; afterwards it works."""
    storage = make(tmp_path / "s", 3)
    con = duckdb.connect(str(storage.layout.catalog))
    for act in (lambda: rows(storage), lambda: repair(tmp_path / "s")):
        with pytest.raises(StoreBusy, match="open in this process"):
            act()
    con.close()
    assert rows(storage) == expected(3)


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_file_system_without_locks_is_named(reads, tmp_path, quick, code):  # noqa: F811
    """Reading and writing name the missing locks in one line, without waiting and without advising a repair."""
    make(tmp_path / "s", 3)
    for job in ("Storage.open(here / 's').spaces()", "with Storage.open(here / 's').writer('x'): pass",
                "from embedstore.storage.integrity.repair import repair; repair(here / 's')"):  # fmt: skip
        done = reads.run(PREAMBLE + job, tmp_path, env={"LOCKS_ERRNO": str(code)})
        if done.returncode == 0 and "spaces()" in job:
            continue  # DuckDB itself reads without a lock where the file system says that it has none
        last = done.stderr.splitlines()[-1]
        assert last.startswith("embedstore.errors.StoreIOError: cannot lock "), done.stderr
        assert "no file locks" in last
    assert rows(Storage.open(tmp_path / "s")) == expected(3)


def _interrupt_checkpoint(storage: Storage) -> None:
    """Leave the state of a checkpoint that was killed."""
    storage.layout.guard.mkdir()
    shutil.copy(storage.layout.catalog, storage.layout.guard)
    (storage.layout.guard / COMPLETE).touch()


def _make_read_only(folder: Path) -> None:
    """Take the permission to write from everything below a folder."""
    for path in [*folder.rglob("*"), folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)


def test_interrupted_checkpoint_on_a_read_only_store_is_named(ordinary, quick):
    """A reader that cannot undo the checkpoint says so at once; where the store can be written to, it opens."""
    storage = make(ordinary / "s", 3)
    _interrupt_checkpoint(storage)
    _make_read_only(ordinary / "s")
    with pytest.raises(StoreIOError, match=r"checkpoint of .* was interrupted.*can be written to"):
        rows(Storage.open(ordinary / "s"))
    for path in [ordinary / "s", *(ordinary / "s").rglob("*")]:
        path.chmod(0o755)
    assert rows(Storage.open(ordinary / "s")) == expected(3)


def test_reader_without_permission_to_write_waits_for_a_checkpoint_of_a_writer(ordinary, monkeypatch):
    """While a writer holds the lock, its checkpoint is not taken for an interrupted one."""
    storage = make(ordinary / "s", 3)
    with lock.writer_lock(storage.layout.lock, "another process"):
        _interrupt_checkpoint(storage)
        monkeypatch.setattr("embedstore.storage.attachment._PATIENCE", 0.5)
        _make_read_only(ordinary / "s")
        with pytest.raises(StoreBusy, match="a checkpoint is under way"):
            rows(storage)
        (ordinary / "s" / "LOCK").chmod(0o644)


def test_evaluation_on_a_read_only_store_answers_and_says_that_it_was_not_recorded(ordinary):
    """``probe`` returns its evaluation, and a notice names why the run was not recorded."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["cat", "dog"], 30)
    X = rng.normal(size=(60, 4)) + 3 * (labels == "cat")[:, None]
    store = es.create(ordinary / "s")
    store.add_vectors(X.astype(np.float32), {"uri": [f"{n}.jpg" for n in range(60)], "label": labels}, space="x")
    runs = store.info().runs
    _make_read_only(ordinary / "s")
    store = es.open(ordinary / "s")
    assert store.probe("label").n_train > 20
    (notice,) = [n for n in store.notices if "not among the runs" in n]
    assert "Permission denied" in notice
    assert es.open(ordinary / "s").info().runs == runs


def test_commit_counter_that_cannot_be_written_to_prevents_the_commit(ordinary):
    """With COMMITTED read-only, the change is refused and the store is as before."""
    storage = make(ordinary / "s", 3)
    counter = ordinary / "s" / "COMMITTED"
    counter.chmod(0o444)
    with (
        pytest.raises(StoreIOError, match="COMMITTED cannot be written to: Permission denied"),
        storage.writer("edit") as writer,
        writer.transaction() as con,
    ):
        con.execute("UPDATE items SET label = 'new'")
    assert storage.sql("SELECT count(*) FROM items WHERE label = 'new'")[1] == [(0,)]
    counter.chmod(0o644)
    with storage.writer("edit") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET label = 'new'")
    assert storage.sql("SELECT count(*) FROM items WHERE label = 'new'")[1] == [(3,)]


JOB = (
    PREAMBLE
    + """
storage = Storage.open(here / "s")
with storage.writer("edit") as writer, writer.transaction() as con:
    con.execute("UPDATE items SET label = 'new'")
"""
)


@pytest.mark.timeout(300)
def test_message_of_a_failed_commit_says_whether_the_change_is_committed(recorder, tmp_path):
    """One EIO at each write and sync of a change: success, "committed" and "not committed" are what the store holds."""
    from tests.reliability.disk_simulation import read_log, run

    make(tmp_path / "base" / "s", 3)

    def attempt(**settings):
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        shutil.copytree(tmp_path / "base", tmp_path / "d")
        return run(recorder, tmp_path / "d", code=JOB, **settings)

    assert attempt(log=tmp_path / "log").returncode == 0
    said = set()
    for step in range(1, len(read_log(tmp_path / "log")) + 1):
        done = attempt(fail=step, errno=errno.EIO)
        last = (done.stderr.splitlines() or [""])[-1]
        changed = Storage.open(tmp_path / "d" / "s").sql("SELECT count(*) FROM items WHERE label = 'new'")[1] == [(3,)]
        if done.returncode == 0 or "is committed, do not" in last or "itself is committed" in last:
            said.add("committed")
            assert changed, (step, last)
        elif "is not committed" in last:
            said.add("not committed")
            assert not changed, (step, last)
    assert "committed" in said
