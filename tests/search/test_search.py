"""If k items match, k hits come back, with the scores and the order of a brute-force sort."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadFilter, DimensionMismatch, QueryError, UnknownColumn
from embedstore.search.execute import Searcher, item_vector
from embedstore.search.index.scan import Scanner
from embedstore.search.options import SearchOptions
from embedstore.storage.commit import CommitBatch
from embedstore.storage.item_columns import ItemRow
from embedstore.types import ImageRef
from tests.helpers.vector_stores import digest, make, vector


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    """300 items over three shards: contents 1 … 280, of which 1 … 20 have two items each."""
    storage = make(tmp_path_factory.mktemp("search") / "s", 100, 7, 173)
    twins = [ItemRow(ImageRef(f"/twin/{n}.jpg", f"/twin/{n}.jpg", n, n, "twin"), digest(n)) for n in range(1, 21)]
    with storage.writer("test") as writer:
        writer.commit(CommitBatch(items=twins), space=storage.space())
    return storage


@pytest.fixture(scope="module")
def search(storage):
    """Searches the 300 items."""
    return searching(storage)


def searching(storage):
    """Return a function that searches a store, with one cache for all its calls."""
    searcher, space = Searcher(storage), storage.space()
    return lambda query, **options: searcher.search(space, query, SearchOptions(**options)).hits


def oracle(storage, query, k, where):
    """Return every matching item by cosine, then id, in plain Python."""
    rows = storage.sql(f"SELECT item, uri, size FROM items WHERE {where or 'true'}")[1]
    unit = query / np.linalg.norm(query)
    scored = [(-float(vector(size) @ unit / np.linalg.norm(vector(size))), item, uri) for item, uri, size in rows]
    return [(item, uri, -score) for score, item, uri in sorted(scored)[:k]]


FILTERS = [None, "label = 'c1'", "item = 37", "item between 90 and 120", "label = 'twin'", "item % 50 = 0", "false"]


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    query=st.lists(st.integers(-9, 9), min_size=4, max_size=4).filter(any),
    k=st.integers(1, 350),
    where=st.sampled_from(FILTERS),
)
def test_search_equals_brute_force(storage, search, query, k, where):
    """Count, scores and items equal the oracle for any query, k and filter; ties are ordered by id."""
    query = np.array(query, np.float32)
    expected = oracle(storage, query, k, where)
    hits = search(query, k=k, where=where)
    assert [h.rank for h in hits] == list(range(1, len(expected) + 1))
    assert np.allclose([h.score for h in hits], [s for _, _, s in expected], atol=1e-6)
    near = {h.item: h.score for h in hits}
    for (item, _, score), hit in zip(expected, hits, strict=True):
        if hit.item != item:  # float32 may swap what differs by less than it can tell
            assert abs(near.get(item, hit.score) - score) < 1e-6


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.sampled_from([0, 1, 31, 32, 40]),
    k=st.integers(1, 350),
    options=st.sampled_from(
        [
            {},
            {"offset": 7},
            {"min_score": 0.7},
            {"group_by": "label"},
            {"group_by": "content"},
            {"diversity": 0.4},
            {"exact": True},
            {"within": np.arange(3, 200, 3)},
        ]
    ),
    where=st.sampled_from(FILTERS),
)
def test_many_queries_give_the_hits_of_each_alone(storage, seed, count, k, options, where):
    """Whatever the options and however many queries, each has the hits that a search with it alone gives."""
    space, searcher = storage.space(), Searcher(storage)
    queries = np.random.default_rng(seed).integers(-9, 10, (count, 4)).astype(np.float32)
    queries[~queries.any(axis=1), 0] = 1
    wanted = SearchOptions(k=k, where=where, **options)
    expected = [searcher.search(space, query, wanted).hits for query in queries]
    assert searcher.search_many(space, list(queries), wanted) == expected


def test_many_queries_read_each_row_once(storage, monkeypatch):
    """Of 100 queries none is answered by a scan of its own."""
    monkeypatch.setattr(Scanner, "top_k", lambda *_, **__: pytest.fail("a query was scanned alone"))
    queries = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    found = Searcher(storage).search_many(storage.space(), list(queries), SearchOptions(k=5))
    assert [len(hits) for hits in found] == [5] * 100


def test_one_bad_query_among_many_is_refused(storage):
    """A query without a direction is refused as it is alone."""
    queries = [np.ones(4, np.float32), np.zeros(4, np.float32)]
    with pytest.raises(QueryError, match="zero"):
        Searcher(storage).search_many(storage.space(), queries, SearchOptions())


def test_a_hit_has_the_uri_and_label_of_its_item(storage, search):
    """The best hit of an item's own vector is the item, with score 1, its uri and its label."""
    hit = search(item_vector(storage, storage.space(), 37), k=1)[0]
    assert (hit.rank, hit.uri, hit.label) == (1, "/i/37.jpg", "c1")
    assert hit.score == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("k", [0, -3, 2_000_000_000])
def test_k_out_of_range_is_refused(search, k):
    """k below 1 or above 100,000 raises QueryError."""
    with pytest.raises(QueryError, match="between 1 and 100,000"):
        search(vector(1), k=k)


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ([1, 2, 3], DimensionMismatch),
        ([[1, 2, 3, 4]], DimensionMismatch),
        ([0, 0, 0, 0], QueryError),
        ([np.nan, 0, 0, 1], QueryError),
        ([np.inf, 0, 0, 1], QueryError),
    ],
)
def test_a_query_without_a_direction_is_refused(search, query, error):
    """A query of another length, zero, NaN or infinity raises an error."""
    with pytest.raises(error):
        search(np.array(query, np.float32))


def test_wrong_filters_are_refused(search):
    """An unknown column and a broken expression each raise their own error."""
    with pytest.raises(UnknownColumn, match="did you mean label"):
        search(vector(1), where="labell = 'x'")
    with pytest.raises(BadFilter):
        search(vector(1), where="label = ")


def test_an_empty_store_gives_no_hits(tmp_path):
    """A search of a space without vectors returns no hits and raises no error."""
    assert searching(make(tmp_path / "s"))(vector(1), k=5) == ()


def test_vectors_of_deleted_items_do_not_reduce_the_hits(tmp_path):
    """Where the nearest vectors belong to deleted items, k hits still come back."""
    storage = make(tmp_path / "s", 50)
    with storage.writer("test") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET present = false WHERE item <= 40")
    hits = searching(storage)(vector(1), k=10)
    assert sorted(h.item for h in hits) == list(range(41, 51))


OPEN = """
import sys, duckdb
con = duckdb.connect(sys.argv[1])
if len(sys.argv) > 2:
    con.execute(sys.argv[2])
    con.close()
print("done", flush=True)
sys.stdin.read()
"""


def test_a_warm_search_opens_no_file_and_sees_every_change(tmp_path):
    """Warm searches answer while another process has the catalog open; a label that it changes is in the next hit."""
    storage = make(tmp_path / "s", 30)
    query, search = vector(7), searching(storage)
    for _ in range(5):
        before = [(h.item, h.label) for h in search(query, k=3)]
        under = [h.item for h in search(query, k=3, where="item > 9")]
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, storage.layout.catalog], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"done\n"
        assert [(h.item, h.label) for h in search(query, k=3)] == before
        assert [h.item for h in search(query, k=3, where="item > 9")] == under
        holder.communicate()
    change = f"UPDATE items SET label = 'new' WHERE item = {before[0][0]}"
    subprocess.run([sys.executable, "-c", OPEN, storage.layout.catalog, change], stdin=subprocess.DEVNULL, check=True)
    assert search(query, k=1)[0].label == "new"


def test_warm_searches_do_not_wait_for_other_threads(tmp_path):
    """Concurrent warm searches give the hits of sequential ones while another thread has the catalog open."""
    storage = make(tmp_path / "s", 30, 90)
    search = searching(storage)

    def items_and_scores(n):
        where = (None, "item > 9", "item % 3 = 1")[n % 3]
        return [(h.item, h.score) for h in search(vector(n), k=5, where=where)]

    sequential = [[items_and_scores(n) for n in range(40)] for _ in range(2)][1]
    with ThreadPoolExecutor(4) as threads, storage.catalog.exclusive():
        futures = [threads.submit(items_and_scores, n) for n in range(40)]
        assert [future.result(timeout=60) for future in futures] == sequential


COLUMNS = {
    "text": "CASE WHEN i % 3 = 0 THEN NULL WHEN i % 3 = 1 THEN '' ELSE 'π 🐝 ' || i END",
    "nothing": "NULL::VARCHAR",
    "small": "CASE WHEN i % 4 > 0 THEN (i - 10)::TINYINT END",
    "big": "(9007199254740993 + i)::BIGINT",
    "flag": "i % 2 = 0",
    "real": "(i / 7)::FLOAT",
    "double": "i / 7",
    "money": "(i / 4)::DECIMAL(9, 2)",
    "day": "DATE '2026-01-01' + i::INTEGER",
    "list": "[i, i + 1]",
}


def test_filters_evicted_by_other_threads_do_not_fail(tmp_path):
    """Concurrent searches with more filters than the cache holds give the hits of sequential ones."""
    storage = make(tmp_path / "s", 60)
    search, filters = searching(storage), [f"item % 20 = {n}" for n in range(20)]
    sequential = [[[h.item for h in search(vector(3), where=w)] for w in filters] for _ in range(2)][1]
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(search, vector(3), where=w) for _ in range(5) for w in filters]
        assert [[h.item for h in future.result(timeout=60)] for future in futures] == sequential * 5


def test_a_warm_search_gives_the_same_column_values_as_a_cold_one(tmp_path):
    """Values of every type, with and without NULLs, are alike from memory and from SQL."""
    table = tmp_path / "table.parquet"
    columns = ", ".join(f"{sql} AS {name}" for name, sql in COLUMNS.items())
    duckdb.sql(f"SELECT '/p/' || i AS uri, {columns} FROM range(40) t(i)").write_parquet(str(table))
    store = es.create(tmp_path / "s")
    vectors = np.stack([vector(n) for n in range(1, 41)])
    store.add_vectors(vectors, table)
    search = searching(store._session.storage)
    cold = search(vectors[5], k=40)
    for _ in range(5):
        search(vectors[5], k=40)
    with (
        ThreadPoolExecutor(1) as thread,
        store._session.storage.catalog.exclusive(),
    ):  # a search that needs SQL would wait
        warm = thread.submit(search, vectors[5], k=40).result(timeout=60)
    assert warm == cold
    assert [type(v) for h in warm for v in h.columns.values()] == [type(v) for h in cold for v in h.columns.values()]
    assert {h.columns["money"] for h in warm} == {Decimal(n) / 4 for n in range(40)}
    assert [h.columns["text"] for h in sorted(warm, key=lambda h: h.item)][:3] == [None, "", "π 🐝 2"]
