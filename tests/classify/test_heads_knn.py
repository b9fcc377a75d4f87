"""Nearest neighbors and nearest prototypes against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify.heads import NearestPrototype, WeightedKNN


def brute_force(X, y, queries, k, weigh):
    """Return class shares by definition: all cosines, the k best in the order (cosine, row), one weight each."""
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    classes = np.unique(y)
    out = np.zeros((len(queries), len(classes)))
    for q, scores in enumerate(queries @ X.T):
        best = np.lexsort((np.arange(len(X)), -np.round(scores, 6)))[:k]
        for row in best:
            out[q, np.searchsorted(classes, y[row])] += weigh(scores[row])
    return out / out.sum(1, keepdims=True)


WEIGH = {
    "softmax": lambda s: np.exp(s / 0.07),
    "uniform": lambda s: 1.0,
    "distance": lambda s: 1 / (1 - s),
}


@pytest.mark.parametrize("weights", list(WEIGH))
@pytest.mark.parametrize("k", [1, 5, 20, 500])
def test_votes_equal_a_brute_force_reference(weights, k):
    """300 rows and 50 queries with every weighting, also with k above the number of rows."""
    rng = np.random.default_rng(0)
    X, y, queries = rng.standard_normal((300, 16)), rng.integers(0, 4, 300), rng.standard_normal((50, 16))
    head = WeightedKNN(k, weights=weights, block_size=7).fit(X, y)
    assert head.k_ == min(k, 300)
    assert head.predict_proba(queries) == pytest.approx(brute_force(X, y, queries, k, WEIGH[weights]), abs=1e-4)


def test_softmax_votes_equal_those_computed_by_hand():
    """Cosines .8 (a) and .6 (b): a has 1 / (1 + exp(-.2 / .07)) of the votes."""
    head = WeightedKNN(2).fit([[0.8, 0.6], [0.6, -0.8]], ["a", "b"])
    assert head.predict_proba([[1.0, 0.0]])[0] == pytest.approx([0.94571, 0.05429], abs=1e-4)


def test_a_neighbor_at_distance_zero_outvotes_all_others():
    """With distance weights, as in scikit-learn, an equal row decides alone."""
    head = WeightedKNN(3, weights="distance").fit([[1, 0], [0.9, 0.1], [0.9, -0.1]], ["a", "b", "b"])
    assert head.predict_proba([[2.0, 0.0]]).tolist() == [[1.0, 0.0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 60))
def test_ties_go_to_the_earlier_row(seed, k):
    """The first k of many equal rows are the neighbors, whatever the number of ties and the block size."""
    rng = np.random.default_rng(seed)
    vectors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]])[rng.integers(0, 3, 200)]
    head = WeightedKNN(k, block_size=3).fit(vectors, np.arange(200) % 2)
    _, rows = head.nearest_neighbors(np.eye(3))
    for axis in range(3):
        same = np.flatnonzero(vectors[:, axis])
        rest = np.setdiff1d(np.arange(200), same)
        assert rows[axis].tolist() == np.r_[same, rest][:k].tolist()


def test_scaling_a_vector_changes_nothing():
    """Only directions count, also at magnitudes whose squares overflow."""
    rng = np.random.default_rng(0)
    X, y, queries = rng.standard_normal((40, 8)), np.arange(40) % 3, rng.standard_normal((9, 8))
    plain = WeightedKNN().fit(X, y).predict_proba(queries)
    assert WeightedKNN().fit(X * 1e25, y).predict_proba(queries * 1e-20) == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize("options", [{"k": 0}, {"weights": "gaussian"}])
def test_an_invalid_option_is_refused_at_fit(options):
    """A k below 1 and unknown weights are errors that name the option."""
    with pytest.raises(ValueError, match=r"k must be|gaussian"):
        WeightedKNN(**options).fit(np.eye(3), [0, 1, 2])


def test_a_prototype_is_the_mean_direction():
    """Rows (1, 0) and (0, 3) of class a have the mean (1, 1) / sqrt 2; the score is the cosine / 0.07."""
    head = NearestPrototype().fit([[1, 0], [0, 3], [-1, 0], [-2, 0]], ["a", "a", "b", "b"])
    assert head.prototypes_ == pytest.approx(np.array([[0.70711, 0.70711], [-1, 0]]), abs=1e-5)
    assert head.decision_function([[0, 5]]) == pytest.approx([-0.70711 / 0.07], rel=1e-5)
    assert head.predict([[0, 5], [-1, 0.1]]).tolist() == ["a", "b"]
