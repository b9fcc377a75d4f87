"""Stores of numbers with classes: rows around one centre a class, for tests of whatever judges."""

import numpy as np

import embedstore as es
from embedstore.space import Family, Space
from embedstore.storage.commit import CommitBatch


def clusters(n: int, classes: int = 3, *, dim: int = 16, noise: float = 0.6, seed: int = 0):
    """Rows and labels: float32 ``(n, dim)`` around random centres, and ``c0 c1 …`` in turn."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dim))
    y = np.arange(n) % classes
    X = centres[y] + noise * rng.standard_normal((n, dim))
    return X.astype(np.float32), [f"c{k}" for k in y]


def store_of(path, X, space: str = "numbers", **columns):
    """A store with these vectors as float32 and these columns; row n is called ``/n``."""
    store = es.create(path)
    table = {"uri": [f"/{n}" for n in range(len(X))]} | {k: list(v) for k, v in columns.items()}
    store.add_vectors(np.asarray(X, np.float32), table, space=space, dtype="float32")
    return store


def add(store, X, name: str):
    """Other vectors of the same contents, or of the first of them, in one more space."""
    space = Space(Family.PRECOMPUTED, name, "", None, dim=X.shape[1], unit=False)
    contents = [c.replace("-", "") for (c,) in store.sql("SELECT content::VARCHAR FROM items ORDER BY item").rows]
    with store._session.storage.writer("test") as writer:
        writer.add_space(space, name=name, dtype="float32", recipe=None)
        batch = CommitBatch(digests=contents[: len(X)], vectors=[np.asarray(X, np.float32)])
        writer.commit(batch, space=store._session.storage.space(name))
