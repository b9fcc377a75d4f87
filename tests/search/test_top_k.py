"""The best rows of several lists equal those of one sort."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.search.index.top_k import merge_top_k, no_rows


def test_the_best_two_of_three_scores():
    """The best two of the scores 1, 0 and 0.6 are 1 and 0.6."""
    scores, ids = merge_top_k([no_rows(), (np.array([1, 0, 0.6], np.float32), np.array([5, 6, 7]))], 2)
    assert ids.tolist() == [5, 7]
    assert np.allclose(scores, [1.0, 0.6])


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    k=st.integers(1, 60),
    levels=st.integers(2, 6),
)
def test_merging_parts_equals_a_full_sort(seed, sizes, k, levels):
    """Whatever the parts, k and ties, the result is that of a sort by score, then id."""
    rng = np.random.default_rng(seed)
    scores = rng.integers(1, levels, sum(sizes)).astype(np.float32)  # few values, so many exact ties
    ids = rng.permutation(len(scores)).astype(np.int64)
    ends = np.cumsum(sizes)
    best = no_rows()
    for end, size in zip(ends, sizes, strict=True):
        best = merge_top_k([best, (scores[end - size : end], ids[end - size : end])], k)
    order = np.lexsort((ids, -scores))[:k]
    assert best[1].tolist() == ids[order].tolist()
    assert np.array_equal(best[0], scores[order])
