"""Near-duplicates, clusters and outliers are found where they were planted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import create
from embedstore.errors import QueryError
from embedstore.search.index import self_join


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def store(tmp_path):
    """Rows at 0, 10 and 20 degrees (a chain), two at 90 and 91, one alone at 180; splits as given."""
    degrees = np.radians([0, 10, 20, 90, 91, 180])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    store = create(tmp_path / "s")
    table = {
        "uri": [f"/{n}" for n in range(6)],
        "split": ["train", "train", "val", "val", "val", "train"],
    }
    store.add_vectors(vectors, table)
    return store


def test_pairs_join_into_chains_and_the_lowest_cosine_is_reported(store):
    """At cos 12 degrees, 0-10-20 degrees is one group with a lowest cosine of cos 10 degrees, and 90-91 another."""
    found = store.duplicates(float(np.cos(np.radians(12))))
    assert [(i.group, i.item, i.keep) for i in found.items] == [
        (1, 1, True), (1, 2, False), (1, 3, False), (2, 4, True), (2, 5, False),
    ]  # fmt: skip
    assert [i.min_cosine for i in found.items] == pytest.approx(
        [np.cos(np.radians(10))] * 3 + [np.cos(np.radians(1))] * 2, abs=1e-3
    )
    assert (found.group_count, found.content_count, found.recall) == (2, 6, 1.0)


def test_pairs_across_splits_are_listed(store):
    """In the chain, only 10-20 degrees is a pair in different splits."""
    found = store.duplicates(float(np.cos(np.radians(12))))
    assert [(p.item, p.split, p.other_item, p.other_split) for p in found.cross_split_pairs] == [(2, "train", 3, "val")]


@pytest.mark.parametrize(("first", "second", "pairs"), [("dev", "val", 0), (" VAL", "valid", 0), ("dev", "eval", 1)])
def test_splits_of_old_stores_are_compared_in_one_form(tmp_path, first, second, pairs):
    """Words such as ``dev`` were stored as they were written; they are no pair with ``val``."""
    store = create(tmp_path / "s")
    store.add_vectors(np.ones((3, 2), np.float32), {"uri": ["/a", "/b", "/c"]})
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET split = CASE item WHEN 1 THEN ? WHEN 2 THEN ? ELSE 'nan' END", [first, second])
    assert len(store.duplicates(0.9).cross_split_pairs) == pairs


def test_marked_duplicates_can_be_deleted(store):
    """Deleting the items that are not marked to keep leaves one item per group and all items without duplicates."""
    store.duplicates(float(np.cos(np.radians(12))), write_columns=True)
    assert store.delete("not duplicate_keep").to_json() == {"items": 3}
    assert [h.item for h in store.search(np.array([1, 0], np.float32))] == [1, 4, 6]


def test_equal_bytes_are_duplicates_at_any_threshold(tmp_path):
    """Two items of one content are a group although no other vector is near."""
    store = create(tmp_path / "s")
    store.add_vectors(np.eye(3, dtype=np.float32)[[0, 1, 0]], {"uri": ["/a", "/b", "/c"]})
    found = store.duplicates(0.999)
    assert [(i.uri, i.keep, i.min_cosine) for i in found.items] == [("/a", True, 1.0), ("/c", False, 1.0)]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), least=st.floats(0.3, 0.99), block=st.integers(1, 30))
def test_groups_equal_connected_components(seed, count, least, block):
    """Whatever the block size, groups and lowest cosines equal those of Kruskal's algorithm over all pairs."""
    rows = unit(np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32))
    held, self_join.BLOCK_ROWS = self_join.BLOCK_ROWS, block
    try:
        groups = self_join.connected_groups(self_join.similar_pairs(lambda i: rows[i], count, least, exact=True), count)
    finally:
        self_join.BLOCK_ROWS = held
    edges = sorted(((float(rows[i] @ rows[j]), i, j) for j in range(count) for i in range(j)), reverse=True)
    name, weakest = list(range(count)), {}
    for cosine, i, j in edges:  # Kruskal: the last edge that joined two parts of a group is its weakest
        if cosine >= least and name[i] != name[j]:
            old, new = name[i], name[j]
            name = [new if n == old else n for n in name]
            weakest[new] = cosine
    expected = {frozenset(k for k in range(count) if name[k] == g): weakest[g] for g in set(name) if name.count(g) > 1}
    found = {
        frozenset(groups.rows[groups.group == g].tolist()): float(groups.min_cosine[g])
        for g in range(len(groups.min_cosine))
    }
    close = [abs(c - least) for c, _, _ in edges]
    if min(close, default=1) > 1e-6:  # a pair at the threshold itself may fall on either side
        assert found.keys() == expected.keys()
        assert all(abs(found[k] - expected[k]) < 1e-5 for k in found)


def test_comparing_within_cells_finds_near_copies():
    """At least 99% of 500 near copies among 6,000 rows in 60 dimensions are found within k-means cells."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((6000, 60)).astype(np.float32))
    rows[5500:] = unit(rows[:500] + 0.02 * rng.standard_normal((500, 60)).astype(np.float32))
    groups = self_join.connected_groups(self_join.similar_pairs(lambda i: rows[i], 6000, 0.95, exact=False), 6000)
    together = dict(zip(groups.rows.tolist(), groups.group.tolist(), strict=True))
    assert len(groups.rows) <= 1000
    assert sum(n in together and together[n] == together.get(n + 5500) for n in range(500)) >= 495


def test_clusters_and_outliers_are_written_as_columns(tmp_path):
    """Three distant groups of 30, 20 and 10 rows are the clusters, and a row between them is the largest outlier."""
    rng = np.random.default_rng(0)
    centers = np.eye(3, 8, dtype=np.float32)
    rows = np.repeat(centers, [30, 20, 10], axis=0) + 0.01 * rng.standard_normal((60, 8)).astype(np.float32)
    rows = np.concatenate([rows, [[0.8, 0, 0, 0.6, 0, 0, 0, 0]]]).astype(np.float32)
    store = create(tmp_path / "s")
    store.add_vectors(rows, {"uri": [f"/{n}" for n in range(61)]})
    assert store.cluster(3).to_json() == {"items": 61}
    sizes = store.sql("SELECT cluster, count(*) FROM items GROUP BY 1 ORDER BY 1").rows
    assert sizes == ((0, 31), (1, 20), (2, 10))
    assert store.sql("SELECT item FROM items ORDER BY outlier DESC LIMIT 1").rows == ((61,),)


@pytest.mark.parametrize("threshold", [0, -1, 1.5, float("nan")])
def test_impossible_thresholds_are_refused(store, threshold):
    """A threshold that is not above 0 and at most 1 raises QueryError."""
    with pytest.raises(QueryError, match="threshold"):
        store.duplicates(threshold)


def test_impossible_numbers_of_clusters_and_policies_are_refused(store):
    """More clusters than contents, no clusters and an unknown policy raise QueryError."""
    with pytest.raises(QueryError, match="between 1 and the 6"):
        store.cluster(7)
    with pytest.raises(QueryError, match="between 1"):
        store.cluster(0)
    with pytest.raises(QueryError, match="first or largest"):
        store.duplicates(0.9, keep="newest")
