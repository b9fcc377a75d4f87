"""Metrics of predicted numbers against scikit-learn and SciPy, and the coverage of their intervals."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as reference

from embedstore.classify.metrics.regression import (
    ordinal_report,
    pearson,
    quadratic_kappa,
    r2,
    regression_report,
    spearman,
)
from tools.evaluation_promises.numbers import gap_misses, metric_coverage

numbers = st.lists(st.integers(-5, 5), min_size=12, max_size=40)


@settings(max_examples=50, deadline=None)
@given(y=numbers, seed=st.integers(0, 99), scale=st.sampled_from([1e-3, 1.0, 1e5]), offset=st.sampled_from([0, 1e4]))
def test_the_values_are_those_of_the_references(y, seed, scale, offset):
    """With ties, large offsets and all scales; a metric that is not defined is NaN."""
    rng = np.random.default_rng(seed)
    y = np.array(y, float) * scale + offset
    p = y + rng.integers(-2, 3, len(y)) * scale
    report = regression_report(y, p, np.arange(len(y)), baseline=np.zeros(len(y)))
    assert report["mae"] == pytest.approx(reference.mean_absolute_error(y, p))
    assert report["rmse"] == pytest.approx(reference.root_mean_squared_error(y, p))
    if np.ptp(y) == 0:
        assert np.isnan(report["r2"])
        return
    assert report["r2"] == pytest.approx(reference.r2_score(y, p), rel=1e-6)
    if np.ptp(p):
        assert report["pearson"] == pytest.approx(stats.pearsonr(y, p)[0], abs=1e-6)
        assert report["spearman"] == pytest.approx(stats.spearmanr(y, p)[0], abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(y=numbers, seed=st.integers(0, 99))
def test_kappa_is_that_of_scikit_learn(y, seed):
    """The levels are the different values of both; the distance counts in places, not in units."""
    rng = np.random.default_rng(seed)
    y = np.abs(np.array(y)) * 10.0
    p = np.clip(y + 10.0 * rng.integers(-1, 2, len(y)), 0, 50)
    report = ordinal_report(y, p, np.arange(len(y)), baseline=np.zeros(len(y)))
    assert report["accuracy"] == (y == p).mean()
    if len(np.unique([*y, *p])) > 1:
        assert report["quadratic_kappa"] == pytest.approx(
            reference.cohen_kappa_score(y, p, weights="quadratic"), abs=1e-9, nan_ok=True
        )


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 3), min_size=12, max_size=12), seed=st.integers(0, 99))
@example(counts=[0, 3] + [0] * 10, seed=0)  # a constant: both are NaN, whatever the rounding
def test_a_count_repeats_a_row(counts, seed):
    """The replicates of the bootstrap are the metrics of the drawn rows."""
    rng = np.random.default_rng(seed)
    y, p, counts = rng.integers(0, 5, 12).astype(float), rng.integers(0, 5, 12).astype(float), np.array(counts)
    drawn = np.repeat(np.arange(12), counts)
    if len(drawn) < 2:
        return
    for metric in (r2, pearson, spearman, quadratic_kappa):
        weighted = metric(y, p, counts[None].astype(float))[0]
        repeated = metric(y[drawn], p[drawn], np.ones((1, len(drawn))))[0]
        assert weighted == pytest.approx(repeated, abs=1e-9, nan_ok=True)


def test_few_groups_have_no_interval_of_a_correlation():
    """Nine groups are too few, whatever the number of rows; the error still has one."""
    rng = np.random.default_rng(0)
    y = rng.normal(size=90)
    scores = regression_report(y, y + rng.normal(size=90), np.arange(90) % 9, baseline=np.zeros(90)).scores
    assert np.isnan([scores["r2"].low, scores["spearman"].high]).all()
    assert scores["mae"].low < scores["mae"].value < scores["mae"].high


def test_an_interval_of_rare_levels_covers_the_truth():
    """Most predictions are of one level: the bootstrap alone held the truth in 0.90 of 30 items."""
    assert metric_coverage(30, 1, 0.3, runs=300)["quadratic_kappa"] >= 0.925


@pytest.mark.parametrize(("n", "size", "correlation"), [(30, 1, 0.8), (120, 4, 0.5)])
def test_intervals_cover_the_truth(n, size, correlation):
    """In 100 draws between 0.89 and 1 of the intervals hold the metric of the population."""
    covered = metric_coverage(n, size, correlation, runs=100)
    assert set(covered) == {
        "r2", "mae", "rmse", "pearson", "spearman", "quadratic_kappa", "within_one_accuracy"
    }  # fmt: skip
    assert all(0.89 <= share <= 1 for share in covered.values()), covered


@pytest.mark.slow
@pytest.mark.parametrize(("n", "size"), [(30, 1), (120, 1), (1000, 1), (120, 4), (400, 10)])
@pytest.mark.parametrize("correlation", [0.3, 0.8, 0.95])
def test_intervals_cover_the_truth_in_many_draws(n, size, correlation):
    """In 600 draws between 0.92 and 0.99; a share near 1 has few values, and its interval covers more."""
    covered = metric_coverage(n, size, correlation, runs=600)
    assert all(share >= 0.92 for share in covered.values()), covered
    assert all(share <= 0.99 for name, share in covered.items() if name != "within_one_accuracy"), covered


@pytest.mark.slow
@pytest.mark.parametrize(("slices", "rows", "size"), [(2, 50, 1), (5, 60, 5), (10, 50, 1)])
def test_gaps_of_equal_slices_are_rarely_shown(slices, rows, size):
    """Any interval excludes 0 in at most 6% of 600 draws."""
    assert gap_misses(slices, rows, size, runs=600) <= 0.06


def test_gaps_of_equal_slices_are_rarely_shown_in_a_few_draws():
    """Any interval of three slices excludes 0 in at most 10% of 60 draws, and a difference of 2 is found."""
    assert gap_misses(3, 50, 1, runs=60) <= 0.1
