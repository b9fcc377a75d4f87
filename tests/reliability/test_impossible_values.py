"""Numbers of files and rows that cannot be are damage: refused in one line, and repaired."""

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.errors import StoreDamaged
from embedstore.search.index import files
from tests.helpers.vector_stores import make
from tests.reliability.hostile_stores import create_original

VALUES = ["NULL", "-1", "9223372036854775807"]
COLUMNS = [("shards", "shard"), ("shards", "rows"), ("shards", "bytes"),
           ("counters", "next_item"), ("counters", "next_shard"), ("counters", "next_run")]  # fmt: skip


def change(store, statement):
    """Run a statement on the catalog of a store."""
    with duckdb.connect(str(store / "catalog.duckdb")) as con:
        con.execute(statement)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
@pytest.mark.parametrize("value", VALUES)
def test_an_impossible_number_is_damage_and_repaired(tmp_path, table, column, value):
    """The store is refused with the name of the table; after `repair` every vector is back, and work goes on."""
    make(tmp_path / "s", 20)
    before = es.open(tmp_path / "s")
    space = before.spaces[0].name
    expected = before.search(np.eye(1, before.spaces[0].space.dim)[0], k=20, space=space)
    change(tmp_path / "s", f'UPDATE {table} SET "{column}" = {value}')
    with pytest.raises(StoreDamaged, match=f"table {table}") as e:
        es.open(tmp_path / "s").info()
    assert "\n" not in str(e.value)
    es.repair_store(tmp_path / "s")
    after = es.open(tmp_path / "s")
    hits = after.search(np.eye(1, after.spaces[0].space.dim)[0], k=20, space=space)
    assert [(h.item, h.score) for h in hits] == [(h.item, h.score) for h in expected]
    after.edit({"label": "'new'"}, "true")
    assert not after.verify().damage


def test_a_space_without_facts_is_damage_in_every_verb(tmp_path):
    """An export names the space as every other verb does."""
    create_original(tmp_path / "s")
    change(tmp_path / "s", "UPDATE spaces SET facts = '{}'")
    store = es.open(tmp_path / "s")
    calls = [
        lambda: store.export_store(tmp_path / "e"), lambda: store.export(tmp_path / "e.parquet"),
        lambda: store.spaces, lambda: store.probe("kind"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(StoreDamaged, match="what space") as e:
            call()
        assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name", ["a" * 5000 + ".faiss", "../x.faiss", "/etc/passwd", "", "x\n.faiss", "x\0.faiss", "ü.faiss"]
)
def test_an_index_file_has_a_name_of_ours(name):
    """A description that names another file cannot be used, and nothing is looked up."""
    assert not files._FILE_NAME.fullmatch(name)
