"""One open store in several threads at once, as a server uses it: every call is answered, and rightly."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

import embedstore as es

ROWS, ROUNDS = 10_000, 12


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
