"""Heads that predict numbers, against scikit-learn, and the coverage of their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.utils.estimator_checks import parametrize_with_checks

from embedstore.classify import heads
from embedstore.classify.heads.regression import make_regressor
from embedstore.errors import BadHead, LabelError, UnknownHead
from tools.evaluation_promises.numbers import interval_coverage

# Left-out rows that are repeated have a copy that is not left out: repeating rows and weighing them differ by nature.
REPEATED = {"check_sample_weight_equivalence_on_dense_data": "leave-one-out leaves out a row with all its weight"}


def rows(n, d, seed=0, noise=1.0):
    """Random features and a linear number of them."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, X @ rng.normal(size=d) + 7 + noise * rng.normal(size=n)


@parametrize_with_checks(
    [heads.RidgeHead(), heads.RidgeHead(alpha=1.0), heads.KNNRegressor(k=3)],
    expected_failed_checks=lambda e: REPEATED if getattr(e, "alpha", 1) is None else {},
)
def test_scikit_learn_accepts_the_estimator(estimator, check):
    """Every check of scikit-learn's ``check_estimator`` passes, one by one."""
    check(estimator)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(3, 60), d=st.integers(1, 80), alpha=st.floats(1e-3, 1e3), seed=st.integers(0, 99), weigh=st.booleans()
)
def test_the_solution_is_that_of_scikit_learn(n, d, alpha, seed, weigh):
    """Coefficients, intercept and predictions are those of Ridge, with more rows than features and with fewer."""
    X, y = rows(n, d, seed)
    w = np.random.default_rng(seed).random(n) + 0.1 if weigh else None
    ours, theirs = heads.RidgeHead(alpha=alpha).fit(X, y, w), Ridge(alpha, tol=1e-12).fit(X, y, w)
    assert ours.coef_ == pytest.approx(theirs.coef_, abs=1e-7)
    assert ours.predict(X) == pytest.approx(theirs.predict(X), abs=1e-7)


@pytest.mark.parametrize(("n", "d"), [(120, 20), (30, 60)])
def test_leave_one_out_is_exact(n, d):
    """The errors and the chosen penalty are those of RidgeCV, and those of fits without each row."""
    X, y = rows(n, d)
    alphas = np.geomspace(0.01, 1000, 15)
    ours, theirs = heads.RidgeHead(alphas).fit(X, y), RidgeCV(alphas, store_cv_results=True).fit(X, y)
    assert ours.errors_ == pytest.approx(theirs.cv_results_.mean(0), rel=1e-8)
    assert ours.alpha_ == pytest.approx(theirs.alpha_)
    left_out = [y[i] - Ridge(alphas[7]).fit(np.delete(X, i, 0), np.delete(y, i)).predict(X[[i]])[0] for i in range(n)]
    assert ours.errors_[7] == pytest.approx(np.mean(np.square(left_out)), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(weights=st.lists(st.integers(0, 3), min_size=12, max_size=40), seed=st.integers(0, 99), grouped=st.booleans())
def test_whole_weights_count_rows(weights, seed, grouped):
    """A weight of 0 leaves a row out, 2 repeats it; where a penalty is chosen, weights of 0 and 1 select rows."""
    w = np.minimum(weights, 1) if grouped else np.array(weights)
    w[:4] = 1
    X, y = rows(len(w), 5, seed)
    groups = np.arange(len(w)) // 2 if grouped else np.arange(len(w))
    repeated = np.repeat(np.arange(len(w)), w)
    head = heads.RidgeHead() if grouped else heads.RidgeHead(alpha=0.5)
    one = heads.fit_weighted(head, X, y, weights=w, groups=groups).predict(X)
    two = heads.fit_weighted(clone(head), X[repeated], y[repeated], groups=groups[repeated]).predict(X)
    assert one == pytest.approx(two, abs=1e-8)


def test_neighbors_predict_their_mean():
    """With equal votes the prediction is that of scikit-learn's neighbors by cosine."""
    X, y = rows(80, 6)
    ours = heads.KNNRegressor(k=7, weights="uniform").fit(X, y)
    theirs = KNeighborsRegressor(7, metric="cosine").fit(X, y)
    assert ours.predict(X[:20] + 0.1) == pytest.approx(theirs.predict(X[:20] + 0.1), abs=1e-9)


def test_rows_of_one_group_are_left_out_together():
    """With five noisy copies of each row, leaving single rows out chooses too small a penalty."""
    X, y = rows(40, 60, noise=3.0)
    X, y, groups = np.tile(X, (5, 1)) + 1e-3, np.tile(y, 5), np.tile(np.arange(40), 5)
    assert heads.RidgeHead().fit(X, y, groups=groups).alpha_ > 10 * heads.RidgeHead().fit(X, y).alpha_


def test_cut_points_reach_the_outer_levels():
    """On noisy rows half-way cuts rarely answer the outer levels; the chosen cuts agree better on new rows."""
    rng = np.random.default_rng(0)

    def graded(n):
        X = rng.normal(size=(n, 10))
        return X, 10 * np.clip(np.rint(X[:, 0] + 1.2 * rng.normal(size=n) + 2), 0, 4)

    from sklearn.metrics import cohen_kappa_score

    X, y = graded(400)
    head = heads.OrdinalHead().fit(X, y)
    X, y = graded(4000)
    half_way = 10 * np.clip(np.rint(head.head_.predict(X)), 0, 4)
    chosen, plain = (cohen_kappa_score(y, p, weights="quadratic") for p in (head.predict(X), half_way))
    assert head.levels_.tolist() == [0, 10, 20, 30, 40]
    assert (np.diff(head.cut_points_) > 0).all()
    assert chosen > plain + 0.02


def test_weights_and_options_that_are_none_are_refused():
    """Each message names the value."""
    X, y = rows(10, 2)
    for bad in (-1.0, np.nan, np.inf):
        with pytest.raises(BadHead, match="sample_weight must be finite and at least 0; row 3"):
            heads.RidgeHead().fit(X, y, np.where(np.arange(10) == 3, bad, 1.0))
    with pytest.raises(BadHead, match="all values of sample_weight are zero"):
        heads.RidgeHead().fit(X, y, np.zeros(10))
    with pytest.raises(BadHead, match="alpha must be a number above 0, not -1"):
        heads.RidgeHead(alpha=-1).fit(X, y)
    with pytest.raises(BadHead, match="KNNRegressor does not take weights of items"):
        heads.fit_weighted(heads.KNNRegressor(), X, y, weights=np.ones(10))
    with pytest.raises(UnknownHead, match="head 'logistic' does not predict numbers; ridge and knn do"):
        make_regressor("logistic")
    with pytest.raises(BadHead, match="no option 'alhpa'"):
        make_regressor("ridge", alhpa=1)
    with pytest.raises(LabelError, match="101 different levels are more than 100"):
        heads.OrdinalHead().fit(np.zeros((101, 2)), np.arange(101.0))


@pytest.mark.parametrize("method", ["split", "cv+", "folds"])
def test_intervals_hold_new_numbers_as_often_as_promised(method):
    """At 90% the mean coverage of new rows is at least 0.88 with 20 and with 60 rows, and in groups of four."""
    for n, size in ((20, 1), (60, 1), (80, 4)):
        assert 0.88 <= interval_coverage(method, n, size, runs=60).mean() <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("method", ["split", "cv+", "folds"])
@pytest.mark.parametrize(("n", "size"), [(20, 1), (60, 1), (200, 1), (80, 4), (400, 20)])
def test_intervals_hold_their_promise_in_many_draws(method, n, size):
    """The same with 1,000 draws: at least 0.89."""
    assert 0.89 <= interval_coverage(method, n, size, runs=1000).mean() <= 0.96


def test_too_few_rows_have_unbounded_intervals():
    """Eight rows cannot promise 90%, nine can."""
    X, y = rows(60, 3)
    head = heads.RidgeHead(alpha=1.0).fit(X, y)
    for n, bounded in ((8, False), (9, True)):
        wrapper = heads.PredictionInterval(head).set_residuals(y[:n] - head.predict(X[:n]), np.arange(n))
        low, high = wrapper.predict_interval(X)
        assert np.isfinite(high - low).all() == bounded
    assert wrapper.rows_needed == 9


@settings(max_examples=30, deadline=None)
@given(folds=st.integers(2, 6), n=st.integers(12, 60), alpha=st.floats(0.05, 0.5), seed=st.integers(0, 99))
def test_the_ends_of_cv_plus_are_order_statistics(folds, n, alpha, seed):
    """They are the numbers of Barber et al. (2021): the k-th smallest of all (prediction +- residual)."""
    rng = np.random.default_rng(seed)
    X, y, fold_of = rng.normal(size=(n, 3)), rng.normal(size=n), np.arange(n) % folds
    fold_heads = [Ridge().fit(X[fold_of != k], y[fold_of != k]) for k in range(folds)]
    residuals = np.array([y[i] - fold_heads[k].predict(X[[i]])[0] for i, k in enumerate(fold_of)])
    wrapper = heads.PredictionInterval(Ridge().fit(X, y), alpha).set_residuals(
        residuals, np.arange(n), fold_of, fold_heads
    )
    new = rng.normal(size=(5, 3))
    low, high = wrapper.predict_interval(new)
    place = int(np.ceil((1 - alpha) * (n + 1) - 1e-9))
    centers = np.stack([fold_heads[k].predict(new) for k in fold_of])
    if place > n:
        assert np.isinf(low).all()
        assert np.isinf(high).all()
        return
    assert high == pytest.approx(np.sort(centers + np.abs(residuals)[:, None], 0)[place - 1], abs=1e-9)
    assert low == pytest.approx(-np.sort(-(centers - np.abs(residuals)[:, None]), 0)[place - 1], abs=1e-9)
