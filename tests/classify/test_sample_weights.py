"""Weights of single rows: what they are equal to, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

import embedstore as es
from embedstore.classify import heads
from embedstore.classify.data.labels import label_indicators
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.evaluation.weighted_metrics import weighted_metrics
from embedstore.classify.metrics import compute_metric
from embedstore.errors import BadHead, BadOption, LabelError
from tests.classify.test_near_duplicates import features
from tools.evaluation_promises.sets import coverage_of_grouped_errors, coverage_of_weighted_figures


def noisy(n, classes=3, seed=0):
    """Rows of a few classes that overlap."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return np.eye(classes, 5)[y] + rng.normal(size=(n, 5)), np.array([f"c{k}" for k in y])


@settings(max_examples=20, deadline=None)
@given(
    weights=st.lists(st.integers(0, 4), min_size=30, max_size=80),
    classes=st.integers(2, 4),
    C=st.floats(0.01, 10),
    class_weight=st.sampled_from([None, "balanced", {"c0": 3.0}]),
    seed=st.integers(0, 50),
)
def test_a_whole_weight_repeats_a_row(weights, classes, C, class_weight, seed):
    """The optimum of weighted rows is that of repeated rows and of scikit-learn, with class weights, too."""
    w = np.array(weights)
    w[: 2 * classes] = 1
    X, y = noisy(len(w), classes, seed)
    again = np.repeat(np.arange(len(w)), w)
    make = {"C": C, "class_weight": class_weight, "tol": 1e-12}
    weighted = heads.LogisticProbe(**make).fit(X, y, sample_weight=w).predict_proba(X)
    repeated = heads.LogisticProbe(**make).fit(X[again], y[again]).predict_proba(X)
    theirs = LogisticRegression(C=C, class_weight=class_weight, tol=1e-10, max_iter=10_000)
    assert weighted == pytest.approx(repeated, abs=1e-4)
    assert weighted == pytest.approx(theirs.fit(X[again], y[again]).predict_proba(X), abs=1e-3)


@pytest.mark.parametrize("name", ["logistic", "mlp", "ridge", "svm"])
def test_a_row_of_weight_0_has_no_part_in_anything(name):
    """Folds, C, standardization and early stopping are those without the row, also of another class."""
    X, y = noisy(120)
    w = np.random.default_rng(1).integers(0, 2, 120)
    X[w == 0] *= 100
    y[np.flatnonzero(w == 0)[0]] = "ot"
    options = {"max_epochs": 20, "hidden": 16} if name == "mlp" else {}
    kept = w > 0
    if name in ("ridge", "svm"):  # of scikit-learn, where a class without weight stays a class
        y[y == "ot"] = "c0"
    one = heads.fit_weighted(heads.make_head(name, **options), X, y, weights=w)
    two = heads.fit_weighted(heads.make_head(name, **options), X[kept], y[kept], weights=np.ones(kept.sum()))
    assert list(one.classes_) == list(two.classes_)
    assert heads.probabilities(one, X[kept]) == pytest.approx(heads.probabilities(two, X[kept]), abs=1e-3)


def test_equal_weights_change_nothing():
    """All weights 5 give the network without weights; in logistic regression they are five times the C."""
    X, y = noisy(150)
    w, network = np.full(150, 5.0), {"max_epochs": 20, "hidden": 16}
    one, two = heads.MLPHead(**network).fit(X, y, sample_weight=w), heads.MLPHead(**network).fit(X, y)
    assert one.predict_proba(X) == pytest.approx(two.predict_proba(X), abs=1e-4)
    one, two = heads.LogisticProbe(C=0.1).fit(X, y, sample_weight=w), heads.LogisticProbe(C=0.5).fit(X, y)
    assert one.predict_proba(X) == pytest.approx(two.predict_proba(X), abs=1e-3)


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_heavy_rows_pull_the_boundary(name):
    """On labels that contradict each other the heavier ones win."""
    X = np.repeat(np.random.default_rng(0).normal(size=(60, 4)), 2, axis=0)
    y, w = np.tile(["a", "b"], 60), np.tile([1.0, 9.0], 60)
    head = heads.make_head(name).fit(X, y, sample_weight=w)
    assert head.predict_proba(X)[:, 1].mean() == pytest.approx(0.9, abs=0.05)


def test_several_labels_take_weights():
    """Every label's head is fitted with them; a constant label has its weighted share."""
    X, y = noisy(60, 2)
    indicators = label_indicators(np.array([(v, "all") for v in y], object), ["c0", "c1", "all"])
    w = np.random.default_rng(0).integers(0, 3, 60)
    again = np.repeat(np.arange(60), w)
    one = heads.OneVsRest("ridge").fit(X, indicators, sample_weight=w)
    two = heads.OneVsRest("ridge").fit(X[again], indicators[again])
    assert one.predict_proba(X) == pytest.approx(two.predict_proba(X), abs=1e-6)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_a_weight_that_is_none_is_refused(name, bad):
    """The message names the row."""
    X, y = noisy(12)
    with pytest.raises(BadHead, match="at least 0; row 4"):
        heads.make_head(name).fit(X, y, sample_weight=np.where(np.arange(12) == 4, bad, 1.0))


def test_a_store_weighs_its_items(tmp_path):
    """``weight=`` reaches every head that takes weights; others refuse it, and so do wrong weights."""
    X, y = noisy(150)
    store = es.create(tmp_path / "s.store")
    columns = {"uri": [f"/{n}" for n in range(150)], "label": y, "w": np.arange(150) % 3, "half": [1.0, None] * 75}
    store.add_vectors(X.astype(np.float32), columns)
    for head in ("logistic", "mlp", "svm", "ridge"):
        options = {"max_epochs": 5} if head == "mlp" else {}
        pair = [store.probe("label", head=head, weight=w, head_options=options, seed=1) for w in (None, "w")]
        assert pair[0].n_held_out == pair[1].n_held_out
        proba = [e.held_out_predictions.proba for e in pair]
        assert proba[0] != pytest.approx(proba[1], abs=1e-3)
    for head in ("knn", "prototype", "lda"):
        with pytest.raises(BadHead, match="does not take weights of items"):
            store.probe("label", head=head, weight="w")
    with pytest.raises(LabelError, match=r"'half' must be finite numbers of at least 0; 75 of 150.*none"):
        store.probe("label", weight="half")
    with pytest.raises(BadOption, match="weighted_metrics weighs the held-out items: give weight"):
        store.probe("label", weighted_metrics=True)
    store.probe("label", weight="w", calibrate="temperature")
    store.probe("label", weight="w", folds=3)


def test_weighted_figures_count_items_by_their_weight(tmp_path):
    """They are the means of repeated held-out items; the unweighted figures are unchanged."""
    X, y = noisy(300)
    w = np.arange(300) % 4
    store = es.create(tmp_path / "s.store")
    columns = {"uri": [f"/{n}" for n in range(300)], "label": y, "w": w, "age": X[:, 0] + 0.5}
    store.add_vectors(X.astype(np.float32), columns)
    e = store.probe("label", weight="w", weighted_metrics=True)
    rows = e.held_out_predictions
    own = w[rows.ids - 1]
    figure = e.scores["weighted_accuracy"]
    assert figure.value == pytest.approx(np.repeat(rows.correct, own).mean())
    assert figure.low < figure.value < figure.high
    assert e.accuracy == rows.correct.mean()
    n = store.probe("age", weight="w", weighted_metrics=True)
    rows = n.held_out_predictions
    errors = np.repeat(np.abs(rows.y - rows.predicted), w[rows.ids - 1])
    assert n.scores["weighted_mae"].value == pytest.approx(errors.mean())
    assert n.scores["weighted_rmse"].value == pytest.approx(np.sqrt((errors**2).mean()))
    assert n.scores["weighted_rmse"].low < n.scores["weighted_rmse"].value < n.scores["weighted_rmse"].high


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=300, max_size=300).filter(any), st.sampled_from(["prototype", "knn"]))
def test_every_weighted_figure_is_that_of_repeated_items(weights, head):
    """With whole weights: recall, log-loss and Brier score of each item as often as it weighs; votes have no losses."""
    X, y = noisy(300)
    data = replace(features(X, y), weights=np.asarray(weights, float))
    e = evaluate_head(head, replace(data, weights=None), EvaluationSettings())
    if (np.asarray(weights)[np.searchsorted(data.ids, e.held_out_predictions.ids)] > 0).sum() < 2:
        return  # a single draw has no interval
    found, rows = weighted_metrics(e.held_out_predictions, data), e.held_out_predictions
    often = np.repeat(np.arange(len(rows.ids)), np.asarray(weights)[np.searchsorted(data.ids, rows.ids)])
    codes = np.array([rows.classes.index(v) for v in rows.y[often]])
    names = ["accuracy", "mean_per_class_recall", *(["log_loss", "brier_score"] if head == "prototype" else [])]
    assert {n for n in found if n.startswith("weighted")} == {f"weighted_{n}" for n in names}
    for name in names:
        own = found[f"weighted_{name}"]
        assert own.value == pytest.approx(compute_metric(name, codes, rows.proba[often]), rel=1e-5)
        assert own.low <= own.value <= own.high
        assert own.low < own.high


@pytest.mark.parametrize(("spread", "copies"), [(0.0, 1), (0.7, 1), (0.7, 5)])
def test_the_interval_of_a_weighted_figure_covers_the_truth(spread, copies):
    """In 300 draws of 80 rows with unequal weights, alone and as five copies: between 0.91 and 0.985."""
    for covered in coverage_of_weighted_figures(80, spread, 300, copies=copies):
        assert 0.91 <= covered <= 0.985


@pytest.mark.parametrize("copies", [1, 5])
def test_a_few_heavy_rows_do_not_make_an_interval_too_short(copies):
    """With weights that differ like a logarithm of standard deviation 1 it was 0.919 of 1,000: heavy rows had luck."""
    assert coverage_of_weighted_figures(80, 1.0, 1000, copies=copies)[1] >= 0.94


@pytest.mark.parametrize("correlation", [0.3, 1.0])
def test_a_few_large_groups_do_not_make_an_interval_too_short(correlation):
    """Groups of very different sizes weigh as rows do: 0.93 of 1,000 before."""
    assert coverage_of_grouped_errors("geometric", correlation, 1000) >= 0.94


@pytest.mark.parametrize("head", [heads.LogisticProbe, heads.MLPHead])
def test_weights_that_leave_one_class_are_named(head):
    """The error was that the labels hold one class, which they do not."""
    X, y = np.eye(8), np.arange(8) % 2
    with pytest.raises(LabelError, match="the rows with a weight above 0 hold one class only"):
        head().fit(X, y, sample_weight=1.0 * (y == 0))
