"""Exact search in blocks equals sorting everything."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.search.index import exact


def test_three_vectors_by_hand():
    """Cosine of (1, 0) with (1, 0), (0, 1) and (3, 4) is 1, 0 and 0.6."""
    rows = np.array([[1, 0], [0, 1], [3, 4]], np.float32)
    scores, ids = exact.top_k([(np.array([5, 6, 7]), rows)], np.array([1, 0], np.float32), 2, unit=False)
    assert ids.tolist() == [5, 7]
    assert np.allclose(scores, [1.0, 0.6])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    k=st.integers(1, 60),
    levels=st.integers(2, 6),
    unit=st.booleans(),
)
def test_blocks_equal_a_full_sort(seed, sizes, k, levels, unit):
    """Whatever the blocks, k and ties: the same rows in the same order as a sort by score, then id."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, levels, (sum(sizes), 3)).astype(np.float32)  # few values: many exact ties
    query = np.array([1, 0, 0], np.float32)
    ids = rng.permutation(len(rows)).astype(np.int64)
    ends = np.cumsum(sizes)
    blocks = [(ids[e - n : e], rows[e - n : e]) for n, e in zip(sizes, ends, strict=True)]
    scores, found = exact.top_k(blocks, query, k, unit=unit)
    full = rows @ query
    if not unit:
        full = full / np.linalg.norm(rows, axis=1)
    order = np.lexsort((ids, -full))[:k]
    assert found.tolist() == ids[order].tolist()
    assert np.array_equal(scores, full[order])
