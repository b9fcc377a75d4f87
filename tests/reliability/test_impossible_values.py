"""Numbers of files and rows that cannot be are damage: refused in one line, and repaired."""

import contextlib
import re

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.errors import StoreDamaged
from embedstore.search.index import files
from embedstore.storage import catalog_check
from tests.helpers.vector_stores import make
from tests.reliability.hostile_stores import create_original

VALUES = ["NULL", "-1", "9223372036854775807"]
COLUMNS = [("shards", "shard"), ("shards", "rows"), ("shards", "bytes"),
           ("counters", "next_item"), ("counters", "next_shard"), ("counters", "next_run")]  # fmt: skip


def change(store, statement):
    """Run a statement on the catalog of a store."""
    with duckdb.connect(str(store / "catalog.duckdb")) as con:
        con.execute(statement)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        pytest.param(*of, value, marks=() if (n - k) % len(VALUES) == 0 else pytest.mark.slow)  # one of each column
        for k, of in enumerate(COLUMNS)
        for n, value in enumerate(VALUES)
    ],
)
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


def identities():
    """The columns that say what a row of a table is of."""
    return [
        (table, name)
        for table, condition in catalog_check.IMPOSSIBLE.items()
        if table not in ("shards", "counters")
        for name in re.findall(r'"?(\w+)"? IS NULL', condition)
    ]


MORE_ROWS = """
INSERT INTO failures (uri, reason) VALUES ('a', 'missing'), ('b', 'missing');
INSERT INTO predictions (head, item) VALUES ('kind', 1), ('kind', 2);
INSERT INTO runs (run, verb) VALUES (1000, 'edit'), (1001, 'edit')
"""


LAST_ROW = "rowid = (SELECT max(rowid) FROM {table})"


@pytest.mark.parametrize(
    ("table", "column", "row"),
    [(*of, "true") for of in identities()]
    + [pytest.param(*of, LAST_ROW, marks=pytest.mark.slow) for of in identities() if of[0] in ("items", "vectors")],
)
def test_a_row_that_is_of_nothing_is_damage_and_repaired(tmp_path, table, column, row):
    """Every verb works after `repair`, every item keeps its uri, its label and its own columns."""
    create_original(tmp_path / "s")
    items = {uri: values for uri, *values in es.open(tmp_path / "s").sql("SELECT uri, label, year FROM items").rows}
    change(tmp_path / "s", MORE_ROWS)
    change(tmp_path / "s", f'UPDATE {table} SET "{column}" = NULL WHERE {row.format(table=table)}')
    with pytest.raises(StoreDamaged, match=f"table {table}") as e:
        es.open(tmp_path / "s").info()
    assert "\n" not in str(e.value)
    es.repair_store(tmp_path / "s")
    after = es.open(tmp_path / "s")
    for call in (after.info, after.compact, lambda: after.features("label"), lambda: after.search(np.ones(4), k=3)):
        with contextlib.suppress(es.EmbedstoreError):  # there may be nothing left to search
            call()
    assert not after.verify().damage
    left = {uri: values for uri, *values in after.sql("SELECT uri, label, year FROM items").rows}
    assert left.items() <= items.items()
    assert len(left) == len(items) or (table, column) == ("items", "uri")
    numbers = [n for (n,) in after.sql("SELECT item FROM items").rows]
    assert len(set(numbers)) == len(numbers)


def test_compact_names_a_damaged_block_of_the_catalog(tmp_path):
    """The whole catalog is read, also blocks that no verb before needed."""
    store = make(tmp_path / "s", 2000)
    refused = 0
    data = store.layout.catalog.read_bytes()
    for at in range(12288 + 4096, len(data), len(data) // 12):
        store.layout.catalog.write_bytes(data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :])
        try:
            es.open(tmp_path / "s").compact()
        except StoreDamaged as e:
            refused += 1
            assert "\n" not in str(e)  # noqa: PT017 - a block that is not in use may be damaged without harm
            assert "repair" in str(e)  # noqa: PT017
        for log in tmp_path.glob("s/*.wal"):
            log.unlink()
    assert refused > 2


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
    assert not files.INDEX_FILE_NAME.fullmatch(name)
