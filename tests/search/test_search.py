"""If k items match, k come back: values and order against a brute-force oracle."""

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
from embedstore.search import snapshot
from embedstore.search.execute import item_vector, search
from embedstore.storage.commit import CommitBatch, ItemRow
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


def oracle(storage, query, k, where):
    """Sort every matching item by cosine, then id, in plain Python."""
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
def test_search_equals_brute_force(storage, query, k, where):
    """Count, scores and items for any query, k and filter; ties are by id."""
    query = np.array(query, np.float32)
    expected = oracle(storage, query, k, where)
    hits = search(storage, storage.space(), query, k=k, where=where)
    assert [h.rank for h in hits] == list(range(1, len(expected) + 1))
    assert np.allclose([h.score for h in hits], [s for _, _, s in expected], atol=1e-6)
    near = {h.item: h.score for h in hits}
    for (item, _, score), hit in zip(expected, hits, strict=True):
        if hit.item != item:  # float32 may swap what differs by less than it can tell
            assert abs(near.get(item, hit.score) - score) < 1e-6


def test_hits_carry_what_the_catalog_knows(storage):
    """Rank, score, id, uri and label of an item's own vector."""
    hit = search(storage, storage.space(), item_vector(storage, storage.space(), 37), k=1)[0]
    assert (hit.rank, hit.uri, hit.label) == (1, "/i/37.jpg", "c1")
    assert hit.score == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("k", [0, -3, 2_000_000_000])
def test_k_out_of_range_is_refused(storage, k):
    """Zero, negative and huge."""
    with pytest.raises(QueryError, match="between 1 and 100,000"):
        search(storage, storage.space(), vector(1), k=k)


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
def test_a_query_without_a_direction_is_refused(storage, query, error):
    """Another length, zero, NaN, infinity."""
    with pytest.raises(error):
        search(storage, storage.space(), np.array(query, np.float32))


def test_wrong_filters_are_refused(storage):
    """An unknown column and a broken expression, each with its own error."""
    with pytest.raises(UnknownColumn, match="did you mean label"):
        search(storage, storage.space(), vector(1), where="labell = 'x'")
    with pytest.raises(BadFilter):
        search(storage, storage.space(), vector(1), where="label = ")


def test_an_empty_store_answers_with_nothing(tmp_path):
    """No vectors, no hits, no error."""
    empty = make(tmp_path / "s")
    assert search(empty, empty.space(), vector(1), k=5) == []


def test_contents_without_items_do_not_take_a_hits_place(tmp_path):
    """Vectors whose items are gone stand nearer than any other: k still come back."""
    storage = make(tmp_path / "s", 50)
    with storage.writer("test") as writer:
        writer.execute("UPDATE items SET present = false WHERE item <= 40")
    hits = search(storage, storage.space(), vector(1), k=10)
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


def test_a_search_that_is_warm_opens_no_file_and_sees_every_change(tmp_path):
    """Another process holds the catalog, and warm searches answer; it changes a label, and the next hit shows it."""
    storage = make(tmp_path / "s", 30)
    query = vector(7)

    space = storage.space()
    for _ in range(5):
        before = [(h.item, h.label) for h in search(storage, space, query, k=3)]
        under = [h.item for h in search(storage, space, query, k=3, where="item > 9")]
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, storage.layout.catalog], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"done\n"
        assert [(h.item, h.label) for h in search(storage, space, query, k=3)] == before
        assert [h.item for h in search(storage, space, query, k=3, where="item > 9")] == under
        holder.communicate()
    change = f"UPDATE items SET label = 'new' WHERE item = {before[0][0]}"
    subprocess.run([sys.executable, "-c", OPEN, storage.layout.catalog, change], stdin=subprocess.DEVNULL, check=True)
    assert search(storage, space, query, k=1)[0].label == "new"


def test_warm_searches_wait_for_nobody_in_this_process(tmp_path):
    """While another thread works on the catalog, and many at once: the answers of one after another."""
    storage = make(tmp_path / "s", 30, 90)
    space, queries = storage.space(), [vector(n) for n in range(40)]

    def ask(n):
        where = (None, "item > 9", "item % 3 = 1")[n % 3]
        return [(h.item, h.score) for h in search(storage, space, queries[n], k=5, where=where)]

    alone = [[ask(n) for n in range(40)] for _ in range(2)][1]
    with ThreadPoolExecutor(4) as threads, storage.catalog.exclusive():
        assert [found.result(timeout=60) for found in [threads.submit(ask, n) for n in range(40)]] == alone


KINDS = {
    "text": "CASE WHEN i % 3 = 0 THEN NULL WHEN i % 3 = 1 THEN '' ELSE 'π 🐝 ' || i END",
    "nothing": "NULL::VARCHAR",
    "small": "CASE WHEN i % 4 > 0 THEN (i - 10)::TINYINT END",
    "big": "(9007199254740993 + i)::BIGINT",
    "yes": "i % 2 = 0",
    "real": "(i / 7)::FLOAT",
    "double": "i / 7",
    "money": "(i / 4)::DECIMAL(9, 2)",
    "day": "DATE '2026-01-01' + i::INTEGER",
    "list": "[i, i + 1]",
}


def test_a_warm_search_shows_every_column_as_a_cold_one(tmp_path):
    """Texts, numbers, truth, dates, decimals and lists, with and without NULLs, are alike from memory and from SQL."""
    table = tmp_path / "table.parquet"
    columns = ", ".join(f"{sql} AS {name}" for name, sql in KINDS.items())
    duckdb.sql(f"SELECT '/p/' || i AS uri, {columns} FROM range(40) t(i)").write_parquet(str(table))
    store = es.create(tmp_path / "s")
    vectors = np.stack([vector(n) for n in range(1, 41)])
    store.add_vectors(vectors, table)
    storage, space = store._session.storage, store.spaces[0]
    cold = search(storage, space, vectors[5], k=40)
    for _ in range(5):
        warm = search(storage, space, vectors[5], k=40)
    assert snapshot.current_catalog_snapshot(storage, None).copied is not None
    assert warm == cold
    assert [type(v) for h in warm for v in h.columns.values()] == [type(v) for h in cold for v in h.columns.values()]
    assert {h.columns["money"] for h in warm} == {Decimal(n) / 4 for n in range(40)}
    assert [h.columns["text"] for h in sorted(warm, key=lambda h: h.item)][:3] == [None, "", "π 🐝 2"]
