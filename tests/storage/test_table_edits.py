"""Edits from a table: a row means one item, whichever way it is named, and what an export wrote can be brought back."""

import csv

import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest, QueryError


@pytest.fixture
def store(tmp_path):
    """Four items in another order than their names."""
    store = es.create(tmp_path / "s")
    store.add_vectors(np.eye(4, dtype=np.float32), {"uri": [f"/p/{n}.jpg" for n in "dbca"], "label": list("DBCA")})
    return store


def labels(store):
    """The labels by item."""
    return dict(store.sql("SELECT item, label FROM items").rows)


def test_an_id_beside_the_uri_of_another_item_is_refused(store):
    """Ids of another store would set other items; the user says which of the two counts."""
    table = {"item": [1, 2], "uri": ["/p/d.jpg", "/p/c.jpg"], "label": ["x", "y"]}
    with pytest.raises(BadManifest, match=r"row 2 is item 2 with uri /p/c\.jpg, and in this store item 2 is /p/b\.jpg"):
        store.edit_from_table(table)
    assert labels(store) == dict(enumerate("DBCA", 1))
    store.edit_from_table(table, key="item")
    assert labels(store) == {1: "x", 2: "y", 3: "C", 4: "A"}
    store.edit_from_table({**table, "label": ["q", "r"]}, key="uri")
    assert labels(store) == {1: "q", 2: "y", 3: "r", 4: "A"}


def test_an_id_without_a_uri_is_enough(store):
    """Empty cells contradict nothing."""
    store.edit_from_table({"item": [1, 2], "uri": [None, ""], "label": ["x", "y"]})
    assert labels(store) == {1: "x", 2: "y", 3: "C", 4: "A"}


@pytest.mark.parametrize("item", ["1.5", "one", "", "1e30", "nan"])
def test_an_id_is_a_whole_number(store, tmp_path, item):
    """Rounding would set another item."""
    (tmp_path / "t.csv").write_text(f"item,label\n2,y\n{item},x\n")
    with pytest.raises(BadManifest, match=r"row 2 has (nothing|'.*') as item, not a whole number; nothing was changed"):
        store.edit_from_table(tmp_path / "t.csv")
    assert labels(store)[2] == "B"


def test_floats_that_are_whole_are_ids(store):
    """Pandas makes floats of a column with an empty cell."""
    store.edit_from_table({"item": [1.0, 2.0], "label": ["x", "y"]})
    assert labels(store) == {1: "x", 2: "y", 3: "C", 4: "A"}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_export_is_edited_and_brought_back(store, tmp_path, suffix):
    """Its columns that describe the files are as in the store, and are left alone."""
    store.export(tmp_path / f"all.{suffix}", vectors=False)
    rows = duckdb.sql(f"FROM '{tmp_path}/all.{suffix}'")
    rows.project("* REPLACE (lower(label) AS label)").order("label").write_csv(str(tmp_path / "edited.csv"))
    assert store.edit_from_table(tmp_path / "edited.csv").items == 4
    assert labels(store) == dict(enumerate("dbca", 1))


@given(column=st.sampled_from(["content", "size", "mtime_ns", "present", "added"]), row=st.integers(0, 3))
def test_what_describes_the_file_cannot_be_set(tmp_path_factory, column, row):
    """Another value than the store's is refused with its row, and nothing is changed."""
    folder = tmp_path_factory.mktemp("fixed")
    store = es.create(folder / "s")
    store.add_vectors(np.eye(4, dtype=np.float32), {"uri": list("dbca"), "label": list("DBCA")})
    store.export(folder / "all.csv")
    with (folder / "all.csv").open() as file:
        rows = list(csv.DictReader(file))
    other = {"size": "7", "mtime_ns": "7", "present": "false", "added": "2001-01-01 00:00:00", "content": "x"}
    rows[row] |= {column: other[column], "label": "new"}
    with (folder / "edited.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(QueryError, match=f"row {row + 1} has another {column} than the store"):
        store.edit_from_table(folder / "edited.csv")
    assert labels(store) == dict(enumerate("DBCA", 1))


def test_a_table_with_nothing_to_set_says_so(store, tmp_path):
    """Only columns that describe the file are left."""
    with pytest.raises(QueryError, match="no column to set besides size"):
        store.edit_from_table({"item": [1], "size": [0]})
