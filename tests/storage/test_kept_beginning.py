"""What DuckDB overwrites when it takes a catalog for missing is put back."""

import shutil

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.storage.kept_beginning import KeptBeginning


@pytest.mark.parametrize("with_log", [True, False])
def test_a_catalog_with_an_empty_database_written_over_it_is_put_back(tmp_path, with_log):
    """Its items are all there, those in the log included."""
    store = es.create(tmp_path / "s")
    store.add_vectors(np.eye(4, dtype=np.float32))
    store.close()
    file, log = tmp_path / "s" / "catalog.duckdb", tmp_path / "s" / "catalog.duckdb.wal"
    if with_log:
        log.write_bytes(b"")
    duckdb.connect(tmp_path / "empty.duckdb").close()
    before = file.read_bytes(), log.exists()
    with KeptBeginning(file, log) as kept:
        assert not kept.is_overwritten()
        log.unlink(missing_ok=True)
        with file.open("r+b") as written, (tmp_path / "empty.duckdb").open("rb") as empty:
            shutil.copyfileobj(empty, written)
        assert kept.is_overwritten()
        kept.put_back()
        assert not kept.is_overwritten()
    assert (file.read_bytes(), log.exists()) == before
    assert es.open(tmp_path / "s").verify().ok
