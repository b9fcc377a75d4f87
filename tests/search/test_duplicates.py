"""Near-duplicates, clusters and outliers are found where they were planted."""

from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore import create
from embedstore.classify.data.copy_threshold import ONLY_EQUAL, choose_copy_threshold
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.errors import QueryError
from embedstore.search import duplicates
from embedstore.search.index import self_join
from embedstore.search.index.pair_groups import connected_groups
from embedstore.search.index.short_rows import short_rows
from tests.helpers.clusters import store_of


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


def matrices():
    """Unit rows in 1 to 200 dimensions: clusters of some width around a few centers, so that pairs exist and repeat."""
    return st.builds(clustered_rows, st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 2, 3, 64, 200]))


def clustered_rows(seed, count, dim):
    """Return unit rows near at most ten centers; some rows are equal."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((10, dim))[rng.integers(0, 10, count)] + rng.choice([0, 0.1, 1]) * rng.standard_normal(
        (count, dim)
    )
    return unit(rows.astype(np.float32))


def set_of(pairs):
    """Return the pairs as a list of ``(a, b)``, sorted; a repeated pair stays repeated."""
    return sorted((int(i), int(j)) for a, b, _ in pairs for i, j in zip(a, b, strict=True))


def brute_force(rows, least):
    """Return all pairs at or above a cosine, and whether none is so near to it that rounding decides."""
    cosine = rows.astype(np.float64) @ rows.T.astype(np.float64)
    upper = np.triu_indices(len(rows), 1)
    clear = bool((np.abs(cosine[upper] - least) > 2e-6).all())
    return sorted((int(i), int(j)) for i, j in zip(*upper, strict=True) if cosine[i, j] >= least), clear


@contextmanager
def tiles_of(*tile):
    """Make tiles small, so that few rows have many of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_join, "TILE", tile)
        yield


@settings(deadline=None, max_examples=60)
@given(rows=matrices(), least=st.floats(0.05, 0.999), height=st.integers(1, 30), width=st.integers(1, 30))
def test_the_pairs_are_those_of_brute_force(rows, least, height, width):
    """Whatever the dimensions, the threshold and the sizes of tiles: each pair once, none more and none less."""
    expected, clear = brute_force(rows, least)
    with tiles_of(height, width), short_rows(lambda i: rows[i], len(rows)) as short:
        join = self_join.SelfJoin(lambda i: rows[i], short, least)
        found = set_of(join.all_pairs())
        sampled = np.arange(0, len(rows), 3)
        of_sample = set_of(join.pairs_with(sampled))
    if clear:
        assert found == expected
        assert of_sample == [p for p in expected if p[0] % 3 == 0 or p[1] % 3 == 0]


@settings(deadline=None, max_examples=15)
@given(rows=matrices(), least=st.floats(0.05, 0.999), cells=st.integers(1, 4), size=st.integers(2, 20))
def test_pairs_within_cells_are_pairs_and_none_is_repeated(rows, least, cells, size):
    """Comparing within cells finds a part of the pairs, each once, and all of them where every cell is visited."""
    expected, clear = brute_force(rows, least)
    with pytest.MonkeyPatch.context() as patch, short_rows(lambda i: rows[i], len(rows)) as short:
        patch.setattr(self_join, "ROWS_PER_CELL", size)
        patch.setattr(self_join, "CELLS_PER_ROW", cells)
        join = self_join.SelfJoin(lambda i: rows[i], short, least)
        found = set_of(join.pairs_in_cells()) if len(rows) > 2 else []
    if clear and len(rows) > 2:
        assert len(set(found)) == len(found)
        assert set(found) <= set(expected)
        if cells >= max(2, len(rows) // size):
            assert found == expected


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), least=st.floats(0.3, 0.99), size=st.integers(1, 30))
def test_groups_equal_connected_components(seed, count, least, size):
    """Whatever the size of tiles, groups and lowest cosines equal those of Kruskal's algorithm over all pairs."""
    rows = unit(np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32))
    with tiles_of(size, size), short_rows(lambda i: rows[i], count) as short:
        pairs = self_join.SelfJoin(lambda i: rows[i], short, least).all_pairs()
        groups = connected_groups(pairs, count)
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


@pytest.mark.parametrize(("noise", "least", "recall"), [(0.04, 0.9, 1.0), (0.12, 0.6, 0.9)])
def test_comparing_within_cells_measures_what_it_misses(tmp_path, noise, least, recall):
    """Of 9,000 rows in 60 dimensions with 3,000 copies, the reported recall is that of brute force."""
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((9000, 60)).astype(np.float32))
    rows[6000:] = unit(rows[:3000] + noise * rng.standard_normal((3000, 60)).astype(np.float32))
    store = create(tmp_path / "s")
    store.add_vectors(rows, {"uri": [f"/{n}" for n in range(9000)]})
    exact, cells = store.duplicates(least, exact=True), store.duplicates(least, exact=False)
    assert (exact.recall, exact.recall_pairs) == (1.0, 0)
    assert recall - 0.05 <= cells.recall <= 1
    assert cells.recall == pytest.approx(cells.pair_count / exact.pair_count, abs=0.03)
    assert 560 < cells.recall_pairs < 690, "two thirds of 1,000 sampled rows have a pair; a pair of two counts once"


def test_recall_is_not_claimed_where_it_cannot_be_measured(tmp_path):
    """Without any pair among the sampled rows the recall is unknown, not 1."""
    rows = unit(np.random.default_rng(0).standard_normal((9000, 60)).astype(np.float32))
    store = create(tmp_path / "s")
    store.add_vectors(rows, {"uri": [f"/{n}" for n in range(9000)]})
    found = store.duplicates(0.95, exact=False)
    assert (found.recall, found.recall_pairs, found.is_complete) == (None, 0, False)


@pytest.mark.parametrize("least", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("most", [10, 100_000])
def test_pairs_across_splits_are_all_counted_at_every_threshold(tmp_path, monkeypatch, least, most):
    """In one chain of 1,500 items, every pair of different splits is counted, and the most similar are listed."""
    monkeypatch.setattr(duplicates, "MAX_LISTED_PAIRS", most)
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((1400, 3)).astype(np.float32))
    rows = np.concatenate([rows, rows[:100]])  # contents with two items
    split = np.array(["train", "test", None, "dev"], object)[rng.integers(0, 4, 1500)]
    store = create(tmp_path / "s")
    store.add_vectors(rows, {"uri": [f"/{n}" for n in range(1500)], "split": split.tolist()})
    found = store.duplicates(least)
    stored = unit(rows.astype(np.float16).astype(np.float32)).astype(np.float64)
    cosine = stored @ stored.T
    differ = (split[:, None] != split[None, :]) & (split[:, None] != None) & (split[None, :] != None)  # noqa: E711
    i, j = np.nonzero(np.triu(differ & (cosine >= least - 1e-6), 1))
    assert found.cross_split_count == pytest.approx(len(i), abs=2)  # rounding at the threshold
    listed = [p.score for p in found.cross_split_pairs]
    assert len(listed) == min(most, found.cross_split_count)
    assert listed == sorted(listed, reverse=True)
    assert listed == pytest.approx(np.sort(cosine[i, j])[::-1][: len(listed)], abs=1e-5)
    assert found.is_complete == (most >= found.cross_split_count)


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
    with pytest.raises(QueryError, match="first, largest, resolution, oldest or train-first"):
        store.duplicates(0.9, keep="newest")


def tight_classes(n, dim, classes, noise, seed):
    """Unit rows in classes so tight that all rows of one look alike."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(classes, dim))
    rows = centers[np.arange(n) % classes] + noise * rng.normal(size=(n, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("dim", "classes"), [(2, 2), (3, 4), (4, 4), (16, 4)])
@pytest.mark.parametrize("noise", [1e-4, 1e-3, 1e-2])
def test_tight_classes_are_no_copies(dim, classes, noise):
    """Of 60 rows of few numbers in tight classes none is a copy; what cannot tell gives the threshold 1."""
    for seed in range(3):
        X = tight_classes(60, dim, classes, noise, seed)
        threshold = choose_copy_threshold(X)
        if threshold < 1:
            assert (np.triu(X @ X.T, 1) >= threshold).sum() <= 1
        else:
            assert threshold == ONLY_EQUAL


def test_vectors_that_cannot_tell_leave_only_equal_vectors(tmp_path):
    """In four tight classes of four numbers, only the row that is there twice is a duplicate, and a note says so."""
    X = tight_classes(60, 4, 4, 1e-3, 0)
    X[59] = X[3]
    store = create(tmp_path / "s")
    store.add_vectors(X, {"uri": [f"/{n}" for n in range(60)]}, dtype="float32")
    found = store.duplicates()
    assert found.only_equal
    assert [(i.item, i.keep) for i in found.items] == [(4, True), (60, False)]
    assert (found.pair_count, found.recall) == (0, 1.0), "equal vectors are one content"
    given = store.duplicates(0.9999)
    assert not given.only_equal
    assert given.group_count == 4
    data = NearDuplicateOptions().join(store_of(tmp_path / "t", X, label=["a", "b"] * 30).features())
    assert len(np.unique(data.groups)) == 59
    assert data.near_duplicates.threshold == 1
    assert data.near_duplicates.expected_false_pairs == 0


@pytest.mark.parametrize("dim", [2, 3, 4, 7])
def test_few_vectors_of_few_numbers_have_no_fixed_threshold(tmp_path, dim):
    """Nineteen vectors of fewer than eight numbers cannot tell either: a cosine of 0.95 is chance."""
    X = tight_classes(19, dim, 2, 0.05, 1)
    store = create(tmp_path / "s")
    store.add_vectors(X, {"uri": [f"/{n}" for n in range(19)]})
    assert store.duplicates().items == ()


@pytest.mark.parametrize("copies", [2, 5, 8, 12])
@pytest.mark.parametrize("noise", [0, 1e-7, 1e-6])
def test_any_number_of_equal_copies_of_every_picture_are_found(copies, noise):
    """Vectors that differ by rounding only are copies, also if every picture has eleven."""
    rng = np.random.default_rng(copies)
    rows = np.repeat(unit(rng.normal(size=(60, 64))), copies, axis=0)
    rows = unit(rows + noise * rng.normal(size=rows.shape)).astype(np.float32)
    threshold = choose_copy_threshold(rows)
    assert 0.6 < threshold < 1 - 1e-6
    assert (np.triu(rows @ rows.T, 1) >= threshold).sum() == 60 * copies * (copies - 1) // 2
