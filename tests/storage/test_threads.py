"""One open store in several threads at once, as a server uses it: every call is answered, and rightly."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import embedstore as es
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import make

ROWS, ROUNDS = 10_000, 12
NUMBERS = 1_000_000  # so many that a query takes longer than the others take to begin


def test_threads_share_an_open_store(tmp_path):
    """Streams of vectors, counts, filters, searches and edits side by side."""
    X = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    store = es.create(tmp_path / "s.store")
    store.add_vectors(X, {"uri": [f"u{n}" for n in range(ROWS)], "label": ["a", "b"] * (ROWS // 2)})

    def edit(number):
        return store.edit({"label": "'a'"}, items=[1 + 2 * (number % 50)], wait=60).items

    calls = 3 * [
        (lambda _: len(store.features("label").X), ROWS),
        (lambda _: store.info().items, ROWS),
        (lambda n: store.sql(f"SELECT count(*) FROM items WHERE item <= {n + 1}").rows, None),
        (lambda n: store.search(X[n], k=3, where=f"item <= {n + 1}").hits[0].item, None),
        (edit, 1),
    ]

    def repeat(call):
        return [call(n) for n in range(ROUNDS)]

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(lambda c: repeat(c[0]), calls))
    for (_, expected), given in zip(calls, answers, strict=True):
        assert expected is None or given == [expected] * ROUNDS
    assert answers[2] == [((n + 1,),) for n in range(ROUNDS)]
    assert answers[3] == list(range(1, ROUNDS + 1))
    assert store.verify().ok


def test_threads_query_the_private_database_at_once(tmp_path):
    """Each has a connection of its own, and sees the scratch tables of the others."""
    make(tmp_path / "s", 4)
    storage = Storage.open(tmp_path / "s")
    storage.catalog.scratch.execute(f"CREATE TABLE numbers AS SELECT * FROM range({NUMBERS}) t(n)")

    def total(factor):
        query = "SELECT sum(n * ?) FROM numbers"
        return [storage.catalog.scratch.execute(query, [factor]).fetchone() for _ in range(ROUNDS)]

    with ThreadPoolExecutor(8) as pool:
        totals = list(pool.map(total, range(8)))
    assert totals == [[(factor * NUMBERS * (NUMBERS - 1) // 2,)] * ROUNDS for factor in range(8)]
