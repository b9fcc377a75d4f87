"""What a head promises for new rows holds in simulations of many draws."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify import heads
from embedstore.classify.data.folds import stratified_group_holdout
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.heads.conformal import ConformalSets
from embedstore.classify.heads.selective import SelectiveClassifier, choose_threshold
from embedstore.errors import BadHead
from tools.evaluation_promises.heads import (
    IGNORED,
    abstention,
    abstention_out_of_fold,
    coverage_by_class,
    coverage_of_learning_curve,
    coverage_out_of_fold,
    draw,
    labeled,
)
from tools.evaluation_promises.table import PAGE, date_of, statements, table_of

IGNORE = {"near_duplicates": "ignore"}


class Precomputed:
    """A head whose features are its probabilities."""

    def __init__(self, k=5):
        self.classes_, self.n_features_in_ = np.arange(k), k

    def predict_proba(self, X):
        """The features themselves."""
        return np.asarray(X)


@pytest.mark.parametrize(("target", "n"), [(0.9, 50), (0.9, 200), (0.95, 200), (0.95, 1000)])
def test_an_abstaining_head_keeps_its_precision_in_nearly_all_draws(target, n):
    """The precision on new rows is below the target in at most 5% of draws, here in at most 9% of 100."""
    precision = abstention(target, n, 100)
    assert (precision < target).mean() <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.8, 0.9, 0.95, 0.99])
@pytest.mark.parametrize("n", [20, 50, 200, 1000])
@pytest.mark.parametrize("scale", [0.85, 1.3, 1.8])
def test_the_precision_holds_in_the_long_run(target, n, scale):
    """Of 1,000 draws at most 6.4% miss the target: 5% and two standard errors."""
    assert (abstention(target, n, 1000, scale) < target).mean() <= 0.064


@pytest.mark.parametrize("n", [60, 200])
def test_out_of_fold_abstention_keeps_its_precision(n):
    """A threshold that is chosen out of fold misses its target in at most 10% of 40 draws."""
    assert (abstention_out_of_fold(0.9, n, 40) < 0.9).mean() <= 0.1


def pairs_of_classes(seed, classes=200):
    """Two training rows of each class, and 600 test rows."""
    rng = np.random.default_rng(seed)
    y = np.concatenate([np.repeat(np.arange(classes), 2), rng.integers(0, classes, 600)])
    X = rng.normal(size=(classes, 32))[y] + rng.normal(size=(len(y), 32))
    return labeled(X, y, ["train"] * (2 * classes) + ["test"] * 600)


@pytest.mark.parametrize("seed", [0, 1])
def test_classes_of_two_rows_are_calibrated_at_the_strength_of_the_head(seed):
    """No fold can choose C there. At C = 1 in the folds the log-loss rose to twice itself; precision .8 was .74."""
    data = pairs_of_classes(seed)
    plain, calibrated, selective = (
        evaluate_head("logistic", data, EvaluationSettings(**IGNORE, **options))
        for options in ({}, {"calibrate": "temperature"}, {"abstain_precision": 0.8})
    )
    assert calibrated.report["log_loss"] < 1.1 * plain.report["log_loss"]
    assert selective.abstain.coverage == 0 or selective.abstain.precision >= 0.8


def test_an_abstaining_head_says_how_many_rows_it_needs():
    """With 50 rows nothing shows a precision of .95; about as many as it names are enough in most draws."""
    rng = np.random.default_rng(3)
    confidence, correct = rng.random(50), rng.random(50) < 0.99
    chosen = choose_threshold(confidence, correct, 0.95)
    assert math.isinf(chosen.threshold)
    assert 59 <= chosen.rows_needed <= 400
    enough = [
        choose_threshold(rng.random(chosen.rows_needed), rng.random(chosen.rows_needed) < 0.99, 0.95).threshold
        for _ in range(50)
    ]
    assert np.isfinite(enough).mean() > 0.5


def test_rows_of_one_group_are_one_draw_for_an_abstaining_head():
    """Twenty right answers in five copies each are twenty rows, which show no precision of .9."""
    proba = np.tile([0.9, 0.1], (100, 1))
    head = Precomputed(2)
    y, groups = np.zeros(100, int), np.repeat(np.arange(20), 5)
    assert math.isfinite(SelectiveClassifier(head, 0.9).fit(proba, y).threshold_)
    assert math.isinf(SelectiveClassifier(head, 0.9).fit(proba, y, groups).threshold_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("seed", range(5))
def test_a_report_and_the_kept_head_agree(dtype, seed):
    """Whatever the precision of the probabilities, the head answers the rows that its float32 report counts."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.ones(5) * 0.1, 400).astype(dtype)
    y = np.where(rng.random(400) < 0.98, proba.argmax(1), 0)
    head = SelectiveClassifier(Precomputed(), 0.9).fit(proba[:200], y[:200])
    predicted = head.predict(proba[200:])
    stored = head.answers(proba[200:].astype(np.float32))
    assert ((predicted != "none of these") == stored).all()
    sets = ConformalSets(Precomputed(), 0.1).fit(proba[:200], y[:200])
    assert (sets.predict_set(proba[200:]) == sets.members(proba[200:].astype(np.float32))).all()


def test_without_a_threshold_nothing_is_answered_in_the_report_and_by_the_head():
    """A nearest neighbor that is always wrong answers nothing, and its report says so."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % 3
    X = np.eye(3)[y] * 3 + rng.normal(size=(400, 3))
    y[200:300] = (y[200:300] + 1) % 3
    data = labeled(X, y, ["train"] * 200 + ["val"] * 100 + ["test"] * 100)
    e = evaluate_head("knn", data, EvaluationSettings(abstain_precision=0.99, **IGNORE), k=1)
    assert (e.abstain.threshold, e.abstain.coverage, e.abstain.precision) == (None, 0.0, None)
    assert (e.estimator.predict(X[300:]) == "none of these").all()


@pytest.mark.parametrize("n", [20, 40])
def test_conformal_sets_hold_their_coverage_out_of_fold_with_few_rows(n):
    """With C chosen inside each fold, sets of 0.9 hold 0.88 or more on average over draws."""
    assert coverage_out_of_fold(n, 25) >= 0.88


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 40, 100, 300])
def test_conformal_sets_hold_their_coverage_out_of_fold_in_the_long_run(n):
    """Over 300 draws, sets of 0.9 hold 0.89 or more on average."""
    assert coverage_out_of_fold(n, 300) >= 0.89


def test_conformal_sets_by_class_hold_in_a_rare_class():
    """A class of 5% is held in 0.9 of its rows by class; with one threshold for all it is not."""
    one, own = (coverage_by_class(2000, 1, by_class=by_class) for by_class in (False, True))
    assert np.average(one, weights=[0.35, 0.3, 0.2, 0.1, 0.05]) == pytest.approx(0.9, abs=0.02)
    assert one[4] < 0.6
    assert min(own) > 0.84


def test_coverage_is_reported_by_class():
    """Each class of the held-out rows has its number of rows and its coverage, and one threshold if asked for."""
    rng = np.random.default_rng(0)
    X, y = draw(rng, 600)
    data = labeled(X, y, ["train"] * 300 + ["test"] * 300)
    e = evaluate_head("logistic", data, EvaluationSettings(conformal_alpha=0.1, conformal_by_class=True, **IGNORE))
    by_class = e.conformal.coverage_by_class
    assert [c.rows for c in by_class] == np.bincount(y[300:]).tolist()
    assert sum(c.rows * c.coverage for c in by_class) / 300 == pytest.approx(e.conformal.coverage)
    assert set(e.conformal.threshold) == {"0", "1", "2", "3", "4"}
    with pytest.raises(BadHead, match="conformal_by_class needs conformal_alpha"):
        EvaluationSettings(conformal_by_class=True)


def grouped_rows(n_pictures, copies, seed=0):
    """Noisy labels of pictures with near copies in training, and a clean test: rows, labels, splits."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(4, 32)) * 0.35
    y = rng.integers(0, 4, n_pictures + 400)
    X = means[y] + rng.normal(size=(len(y), 32))
    y[:n_pictures] = np.where(rng.random(n_pictures) < 0.2, rng.integers(0, 4, n_pictures), y[:n_pictures])
    near = np.concatenate([X[:n_pictures] + 0.1 * rng.normal(size=(n_pictures, 32)) for _ in range(copies)])
    X, y = np.concatenate([near, X[n_pictures:]]), np.concatenate([np.tile(y[:n_pictures], copies), y[n_pictures:]])
    return X, y, ["train"] * (n_pictures * copies) + ["test"] * 400


def test_early_stopping_of_the_mlp_keeps_copies_together():
    """With five copies of each picture, training stops before the network has learned them by heart.

    The network is large enough for that: where copies of the training rows decide, it uses all epochs, and its log-loss
    on new pictures is far higher.
    """
    X, y, splits = grouped_rows(80, 5)
    options = {"hidden": 128, "batch_size": 64, "max_epochs": 150}
    joined = evaluate_head("mlp", labeled(X, y, splits), EvaluationSettings(), **options)
    apart = evaluate_head("mlp", labeled(X, y, splits), EvaluationSettings(**IGNORE), **options)
    assert joined.estimator.n_iter_ < apart.estimator.n_iter_ / 2
    assert joined.report["log_loss"] < 0.8 * apart.report["log_loss"]


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 12), min_size=6, max_size=60),
    share=st.floats(0.05, 0.5),
    seed=st.integers(0, 100),
)
def test_a_hold_out_cuts_no_group_and_has_every_class_on_both_sides(groups, share, seed):
    """Whatever the groups are, also of several classes, both sides hold every class and no group is on both."""
    codes = np.arange(len(groups)) % 2
    parts = stratified_group_holdout(codes, np.array(groups), max(2, int(share * len(groups))), seed=seed)
    if parts is None:
        return
    rest, held_out = parts
    assert sorted([*rest, *held_out]) == list(range(len(groups)))
    assert set(codes[rest]) == set(codes[held_out]) == {0, 1}
    if len(set(groups)) < len(groups):
        assert not {groups[i] for i in rest} & {groups[i] for i in held_out}


def test_few_shot_heads_tune_on_other_pictures():
    """The shots that tune are copies of none of the others: no group is on both sides."""
    X, y, _ = grouped_rows(40, 4)
    data = NearDuplicateOptions().join(labeled(X[:160], y[:160]))
    head = heads.TipAdapter(np.eye(4, 32, dtype=np.float32), ["0", "1", "2", "3"])
    codes = np.array([int(v) for v in data.y])
    rest, held_out = head._hold_out(codes, data.groups)
    assert not set(data.groups[rest]) & set(data.groups[held_out])
    assert set(codes[rest]) == set(codes[held_out]) == set(codes)
    fitted = head.fit(data.X, data.y, groups=data.groups)
    assert fitted.tuning_rows_ == "held-out shots"


@pytest.mark.parametrize("copies", [1, 8])
def test_the_interval_of_a_learning_curve_holds_the_accuracy_of_the_population(copies):
    """With 60 held-out rows, or eight copies of each as declared groups, at least 90% of 40 intervals hold it."""
    assert coverage_of_learning_curve(40, copies) >= 0.9


def test_the_interval_of_a_multilabel_curve_knows_the_held_out_rows():
    """A single fit on all labels has an interval, and fewer held-out rows make it wider."""
    rng = np.random.default_rng(0)
    X, y = draw(rng, 400)
    labels = np.empty(400, dtype=object)
    labels[:] = [(f"c{v}",) if rng.random() < 0.9 else (f"c{v}", "extra") for v in y]

    def width(n_test):
        data = labeled(X[: 200 + n_test], y[: 200 + n_test], ["train"] * 200 + ["test"] * n_test)
        data = replace(data, y=labels[: len(data)], multilabel=True)
        point = learning_curve("prototype", data, LearningCurveSettings((), near_duplicates=IGNORED)).points[-1]
        assert point.low < point.mean < point.high
        return point.high - point.low

    assert width(40) > width(200)


def test_the_table_of_the_page_has_every_statement():
    """Each statement, with its situation and its level, has a line in the page, in this order."""
    lines = table_of(PAGE.read_text(encoding="utf-8"))
    assert [line[: len(s.words)] for line, s in zip(lines, statements(), strict=True)] == [
        s.words for s in statements()
    ]


def test_a_statement_is_simulated():
    """A line of the table has the range over its situations, and the number of runs of each."""
    statement = next(statements())
    line = statement.line(40)
    low, high = (float(v) for v in line.removeprefix(statement.words).split("|")[0].split(" to "))
    assert 0.8 < low < high <= 1
    assert line.split("|")[-3].strip() == "40"
    assert date_of(line) == str(datetime.now(UTC).date())
    assert date_of("| a | b | 0.95 | 0.950 | 40 |  |") < "2026-11-27"  # of a version that wrote no date
