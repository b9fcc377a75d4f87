"""What `export` wrote is a table like any other: a second store takes its vectors, labels and columns."""

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadManifest
from tests.helpers.clusters import clusters, store_of

X, Y = clusters(12)
FACTS = "SELECT uri, label, split, group_id, year FROM items ORDER BY item"


@pytest.fixture
def store(tmp_path):
    """Twelve vectors with a label, a split, a group and a column of the user's own."""
    splits, groups = ["train", "val", None] * 4, [f"g{n % 5}" for n in range(12)]
    return store_of(tmp_path / "s", X, label=Y, split=splits, group=groups, year=np.arange(12) + 2000)


def test_vectors_and_columns_of_an_export_go_into_another_store(store, tmp_path):
    """The rows and the search are the same; what is left out is said."""
    exported = tmp_path / "some.parquet"
    store.export(exported, where="year < 2010")
    copied = es.create(tmp_path / "other")
    report = copied.add_vectors(exported)
    assert "item, content, size, mtime_ns, present, added describe files there and are left out" in str(report.notices)
    assert copied.sql(FACTS).rows == store.sql(FACTS).rows[: copied.info().items]
    found = [[h.uri for h in s.search(X[3], k=5, where="year < 2010")] for s in (store, copied)]
    assert found[0] == found[1]


def test_other_tables_with_such_names_are_still_refused(store, tmp_path):
    """One of the names alone is a column of the user's, which is not dropped."""
    with pytest.raises(BadManifest, match="a column 'size'"):
        store.add_vectors(X[:1], {"uri": ["/new"], "size": [3]}, space="numbers")


EMPTIED = {"label": "", "split": None, "group": "", "year": None}


@pytest.mark.parametrize("column", sorted(EMPTIED))
def test_an_import_counts_the_values_that_empty_cells_leave(store, column):
    """As an embedding of the table again does, in the user's own columns and in ours."""
    before = store.sql(FACTS).rows
    values = {"group": "group_id"}.get(column, column)
    (held,) = store.sql(f"SELECT count({values}) FROM items").rows[0]
    table = {"uri": [f"/{n}" for n in range(12)], column: [EMPTIED[column]] * 12}
    report = store.add_vectors(X, table, space="numbers")
    assert store.sql(FACTS).rows == before
    assert any(f": {held} empty cells left the stored values" in notice for notice in report.notices)
    assert store.add_vectors(X, {"uri": table["uri"]}, space="numbers").notices == ()
