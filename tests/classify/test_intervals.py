"""Intervals hold their level, and comparisons find no differences by luck. Simulated with a fixed seed.

The quick form has a few hundred runs; its limits are the promise (0.92 to 0.98, at most 0.05) and three standard errors
of the simulation. The long form is marked slow.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest

from embedstore.classify import metrics
from embedstore.classify.metrics import paired, shares, simultaneous
from tools.evaluation_promises import comparisons, draws, intervals

LOW, HIGH = 0.92, 0.98


def noise(level, runs):
    """Return three standard errors of a simulated share."""
    return 3 * math.sqrt(level * (1 - level) / runs)


@pytest.mark.parametrize("n", [20, 30, 120, 1000])
def test_the_interval_of_independent_rows_has_its_coverage(n):
    """The exact coverage is 0.92 to 0.98 at accuracies of 0.5 to 0.99, but for single steps of the binomial."""
    counts = np.arange(n + 1)
    ends = np.array([shares.wilson_interval(c / n, n) for c in counts])
    for p in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99):
        inside = (ends[:, 0] <= p) & (p <= ends[:, 1])
        coverage = binom.pmf(counts, n, p)[inside].sum()
        next_step = binom.pmf(counts[inside], n, p).min()  # no interval at all can be closer at this n and p
        assert coverage >= LOW
        assert coverage <= HIGH or coverage - next_step < LOW or coverage < 0.984


def test_wilson_by_hand():
    """20 of 20: the lower end is n / (n + z^2); 19 of 20: the upper end is that of one Poisson event."""
    assert shares.wilson_interval(1.0, 20) == pytest.approx((20 / (20 + 1.959964**2), 1.0))
    assert shares.wilson_interval(0.0, 20) == pytest.approx((0.0, 1 - 20 / (20 + 1.959964**2)))
    assert shares.wilson_interval(0.95, 20)[1] == pytest.approx(1 - 0.051293 / 20, abs=1e-6)


@pytest.mark.parametrize("kind", ["1", "5", "20", "geometric", "half of 1, half of 20"])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 1.0])
def test_groups_are_one_draw(kind, correlation):
    """With 40 groups of equal and of unequal sizes the coverage is 0.92 to 0.98, whatever the correlation within."""
    for accuracy in (0.5, 0.85, 0.95):
        coverage = intervals.coverage_in_groups(accuracy, kind, correlation, 300)
        assert LOW - noise(0.95, 300) <= coverage <= HIGH + noise(HIGH, 300), (accuracy, coverage)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["1", "5", "20", "geometric", "half of 1, half of 20"])
def test_groups_are_one_draw_in_the_long_run(kind):
    """At 2,000 runs the coverage is at least 0.92 for every accuracy and correlation, within the noise of the runs.

    It is at most 0.98 but near 1, where the count of errors is one of few.
    """
    for accuracy in intervals.ACCURACIES:
        for correlation in intervals.CORRELATIONS:
            coverage = intervals.coverage_in_groups(accuracy, kind, correlation, 2000)
            assert LOW - noise(LOW, 2000) / 2 <= coverage <= 0.99, (accuracy, correlation, coverage)


@pytest.mark.parametrize("n", [30, 120])
def test_the_mean_recall_has_its_coverage(n):
    """Five classes of different recalls, of which small samples may show none wrong."""
    for mean in (0.75, 0.95):
        coverage = intervals.coverage_of_mean_recall(n, np.linspace(2 * mean - 1, 1, 5), 300)
        assert LOW - noise(0.95, 300) <= coverage <= 1, (mean, coverage)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(4, 60), st.integers(1, 12), st.integers(0, 10_000), st.booleans())
def test_no_interval_is_a_point_or_leaves_its_range(n_classes, rows, n_groups, seed, perfect):
    """Whatever the rows and groups: low < high, within [0, 1] where the metric is; or there is no interval."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, rows)
    proba = np.eye(n_classes)[y] if perfect else rng.dirichlet(np.ones(n_classes), rows)
    groups = rng.integers(0, n_groups, rows)
    report = metrics.classification_report(y, proba, list(range(n_classes)), groups=groups, n_replicates=60)
    for name, score in report.scores.items():
        if math.isnan(score.low):
            assert name != "accuracy"
            continue
        assert score.low <= score.value + 1e-12, name
        assert score.value <= score.high + 1e-12, name
        assert score.low < score.high, name
        assert score.low >= 0, name
        assert score.high <= {"brier_score": 2, "log_loss": 16}.get(name, 1), name
    for c in report.per_class:
        assert math.isnan(c.recall) or c.recall_low <= c.recall <= c.recall_high
        assert math.isnan(c.recall) or c.recall_low < c.recall_high


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10_000))
def test_copies_do_not_narrow_an_interval(rows, copies, seed):
    """Every row repeated as one group gives an interval that is not narrower than that of the rows."""
    rng = np.random.default_rng(seed)
    correct = rng.random(rows) < 0.8
    single = shares.share_interval(shares.accuracy_rows(correct, np.arange(rows)))
    repeated = np.repeat(np.arange(rows), copies)
    grouped = shares.share_interval(shares.accuracy_rows(correct[repeated], repeated))
    assert grouped[0] <= single[0] + 1e-9
    assert grouped[1] >= single[1] - 0.01


def test_ranking_metrics_of_rare_classes_have_no_interval():
    """With three rows per class average precision, AUROC and F1 have none; the report names the classes."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 3)
    proba = rng.dirichlet(np.ones(10), 30)
    report = metrics.classification_report(y, proba, list(range(10)))
    for name in ("average_precision_macro", "auroc_ovr_macro", "macro_f1"):
        assert math.isnan(report.scores[name].low)
    assert report.rare_classes == tuple(str(c) for c in range(10))


def test_the_upper_end_of_auroc_is_at_most_one():
    """At 0.9999, with the linearized replicates of many rows, the interval ends at 1."""
    rng = np.random.default_rng(0)
    for _ in range(10):
        y, proba = draws.draw_scores(1000, 20, 6.0, rng)
        assert metrics.metric_interval("auroc_ovr_macro", y, proba)[1] <= 1


@pytest.mark.parametrize("separation", [1.5, 3.0])
def test_the_other_metrics_have_about_their_coverage(separation):
    """F1, log-loss and Brier score of 120 rows; the last two are means of skewed losses."""
    held = intervals.coverage_of_metrics(120, 5, separation, 100)
    for name in ("macro_f1", "log_loss", "brier_score", "auroc_ovr_macro", "average_precision_macro"):
        assert held[name] >= 0.95 - noise(0.95, 100), (name, held[name])


@pytest.mark.parametrize("error", [0.0, 0.05, 0.1])
def test_the_calibration_error_is_debiased(error):
    """Its interval holds the true error, also where it is 0, which the usual one exceeds by its noise."""
    assert intervals.coverage_of_calibration_error(600, error, 150) >= 0.95 - noise(0.95, 150)


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 900), st.integers(2, 5), st.floats(1e-9, 0.02), st.integers(1, 4))
def test_confident_rows_that_are_all_right_do_not_prove_calibration(rows, n_classes, doubt, copies):
    """The error may be as large as the distance from the confidence to the lower end of the accuracy."""
    y = np.arange(rows) % n_classes
    proba = np.full((rows, n_classes), doubt / (n_classes - 1))
    proba[np.arange(rows), y] = 1 - doubt
    groups = np.arange(rows) // copies
    scores = metrics.classification_report(y, proba, list(range(n_classes)), groups=groups, n_replicates=50).scores
    error = scores["calibration_error"]
    if math.isnan(error.low):
        assert len(np.unique(groups)) < 30
        return
    assert error.low < error.high
    assert error.high >= 1 - doubt - scores["accuracy"].low - 1e-9


@settings(max_examples=40, deadline=None)
@given(st.integers(20, 900), st.integers(2, 5), st.floats(0.01, 0.45), st.integers(0, 1000))
def test_one_uncertain_row_does_not_make_a_loss_unknown(rows, n_classes, doubt, seed):
    """One row has nearly all of the loss; the upper end stays near that of a share of the worst loss, with none wrong.

    The bootstrap alone gave a Brier score of up to 2 for 801 rows that were all right.
    """
    y = np.random.default_rng(seed).integers(0, n_classes, rows)
    proba = np.full((rows, n_classes), 1e-7 / (n_classes - 1))
    proba[np.arange(rows), y] = 1 - 1e-7
    proba[0] = doubt / (n_classes - 1)
    proba[0, y[0]] = 1 - doubt
    y[0] = proba[0].argmax()
    scores = metrics.classification_report(y, proba, list(range(n_classes)), n_replicates=100).scores
    unseen = 1 - shares.wilson_interval(1.0, rows)[0]
    for name, worst in {"brier_score": 2.0, "log_loss": 16.0}.items():
        assert scores[name].low <= scores[name].value < scores[name].high <= 3 * unseen * worst


def test_the_usual_calibration_error_is_left_out_of_small_reports():
    """It is in reports of 1,000 rows and more, and has no interval."""
    y, proba = draws.draw_scores(1000, 4, 2.0, np.random.default_rng(0))
    report = metrics.classification_report(y, proba, list(range(4)), n_replicates=50)
    assert math.isnan(report.scores["expected_calibration_error"].low)
    assert sum(b.rows for b in report.reliability) == 1000
    small = metrics.classification_report(y[:999], proba[:999], list(range(4)), n_replicates=50)
    assert "expected_calibration_error" not in small.scores
    assert {"brier_score", "calibration_error"} <= set(small.scores)


@pytest.mark.parametrize(("k", "n", "size"), [(3, 300, 1), (6, 100, 1), (12, 800, 20), (24, 100, 1)])
def test_equal_classifiers_do_not_differ(k, n, size):
    """No p-value is below 0.05 and no interval excludes 0, in 95 of 100 comparisons."""
    by_p, by_interval = comparisons.familywise_error(k, n, 0.85, 100, group_size=size)
    assert by_p <= 0.05 + noise(0.05, 100)
    assert by_interval <= 0.05 + noise(0.05, 100)


@pytest.mark.slow
@pytest.mark.parametrize("k", [2, 3, 6, 12, 24])
@pytest.mark.parametrize(("n", "size"), [(1000, 1), (100, 1), (800, 20), (200, 5)])
def test_equal_classifiers_do_not_differ_in_the_long_run(k, n, size):
    """At 1,000 comparisons the share is at most 0.05 and two standard errors."""
    by_p, by_interval = comparisons.familywise_error(k, n, 0.85, 1000, group_size=size)
    assert max(by_p, by_interval) <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / 1000)


def test_a_detectable_difference_is_found_in_four_of_five_cases():
    """Two classifiers that differ by what was called detectable are told apart in about 80% of the test sets."""
    rate, called = comparisons.detection_rate(400, (0.90, 0.835), 120)
    assert called == pytest.approx(0.065, abs=0.006)
    assert 0.68 <= rate <= 0.92


def test_the_rows_that_are_needed_grow_with_the_square():
    """Half of a difference needs four times the rows."""
    rng = np.random.default_rng(0)
    pairs = simultaneous.compare_all([rng.random(400) < 0.9 for _ in range(3)], np.arange(400))
    assert pairs.rows_needed(0.01) == pytest.approx(4 * pairs.rows_needed(0.02), abs=4)
    assert pairs.rows_needed(0.0) is None


def test_classifiers_that_agree_on_every_row_still_have_an_interval():
    """The same predictions twice: the gap is 0, and its interval has a width on either side."""
    correct = np.arange(50) % 5 > 0
    gap = simultaneous.compare_all([correct, correct], np.arange(50)).interval(0, 1)
    assert (gap.value, gap.low < 0 < gap.high) == (0, True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=12))
def test_the_sign_change_test_equals_enumeration(sums):
    """Its p-value is the share of all sign changes with a sum at least as far from 0."""
    values = np.array(sums)
    signs = np.array(np.meshgrid(*[[-1, 1]] * len(values))).reshape(len(values), -1)
    reached = np.abs(signs.T @ values) >= abs(values.sum())
    assert paired.sign_change_p_value(values) == pytest.approx(reached.mean())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 700), st.integers(0, 700))
def test_without_groups_it_is_mcnemar(a, b):
    """It is the exact binomial test of the discordant rows, also with many of them."""
    found = paired.sign_change_p_value(np.r_[np.ones(a, int), -np.ones(b, int)])
    assert found == pytest.approx(binomtest(a, a + b).pvalue if a + b else 1.0, abs=1e-12)
