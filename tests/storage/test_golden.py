"""Stores of every published format can be opened, read and written."""

import shutil

import numpy as np
import pytest

import embedstore as es
from tests.conftest import ROOT
from tests.golden.make import TABLE, VECTORS

VERSIONS = sorted(p.name for p in (ROOT / "tests" / "golden").glob("v*"))


@pytest.fixture(params=VERSIONS)
def store(request, tmp_path):
    """Return a copy of a golden store; the golden folder itself is never written."""
    shutil.copytree(ROOT / "tests" / "golden" / request.param, tmp_path / "s")
    return es.open(tmp_path / "s")


def test_first_format_is_kept():
    """There is a golden store of the first format."""
    assert "v1" in VERSIONS


def test_golden_store_is_read(store):
    """Items, columns, failure and vectors are read back value by value."""
    rows = store.sql("SELECT uri, label, split, group_id, year FROM items ORDER BY item").rows
    assert rows == tuple(zip(*(TABLE[k] for k in ("uri", "label", "split", "group", "year")), strict=True))
    failure = store.failures()[0][:3]
    assert failure == ("/golden/bad.jpg", "corrupt", "made for the golden store")
    assert np.array_equal(store.features("uri").X, VECTORS)


def test_computed_columns_of_a_golden_store_are_known(store):
    """Stores from before the table have no computed column; the next writer adds the table, and then there are some."""
    before = [c.column for c in store.info().computed]
    assert before in ([], ["duplicate_group", "duplicate_keep", "cluster", "outlier"])
    assert store.verify().ok
    store.cluster(2, cluster_column="kind", outlier_column="far")
    assert [c.column for c in store.info().computed] == [*before, "far", "kind"]
    assert store.verify().ok


def test_golden_store_is_searched_and_written(store):
    """Searches return the cosines computed by hand, and a new item is found after a write.

    (3, 4) with (4, 3) is 24/25, with (0, 1) is 4/5, with (1, 0) is 3/5, with (-3, 4) is 7/25.
    """
    hits = store.search(1, k=9)
    assert [(h.item, round(h.score, 3)) for h in hits] == [(1, 1.0), (2, 0.96), (4, 0.8), (5, 0.6), (3, 0.28)]
    assert [h.item for h in store.search(1, where="year > 2019 and split = 'val'")] == [2, 4]
    store.add_vectors(np.array([[6, 8.5]], np.float32), {"uri": ["/golden/new.jpg"], "year": [2024]}, space="golden")
    assert [h.item for h in es.open(store.path).search(1, k=2)] == [1, 6]
