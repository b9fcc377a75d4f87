"""Readers that continue after their read of the catalog see one generation while another process compacts."""

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
from embedstore.storage import purge as purging
from embedstore.storage.storage import Storage
storage = Storage.open(sys.argv[1])
with storage.writer("compact") as writer:
    purging.purge(writer, item_changes.ItemSelection(items=[3]))
    compact.compact(storage, writer)
"""


@pytest.fixture
def store(tmp_path):
    """Create a store of three small vector files with one deleted item."""
    storage = make(tmp_path / "s", 8, 8, 8)
    with storage.writer("delete") as writer:
        delete(writer, ItemSelection(items=[9]))
    return storage


PRESENT = [n for n in range(1, 25) if n != 9]


def compact_elsewhere(storage: Storage) -> None:
    """Purge item 3 and compact in another process: every vector file is replaced."""
    before = set(storage.layout.root.rglob("*.vec"))
    subprocess.run([sys.executable, "-c", COMPACT, str(storage.layout.root)], check=True, cwd=ROOT)
    assert not before & set(storage.layout.root.rglob("*.vec"))


def compact_before_first_vector(monkeypatch, storage: Storage) -> None:
    """Compact between the read of the catalog and the read of the first vector."""
    gather, done = VectorReader.read_stored, []

    def late(self, positions):
        if not done:
            done.append(compact_elsewhere(storage))
        return gather(self, positions)

    monkeypatch.setattr(VectorReader, "read_stored", late)


def check_features(storage: Storage) -> None:
    found = features.load_features(storage, storage.space(), "label")
    assert found.ids.tolist() == PRESENT
    assert np.array_equal(found.X, np.array([vector(n) for n in PRESENT]))


def check_export(storage: Storage) -> None:
    path = storage.layout.root.with_name("out.parquet")
    assert export.export_items(storage, storage.space(), Path(path), where=None) == len(PRESENT)
    with duckdb.connect() as con:
        rows = con.execute(f"SELECT item, vector FROM '{path}' ORDER BY item").fetchall()
    assert rows == [(n, vector(n).tolist()) for n in PRESENT]


def check_stream(storage: Storage) -> None:
    with vector_stream.open_vector_stream(storage, storage.space(), None) as found:
        blocks = list(found.iter_blocks(5))
    items = np.concatenate([b[1] for b in blocks]).tolist()
    got = np.concatenate([b[2] for b in blocks]).tolist()
    assert dict(zip(items, got, strict=True)) == {n: vector(n).tolist() for n in PRESENT}


CHECKS = [check_features, check_export, check_stream]


@pytest.mark.parametrize("check", CHECKS)
def test_compaction_during_a_read_changes_nothing(store, monkeypatch, check):
    """The reader returns its generation, with the item that was purged meanwhile; the next reader does not."""
    compact_before_first_vector(monkeypatch, store)
    check(store)
    monkeypatch.undo()
    assert 3 not in features.load_features(Storage.open(store.layout.root), store.space(), "label").ids


def test_compaction_breaks_a_reader_that_does_not_map_its_files(store, monkeypatch):
    """As a control: without mapped files, the same compaction is an error."""
    compact_before_first_vector(monkeypatch, store)
    monkeypatch.setattr(VectorReader, "map_shards", lambda self, shards=None: self)
    with pytest.raises(StoreDamaged, match="No such file"):
        check_features(store)
