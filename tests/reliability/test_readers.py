"""Readers that work on after their read closed, while another process compacts: one generation, to the end."""

import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest

from embedstore.classify.data import features
from embedstore.errors import StoreDamaged
from embedstore.storage import vector_stream
from embedstore.storage.item_changes import ItemSelection, delete
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import export
from embedstore.storage.vectors import VectorReader
from tests.conftest import ROOT
from tests.helpers.vector_stores import make, vector

COMPACT = """
import sys
from embedstore.storage import compact, item_changes
from embedstore.storage.storage import Storage
storage = Storage.open(sys.argv[1])
with storage.writer("compact") as writer:
    item_changes.purge(writer, item_changes.ItemSelection(items=[3]))
    compact.compact(storage, writer)
"""


@pytest.fixture
def store(tmp_path):
    """Three small files, one item deleted."""
    storage = make(tmp_path / "s", 8, 8, 8)
    with storage.writer("delete") as writer:
        delete(writer, ItemSelection(items=[9]))
    return storage


THERE = [n for n in range(1, 25) if n != 9]


def compacted(storage: Storage) -> None:
    """Another process forgets item 3 and compacts: every file that was there is gone."""
    before = set(storage.layout.root.rglob("*.vec"))
    subprocess.run([sys.executable, "-c", COMPACT, str(storage.layout.root)], check=True, cwd=ROOT)
    assert not before & set(storage.layout.root.rglob("*.vec"))


def interrupted(monkeypatch, storage: Storage) -> None:
    """The compaction comes between the read of the catalog and the first vector."""
    gather, done = VectorReader.read_float32, []

    def late(self, positions):
        if not done:
            done.append(compacted(storage))
        return gather(self, positions)

    monkeypatch.setattr(VectorReader, "read_float32", late)


def check_features(storage: Storage) -> None:
    found = features.load_features(storage, storage.space(), "label")
    assert found.ids.tolist() == THERE
    assert np.array_equal(found.X, np.array([vector(n) for n in THERE]))


def check_export(storage: Storage) -> None:
    path = storage.layout.root.with_name("out.parquet")
    assert export.export_items(storage, storage.space(), Path(path), where=None) == len(THERE)
    with duckdb.connect() as con:
        rows = con.execute(f"SELECT item, vector FROM '{path}' ORDER BY item").fetchall()
    assert rows == [(n, vector(n).tolist()) for n in THERE]


def check_stream(storage: Storage) -> None:
    with vector_stream.open_vector_stream(storage, storage.space(), None) as found:
        blocks = list(found.iter_blocks(5))
    items = np.concatenate([b[1] for b in blocks]).tolist()
    got = np.concatenate([b[2] for b in blocks]).tolist()
    assert dict(zip(items, got, strict=True)) == {n: vector(n).tolist() for n in THERE}


CHECKS = [check_features, check_export, check_stream]


@pytest.mark.parametrize("check", CHECKS)
def test_a_compaction_meanwhile_changes_nothing(store, monkeypatch, check):
    """Also what was forgotten meanwhile is in the generation that was read; the next one has it not."""
    interrupted(monkeypatch, store)
    check(store)
    monkeypatch.undo()
    assert 3 not in features.load_features(Storage.open(store.layout.root), store.space(), "label").ids


def test_a_reader_that_holds_nothing_is_noticed(store, monkeypatch):
    """The control: without holding the files, the same compaction is an error."""
    interrupted(monkeypatch, store)
    monkeypatch.setattr(VectorReader, "map_shards", lambda self, shards=None: self)
    with pytest.raises(StoreDamaged, match="No such file"):
        check_features(store)
