"""Metrics against values computed by hand and against scikit-learn."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify import metrics
from embedstore.classify.metrics import point_metrics, ranking, resampling
from embedstore.errors import LabelError

# Five rows, three classes. Predictions 0 1 1 2 0 against the truth 0 1 2 2 1: three are correct.
Y = np.array([0, 1, 2, 2, 1])
P = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.6, 0.3, 0.1]])


def random_scores(rows=400, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    logits = rng.standard_normal((rows, classes)) + 1.5 * (y[:, None] == np.arange(classes))
    proba = np.exp(logits)
    return y, proba / proba.sum(1, keepdims=True)


def test_accuracy_counts_rows_and_recall_counts_classes():
    """Three of five rows are correct; the recalls of the classes are 1, 1/2 and 1/2."""
    assert metrics.compute_metric("accuracy", Y, P) == pytest.approx(0.6)
    assert metrics.compute_metric("mean_per_class_recall", Y, P) == pytest.approx((1 + 0.5 + 0.5) / 3)


def test_macro_f1_is_the_mean_over_classes():
    """Class 0: 2*1/(1+2); class 1: 2*1/(2+2); class 2: 2*1/(2+1)."""
    assert metrics.compute_metric("macro_f1", Y, P) == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


def test_log_loss_is_the_mean_negative_logarithm():
    """It is -(ln .7 + ln .8 + ln .3 + ln .8 + ln .3) / 5."""
    assert metrics.compute_metric("log_loss", Y, P) == pytest.approx(-sum(map(math.log, (0.7, 0.8, 0.3, 0.8, 0.3))) / 5)


def test_the_calibration_error_is_the_gap_of_confidence_and_accuracy_per_bin():
    """Bins of 1/15: {.5} wrong, {.6} wrong, {.7} correct, {.8, .8} correct: (.5 + .6 + .3 + 2 * .2) / 5."""
    assert metrics.compute_metric("expected_calibration_error", Y, P) == pytest.approx((0.5 + 0.6 + 0.3 + 0.4) / 5)


def test_top5_counts_a_tie_in_column_order():
    """With seven equal scores the first five columns are the top five."""
    proba = np.full((7, 7), 1 / 7)
    assert metrics.compute_metric("top5_accuracy", np.arange(7), proba) == pytest.approx(5 / 7)


def test_auroc_counts_pairs_and_half_of_ties():
    """Class 1 scores 1 .5 .5 0 with truth + - + -: of four pairs three are won and one is a tie: 3.5 / 4."""
    score = np.array([1.0, 0.5, 0.5, 0.0])
    y = np.array([1, 0, 1, 0])
    assert metrics.compute_metric("auroc_ovr_macro", y, np.stack([1 - score, score], 1)) == pytest.approx(3.5 / 4)


def test_average_precision_is_a_step_sum():
    """Truth + - + by falling score: precision 1 at recall 1/2, 2/3 at recall 1."""
    score = np.array([0.9, 0.8, 0.7])
    y = np.array([[0, 1], [0, 0], [0, 1]])  # an indicator: column 0 never occurs and is left out
    assert metrics.compute_metric("average_precision_macro", y, np.stack([1 - score, score], 1)) == pytest.approx(
        0.5 * 1 + 0.5 * 2 / 3
    )


def test_every_metric_agrees_with_scikit_learn():
    """On random scores the metrics equal scikit-learn's, which has no calibration error."""
    sk = pytest.importorskip("sklearn.metrics")
    y, proba = random_scores()
    best = proba.argmax(1)
    assert metrics.compute_metric("accuracy", y, proba) == pytest.approx(sk.accuracy_score(y, best))
    assert metrics.compute_metric("top5_accuracy", y, proba) == pytest.approx(sk.top_k_accuracy_score(y, proba, k=5))
    assert metrics.compute_metric("mean_per_class_recall", y, proba) == pytest.approx(
        sk.balanced_accuracy_score(y, best)
    )
    assert metrics.compute_metric("macro_f1", y, proba) == pytest.approx(sk.f1_score(y, best, average="macro"))
    assert metrics.compute_metric("log_loss", y, proba) == pytest.approx(sk.log_loss(y, proba))
    assert metrics.compute_metric("auroc_ovr_macro", y, proba) == pytest.approx(
        sk.roc_auc_score(y, proba, multi_class="ovr", average="macro")
    )
    each = [sk.average_precision_score(y == k, proba[:, k]) for k in range(6)]
    assert metrics.compute_metric("average_precision_macro", y, proba) == pytest.approx(np.mean(each))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 30))
def test_a_replicate_equals_the_metric_of_the_repeated_rows(seed, classes, rows):
    """Integer weights give the metric of the rows repeated that often, for every metric and with ties."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    proba = np.round(rng.random((rows, classes)), 1) * 0.9 + 0.05
    times = rng.multinomial(rows, np.full(rows, 1 / rows))
    repeated = np.repeat(np.arange(rows), times)
    for metric in metrics.MetricName:
        weighted = point_metrics.WEIGHTED_METRICS[metric](y, proba, times[None].astype(np.float32))[0]
        assert weighted == pytest.approx(metrics.compute_metric(metric, y[repeated], proba[repeated]), nan_ok=True), (
            metric
        )


def test_the_same_seed_gives_the_same_interval():
    """Two calls agree to the last digit; another seed differs."""
    y, proba = random_scores()
    one = metrics.metric_interval("macro_f1", y, proba, n_replicates=200, seed=3)
    assert one == metrics.metric_interval("macro_f1", y, proba, n_replicates=200, seed=3)
    assert one != metrics.metric_interval("macro_f1", y, proba, n_replicates=200, seed=4)


def test_the_report_has_every_metric_and_the_tables():
    """The confusion matrix and the per-class rows are those of the five rows above."""
    found = metrics.classification_report(["a", "b", "c", "c", "b"], P, ["a", "b", "c"], n_replicates=50)
    assert found.rows == 5
    assert found.confusion == ((1, 0, 0), (1, 1, 0), (0, 1, 1))
    assert found["accuracy"] == pytest.approx(0.6)
    reported = {m.value for m in metrics.MetricName} | {"calibration_error"}
    assert set(found.scores) == reported - {"expected_calibration_error"}  # which needs 1,000 rows
    b = found.per_class[1]
    assert (b.name, b.support, b.predicted, b.precision, b.recall, b.f1) == ("b", 2, 2, 0.5, 0.5, 0.5)
    assert found.scores["accuracy"].low <= 0.6 <= found.scores["accuracy"].high


def test_an_undefined_metric_is_null_in_json():
    """A class without rows has no recall and no AUROC; the report is strict JSON."""
    found = metrics.classification_report(
        ["a", "a"], np.array([[0.9, 0.1], [0.8, 0.2]]), ["a", "b"], n_replicates=20
    ).to_json()
    assert found["per_class"][1]["recall"] is None
    assert found["scores"]["auroc_ovr_macro"]["value"] is None
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(6, 40))
def test_ranking_metrics_equal_the_exact_ones_and_their_derivatives(seed, classes, rows):
    """Both metrics of every class equal those computed exactly, ties included; the influence of a row is the
    numerical derivative by its weight."""
    rng = np.random.default_rng(seed)
    y, proba = rng.integers(0, classes, rows), np.round(rng.random((rows, classes)), 1)
    true, one = y[:, None] == np.arange(classes), np.ones((1, rows))
    found = ranking.ranking_metrics(true, proba)
    for name, values, moves in (
        ("class_auroc", found.auroc, found.auroc_influence),
        ("class_average_precision", found.average_precision, found.average_precision_influence),
    ):
        figure = getattr(ranking, name)
        each = [figure(true[:, k], proba[:, k], one)[0] for k in range(classes)]
        assert values.tolist() == pytest.approx(each, nan_ok=True)
        row, step = int(rng.integers(rows)), 1e-5
        up, down = (ranking.macro_average(figure, true, proba, one + s * np.eye(rows)[[row]])[0] for s in (step, -step))
        assert moves[row] == pytest.approx(np.nan_to_num((up - down) / (2 * step)), abs=1e-6)
        assert moves.sum() == pytest.approx(0, abs=1e-9)


def test_large_inputs_have_ranking_intervals(monkeypatch):
    """At 1,000 x 20, where both ways are possible, the widths agree to a tenth; 4,000 x 200 has one too."""
    y, proba = random_scores(1000, 20)
    for metric in ("auroc_ovr_macro", "average_precision_macro"):
        monkeypatch.setattr(resampling, "_EXACT_RANKING", 1e12)
        low, high = metrics.metric_interval(metric, y, proba, n_replicates=600)
        monkeypatch.setattr(resampling, "_EXACT_RANKING", 0)
        other = metrics.metric_interval(metric, y, proba, n_replicates=600)
        assert other[1] - other[0] == pytest.approx(high - low, rel=0.1)
        assert other[0] < metrics.compute_metric(metric, y, proba) < other[1]
    y, proba = random_scores(4000, 200)
    low, high = metrics.metric_interval("auroc_ovr_macro", y, proba)
    assert 0.5 < low < metrics.compute_metric("auroc_ovr_macro", y, proba) < high < 1


def test_linearized_intervals_cover_the_true_auroc():
    """At least 90 of 100 intervals from 400 rows contain the true area, known from 200,000 rows."""
    y, proba = random_scores(200_000, 3)
    truth, held = metrics.compute_metric("auroc_ovr_macro", y, proba), 0
    for n in range(100):
        rows = slice(400 * n, 400 * (n + 1))
        found = ranking.ranking_metrics(y[rows, None] == np.arange(3), proba[rows])
        spread = 1.96 * np.sqrt((found.auroc_influence**2).sum())
        held += abs(found.auroc.mean() - truth) <= spread
    assert held >= 90


def test_mcnemar_is_the_exact_binomial_test():
    """Only the first is correct in 1 row, only the second in 5: p = 2 * (1 + 6) / 2**6."""
    y = np.zeros(10, int)
    first = np.array([0, 1, 1, 1, 1, 1, 0, 0, 1, 0])
    second = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    found = metrics.mcnemar(y, first, second)
    assert (found.only_first_correct, found.only_second_correct, found.p_value) == (1, 5, pytest.approx(14 / 64))
    assert metrics.mcnemar(y, first, first).p_value == 1.0


@pytest.mark.parametrize(
    ("labels", "words"), [([], "no labeled rows"), (["a", "x"], "labels x are not"), (["a"], "one row of scores")]
)
def test_labels_that_do_not_fit_the_scores_are_refused(labels, words):
    """No rows, an unknown label and a wrong number of rows are errors."""
    proba = np.full((len(labels) if words != "one row of scores" else 2, 2), 0.5)
    with pytest.raises(LabelError, match=words):
        metrics.classification_report(labels, proba, ["a", "b"])
