"""Commits are durable, one writer writes at a time, and opening a store recovers from a crash."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.arrays import unit_rows
from embedstore.errors import (
    DimensionMismatch,
    NotAStore,
    SpaceNotFound,
    StoreBusy,
    StoreDamaged,
    StoreExists,
    StoreNotFound,
    StoreTooNew,
)
from embedstore.storage import checkpoint
from embedstore.storage.commit import CommitBatch, storable_rows
from embedstore.storage.integrity.repair import repair
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import SPACE, batch, digest, expected, make, rows, vector


def start_python(code: str, *arguments: str) -> subprocess.Popen:
    """Start a second process."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_committed_rows_are_read_back(tmp_path):
    """Items, ids, image facts and vectors are read back as committed, in order."""
    make(tmp_path / "s", 3, 2)
    storage = Storage.open(tmp_path / "s")
    assert rows(storage) == expected(5)
    names, found = storage.sql("SELECT item, uri, label, size FROM items ORDER BY item")
    assert names == ["item", "uri", "label", "size"]
    assert found[0] == (1, "/i/1.jpg", "c1", 1)
    assert [r[0] for r in found] == [1, 2, 3, 4, 5]
    assert storage.sql("SELECT width, format FROM contents ORDER BY bytes")[1][2] == (3, "JPEG")


def test_changed_file_keeps_the_id_of_its_item(tmp_path):
    """A changed file is the same item with another content."""
    storage = make(tmp_path / "s", 3)
    changed = batch(10, 1)
    row = changed.items[0]
    changed.items = [type(row)(row.ref, row.content, item=2)]
    with storage.writer("test") as writer:
        writer.commit(changed, space=storage.space())
    assert storage.sql("SELECT item, uri, content FROM items ORDER BY item")[1][1][:2] == (2, "/i/10.jpg")
    assert rows(storage)["/i/10.jpg"] == vector(10).tolist()
    assert storage.sql("SELECT count(*) FROM items")[1] == [(3,)]


def test_rejected_commit_changes_nothing(tmp_path):
    """Vectors of another dimension are rejected, and the store is unchanged."""
    storage = make(tmp_path / "s", 3)
    bad = CommitBatch(digests=[digest(9)], vectors=[np.ones(5, np.float32)])
    with storage.writer("test") as writer, pytest.raises(DimensionMismatch, match="vectors of 4, these have 5"):
        writer.commit(bad, space=storage.space())
    assert rows(Storage.open(tmp_path / "s")) == expected(3)


def test_storable_rows_are_finite_nonzero_and_in_range():
    """NaN, infinity, zero, lengths that overflow, and numbers too large or too small for float16 cannot be stored."""
    rows_given = np.array(
        [[1, 2], [np.nan, 1], [np.inf, 1], [0, 0], [1e5, 1], [1e-9, 0], [1e30, 1], [1e-30, 0]], np.float32
    )
    assert storable_rows(rows_given, "float16").tolist() == [True, *[False] * 7]
    assert storable_rows(rows_given, "float32").tolist() == [True, False, False, False, True, True, False, False]


@settings(max_examples=200, deadline=None)
@given(st.integers(-30, 20), st.integers(1, 64), st.integers(0, 10**6))
def test_storable_rows_in_float16_rank_as_in_float32(exponent, dim, seed):
    """At any scale: what may be stored has cosines within 0.2% of the exact ones; unit rows always may."""
    X = np.random.default_rng(seed).standard_normal((20, dim)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    assert storable_rows(X, "float16").all()
    scaled = np.ldexp(X, exponent).astype(np.float32)
    kept = storable_rows(scaled, "float16")
    with np.errstate(over="ignore", invalid="ignore"):
        stored = unit_rows(scaled.astype(np.float16)[kept])
    assert np.abs(stored @ X.T - X[kept] @ X.T).max(initial=0) < 2e-3
    assert kept.all() or not -10 <= exponent <= 10


@settings(max_examples=200, deadline=None)
@given(st.integers(-34, 17), st.integers(1, 600), st.integers(0, 4), st.integers(0, 10**6))
def test_rows_that_are_stored_in_float16_without_a_closer_look_are_exact_enough(exponent, dim, heavy, seed):
    """At any length, and with values of very different sizes: the error of a row that may be stored is below 2^-10."""
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((20, dim)) * np.exp2(-heavy * rng.exponential(2, (20, dim)))).astype(np.float32)
    X = np.ldexp(X, exponent)
    kept = X[storable_rows(X, "float16")].astype(np.float64)
    error = np.linalg.norm(kept.astype(np.float16).astype(np.float64) - kept, axis=1)
    assert (error <= 2.0**-10 * np.linalg.norm(kept, axis=1)).all()


def test_the_log_of_a_large_catalog_may_be_longer(tmp_path, monkeypatch):
    """A checkpoint copies the whole catalog, so that it comes after a share of it; a small one has a fixed limit."""
    storage = make(tmp_path / "s", 3)
    size = storage.layout.catalog.stat().st_size
    assert checkpoint.longest_log(storage.layout) == checkpoint.CHECKPOINT_BYTES
    monkeypatch.setattr(checkpoint, "LARGE_CATALOG", size)
    assert checkpoint.longest_log(storage.layout) == size // 16


@pytest.mark.parametrize("name", ["a file", "a folder", "nothing"])
def test_path_without_a_store_is_reported(tmp_path, name):
    """A path without a store raises an error that names the command to create one."""
    path = tmp_path / name
    if name == "a file":
        path.write_text("x")
    if name == "a folder":
        path.mkdir()
    with pytest.raises(StoreNotFound if name == "nothing" else NotAStore, match="embedstore create"):
        Storage.open(path)


def test_create_never_overwrites(tmp_path):
    """A folder with a file in it is rejected and unchanged; an empty one is used."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(StoreExists):
        Storage.create(tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["mine.txt"]
    (tmp_path / "empty").mkdir()
    Storage.create(tmp_path / "empty")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "full"]


def test_store_of_a_later_version_is_rejected(tmp_path):
    """A later version is detected by the marker file and by the migrations."""
    storage = make(tmp_path / "s", 1)
    with storage.catalog.write() as con:
        con.execute("INSERT INTO \"schema\" VALUES (99, 'm099_future', NULL)")
    with pytest.raises(StoreTooNew, match=r"had 99 migrations.*pip install -U"), storage.writer("test"):
        pass
    storage.layout.marker.write_text(json.dumps({"format": 2, "id": "x"}))
    with pytest.raises(StoreTooNew, match="format 2"):
        Storage.open(tmp_path / "s")


def test_missing_space_names_the_cure(tmp_path):
    """The message names the option that creates a space; for a wrong name it lists similar names."""
    storage = Storage.create(tmp_path / "s")
    with pytest.raises(SpaceNotFound, match="--backbone"):
        storage.space()
    with pytest.raises(SpaceNotFound, match="did you mean test"):
        make(tmp_path / "t", 1).space("tets")


def test_second_writer_learns_who_is_writing(tmp_path):
    """The error names process, time and operation; readers continue, and a writer that waits gets its turn."""
    make(tmp_path / "s", 3)
    other = start_python(
        """
        import sys, time
        from embedstore.storage.storage import Storage
        with Storage.open(sys.argv[1]).writer("counting sheep"):
            print("in", flush=True)
            time.sleep(1.5)
        """,
        str(tmp_path / "s"),
    )
    assert other.stdout.readline() == "in\n"
    storage = Storage.open(tmp_path / "s")
    with pytest.raises(StoreBusy, match=rf"process {other.pid} since .* \(counting sheep\)"), storage.writer("x"):
        pass
    assert rows(storage) == expected(3)
    with storage.writer("patient", wait=20):
        pass
    assert other.wait() == 0


def test_readers_see_whole_commits_while_another_process_writes(tmp_path):
    """A reader only sees whole commits, and never fewer than before."""
    make(tmp_path / "s")
    other = start_python(
        """
        import sys
        from tests.helpers.vector_stores import batch
        from embedstore.storage.storage import Storage
        storage = Storage.open(sys.argv[1])
        print("in", flush=True)
        with storage.writer("adding") as writer:
            for i in range(30):
                writer.commit(batch(1 + 10 * i, 10), space=storage.space())
        """,
        str(tmp_path / "s"),
    )
    other.stdout.readline()
    storage, seen = Storage.open(tmp_path / "s"), []
    while other.poll() is None:
        seen.append(len(rows(storage)))
    assert other.returncode == 0, other.stderr.read()
    seen.append(len(rows(storage)))
    assert seen == sorted(seen)
    assert {n % 10 for n in seen} == {0}
    assert len(set(seen)) > 2
    assert rows(storage) == expected(300)


def test_threads_share_a_store(tmp_path):
    """Four threads read while a fifth commits: none fails, and every read sees whole commits."""
    storage = make(tmp_path / "s", 10)
    problems, seen = [], []

    def read_repeatedly():
        try:
            for _ in range(20):
                seen.append(len(rows(Storage.open(tmp_path / "s"))))
        except Exception as e:  # any error fails the test
            problems.append(e)

    threads = [threading.Thread(target=read_repeatedly) for _ in range(4)]
    for t in threads:
        t.start()
    with storage.writer("adding") as writer:
        for i in range(10):
            writer.commit(batch(11 + 10 * i, 10), space=storage.space())
    for t in threads:
        t.join()
    assert problems == []
    assert {n % 10 for n in seen} == {0}
    assert rows(storage) == expected(110)


@pytest.mark.parametrize("seed", range(4))
def test_sigkill_loses_no_acknowledged_row(tmp_path, seed):
    """After SIGKILL at a random moment every acknowledged commit is there, and every row is correct."""
    make(tmp_path / "s")
    other = start_python(
        """
        import sys
        from tests.helpers.vector_stores import batch
        from embedstore.storage.storage import Storage
        storage = Storage.open(sys.argv[1])
        with storage.writer("adding") as writer:
            for i in range(10_000):
                writer.commit(batch(1 + 8 * i, 8), space=storage.space())
                print(8 * (i + 1), flush=True)
        """,
        str(tmp_path / "s"),
    )
    acknowledged = [int(other.stdout.readline()) for _ in range(5)]
    time.sleep(np.random.default_rng(seed).uniform(0, 0.3))
    other.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in other.stdout.read().split()]
    storage = Storage.open(tmp_path / "s")
    with storage.writer("again") as writer:
        found = rows(storage)
        assert len(found) >= acknowledged[-1]
        assert len(found) % 8 == 0
        assert found == expected(len(found))
        writer.commit(batch(len(found) + 1, 8), space=storage.space())
    assert rows(storage) == expected(len(found) + 8)


def test_repair_registers_vectors_that_the_catalog_lost(tmp_path):
    """A catalog from two commits ago is rejected; repair registers their vector files, and quarantines a truncated
    one."""
    storage = make(tmp_path / "s", 3)
    shutil.copy(storage.layout.catalog, tmp_path / "old")
    with storage.writer("test") as writer:
        writer.commit(batch(4, 3), space=storage.space())
        writer.commit(batch(7, 3), space=storage.space())
    shutil.copy(tmp_path / "old", storage.layout.catalog)
    storage.layout.wal.unlink(missing_ok=True)
    last = sorted(storage.layout.shards_folder(SPACE.key).iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-5])
    with pytest.raises(StoreDamaged, match=r"at commit 2, but commit 4 was acknowledged.*embedstore repair"):
        Storage.open(tmp_path / "s")
    done = repair(tmp_path / "s").actions
    assert [("2 acknowledged commits" in n, "3 vectors" in n, "moved to" in n) for n in done] == [
        (True, False, False), (False, True, False), (False, False, True),
    ]  # fmt: skip
    storage = Storage.open(tmp_path / "s")
    assert storage.notices == []
    assert storage.sql("SELECT count(*) FROM vectors")[1] == [(6,)]
    assert storage.sql("SELECT count(*) FROM items")[1] == [(3,)]
    assert len(list(storage.layout.quarantine.iterdir())) == 1
    with storage.writer("test") as writer:
        writer.commit(CommitBatch(items=batch(4, 3).items), space=storage.space())
    assert rows(storage) == expected(6)


def test_interrupted_checkpoint_is_undone(tmp_path):
    """If a checkpoint tore the catalog, opening the store restores the guard copy and reports it."""
    storage = make(tmp_path / "t", 5)
    with storage.catalog.write() as con:
        con.execute("INSERT INTO runs VALUES (1, 'x', NULL, NULL, NULL, NULL, 0)")
    at = storage.layout
    at.guard.mkdir()
    shutil.copy(at.catalog, at.guard)
    shutil.copy(at.wal, at.guard)
    (at.guard / "COMPLETE").touch()
    torn = bytearray(at.catalog.read_bytes())
    torn[4096:12288] = bytes(8192)  # both database headers, as an interrupted checkpoint leaves them
    at.catalog.write_bytes(torn)
    reopened = Storage.open(tmp_path / "t")
    assert rows(reopened) == expected(5)
    assert reopened.sql("SELECT verb FROM runs")[1] == [("x",)]
    assert reopened.notices == ["a checkpoint was interrupted: the catalog was restored from its guard copy"]
    assert not checkpoint.has_interrupted_checkpoint(at)


def test_torn_log_loses_only_its_last_entry(tmp_path):
    """A damaged last entry of the log is cut off, and the whole log is quarantined."""
    storage = make(tmp_path / "s", 5)
    with storage.catalog.write() as con:
        con.execute("INSERT INTO runs VALUES (1, 'kept', NULL, NULL, NULL, NULL, 0)")
    whole = storage.layout.wal.stat().st_size
    acknowledged = (storage.layout.root / "COMMITTED").read_bytes()
    with storage.catalog.write() as con:
        con.execute("INSERT INTO runs VALUES (2, 'torn', NULL, NULL, NULL, NULL, 0)")
    log = bytearray(storage.layout.wal.read_bytes())
    log[whole + 20 : whole + 40] = bytes(20)
    storage.layout.wal.write_bytes(log)
    (storage.layout.root / "COMMITTED").write_bytes(acknowledged)  # the power failed before the commit was acknowledged
    reopened = Storage.open(tmp_path / "s")
    assert reopened.sql("SELECT verb FROM runs")[1] == [("kept",)]
    assert rows(reopened) == expected(5)
    assert len(reopened.notices) == 1
    assert "cut at byte" in reopened.notices[0]
    assert len(list(reopened.layout.quarantine.iterdir())) == 1


def test_missing_vector_file_is_named(tmp_path):
    """Reading vectors of a missing file raises an error that names the file."""
    storage = make(tmp_path / "s", 3, 3)
    file = sorted(storage.layout.shards_folder(SPACE.key).iterdir())[0]
    file.unlink()
    with pytest.raises(StoreDamaged, match=file.name):
        rows(Storage.open(tmp_path / "s"))


def test_plain_duckdb_reads_the_catalog(tmp_path):
    """A plain DuckDB connection reads the tables of the catalog."""
    storage = make(tmp_path / "s", 3)
    with duckdb.connect(str(storage.layout.catalog), read_only=True) as con:
        assert con.execute("SELECT label, count(*) FROM items GROUP BY 1 ORDER BY 1").fetchall() == [
            ("c0", 1), ("c1", 1), ("c2", 1),
        ]  # fmt: skip


def test_forked_child_opens_its_own_connection(tmp_path):
    """A forked child reads an open store, and the parent can continue to read and write."""
    storage = make(tmp_path / "s", 3)
    rows(storage)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if rows(storage) == expected(3) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    with storage.writer("test") as writer:
        writer.commit(batch(4, 2), space=storage.space())
    assert rows(storage) == expected(5)


def test_column_of_another_type_is_rejected(tmp_path):
    """Text cannot be added to a column that holds numbers; numbers of a smaller type can."""
    from embedstore.errors import BadManifest

    storage = make(tmp_path / "s", 1)
    with storage.writer("test") as writer:
        writer.add_columns({"year": "BIGINT"})
        with writer.transaction() as con:
            con.execute("UPDATE items SET year = 2019")
        writer.add_columns({"year": "INTEGER", "note": "VARCHAR"})
        with pytest.raises(BadManifest, match="'year' is VARCHAR here and BIGINT in the store"):
            writer.add_columns({"year": "VARCHAR"})
    assert storage.columns()["note"] == "VARCHAR"
