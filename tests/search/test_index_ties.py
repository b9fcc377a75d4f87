"""The recall of an index over equal rows: of rows that tie, any may be found, and a row that is worse is a miss."""

import numpy as np
import pytest

from embedstore.search.index.recall import GroundTruth
from tests.helpers.clusters import store_of

ROWS, DIM = 600, 16


def store_of_directions(folder, X):
    """A store of rows in these directions; their lengths differ, because rows of equal bytes are one vector."""
    store = store_of(folder / "s", X * (1 + np.arange(len(X), dtype=np.float32) / 1000)[:, None])
    assert store.sql("SELECT count(*) FROM vectors").rows == ((len(X),),)
    return store


def groups_of_equal_rows(size: int) -> np.ndarray:
    """Rows in groups of this many equal ones, in a random order."""
    rng = np.random.default_rng(size)
    centers = rng.standard_normal((-(-ROWS // size), DIM))
    return rng.permutation(np.repeat(centers, size, axis=0)[:ROWS]).astype(np.float32)


def rows_in_rings() -> np.ndarray:
    """Rows of which every one has 40 others at one and the same cosine: the tenth nearest ties with the fortieth."""
    angles = np.repeat(np.arange(ROWS // 40), 40) * 2 * np.pi / (ROWS // 40)
    rows = np.zeros((ROWS, DIM), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    return rows


CASES = {
    "pairs": groups_of_equal_rows(2), "tens": groups_of_equal_rows(10), "elevens": groups_of_equal_rows(11),
    "forties": groups_of_equal_rows(40), "all equal": groups_of_equal_rows(ROWS), "rings": rows_in_rings(),
    "opposite": np.sign(np.arange(ROWS) % 2 - 0.5)[:, None].astype(np.float32) * np.ones((1, DIM), np.float32),
    "different": np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_exact_index_has_recall_one(tmp_path, case):
    """Whatever ties, and every search through it scores as an exact one."""
    store = store_of_directions(tmp_path, CASES[case])
    exact = [[h.score for h in store.search(like=i, k=10)] for i in (1, 77, 600)]
    built = store.build_index(kind="flat", recall=1.0)
    assert built.sidecar.recall == 1.0
    assert [[h.score for h in store.search(like=i, k=10)] for i in (1, 77, 600)] == [
        pytest.approx(scores, abs=2e-3) for scores in exact
    ]


# The links of an HNSW lead from one of 40 equal rows to the others of them and to no other group: it is left out there.
@pytest.mark.parametrize(
    ("kind", "case"),
    [(k, c) for k in ("hnsw", "ivf") for c in ("pairs", "tens", "elevens", "different")] + [("ivf", "forties")],
)
def test_an_approximate_index_of_equal_rows_is_measured_fairly(tmp_path, kind, case):
    """Ties are no misses, so the target is reached, and the measured recall is not above one."""
    built = store_of_directions(tmp_path, CASES[case]).build_index(kind=kind, recall=0.9)
    assert 0.9 <= built.sidecar.recall <= 1


@pytest.mark.parametrize(("proposed", "recall"), [("ties", 1.0), ("half", 0.5), ("worse", 0.0), ("none", 0.0)])
def test_recall_counts_ties_as_hits_and_worse_rows_as_misses(tmp_path, proposed, recall):
    """Of 40 equal rows any ten are the ten nearest; five of them and others are half; rows of other groups are none."""
    X = np.repeat(np.eye(DIM, dtype=np.float32), 40, axis=0)[:ROWS]
    store = store_of_directions(tmp_path, X)
    session = store._session
    vectors = session.storage.vector_reader(session.storage.spaces()[0].space).map_shards()
    truth = GroundTruth.compute(vectors, np.array([0, 45]))
    own = [np.arange(20, 30), np.arange(60, 70)]  # in the groups of rows 0 and 45
    other = np.arange(200, 210)
    rows = {
        "ties": own, "half": [np.r_[p[:5], other[:5]] for p in own], "worse": [other, other],
        "none": [np.empty(0, np.int64)] * 2,
    }[proposed]  # fmt: skip
    assert truth._recall(rows) == recall
