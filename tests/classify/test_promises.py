"""What a head promises for new rows holds in simulations of many draws."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.classify import heads
from embedstore.classify.data.folds import stratified_group_holdout
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.calibrated_fit import fit_calibrated_head
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.heads.conformal import ConformalSets
from embedstore.classify.heads.selective import SelectiveClassifier, choose_threshold
from embedstore.errors import BadHead
from tests.classify.test_near_duplicates import features

MEANS = np.random.default_rng(42).normal(size=(5, 8))
IGNORE = {"near_duplicates": "ignore"}
IGNORED = NearDuplicateOptions("ignore")


def draw(rng, n, scale=0.85, weights=None):
    """Rows of five classes and their labels."""
    y = rng.choice(5, n, p=weights)
    return (MEANS[y] * scale + rng.normal(size=(n, 8))).astype(np.float32), y


class Precomputed:
    """A head whose features are its probabilities."""

    def __init__(self, k=5):
        self.classes_, self.n_features_in_ = np.arange(k), k

    def predict_proba(self, X):
        """The features themselves."""
        return np.asarray(X)


def precision_of(threshold, proba, y):
    """The precision on new rows, NaN where nothing is answered."""
    answered = proba.max(1) >= threshold
    return (proba.argmax(1) == y)[answered].mean() if answered.any() else math.nan


def abstention(target, n, draws, scale=1.3):
    """The precision on 50,000 new rows of a threshold chosen on ``n`` rows, for each draw."""
    rng = np.random.default_rng(0)
    head = heads.make_head("logistic", Cs=[1.0]).fit(*draw(rng, 400, scale))
    X, y = draw(rng, 50_000, scale)
    proba, out = head.predict_proba(X), []
    for _ in range(draws):
        X_tune, y_tune = draw(rng, n, scale)
        out.append(precision_of(SelectiveClassifier(head, target).fit(X_tune, y_tune).threshold_, proba, y))
    return np.array(out)


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
    rng = np.random.default_rng(1)
    X_new, y_new = draw(rng, 20_000, 1.8)
    options, missed = EvaluationSettings(abstain_precision=0.9, **IGNORE), []
    for _ in range(40):
        train = features(*draw(rng, n, 1.8))
        estimator, _ = fit_calibrated_head("prototype", train, train.take(np.zeros(0, np.int64)), options)
        precision = precision_of(estimator.threshold_, estimator.predict_proba(X_new), y_new)
        missed.append(precision < 0.9)
    assert np.mean(missed) <= 0.1


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
    data = features(X, y, ["train"] * 200 + ["val"] * 100 + ["test"] * 100)
    e = evaluate_head("knn", data, EvaluationSettings(abstain_precision=0.99, **IGNORE), k=1)
    assert (e.abstain["threshold"], e.abstain["coverage"], e.abstain["precision"]) == (None, 0.0, None)
    assert (e.estimator.predict(X[300:]) == "none of these").all()


def coverage_out_of_fold(n, draws, head="logistic", alpha=0.1):
    """The share of 20,000 new rows that conformal sets hold, chosen out of fold on ``n`` rows, over draws."""
    rng = np.random.default_rng(0)
    X, y = draw(rng, 20_000)
    options, out = EvaluationSettings(conformal_alpha=alpha, **IGNORE), []
    while len(out) < draws:
        X_train, y_train = draw(rng, n)
        if np.bincount(y_train, minlength=5).min() < 2:
            continue
        train = features(X_train, y_train)
        estimator, _ = fit_calibrated_head(head, train, train.take(np.zeros(0, np.int64)), options)
        out.append(estimator.predict_set(X)[np.arange(len(y)), y].mean())
    return float(np.mean(out))


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
    rng, weights = np.random.default_rng(0), [0.35, 0.3, 0.2, 0.1, 0.05]
    head = heads.make_head("logistic", Cs=[0.01]).fit(*draw(rng, 600, weights=weights))
    X, y = draw(rng, 40_000, weights=weights)
    tune = draw(rng, 2000, weights=weights)

    def coverage(by_class):
        sets = ConformalSets(head, 0.1, by_class=by_class).fit(*tune).predict_set(X)
        held = sets[np.arange(len(y)), y]
        return [held[y == c].mean() for c in range(5)], held.mean()

    one, mean = coverage(False)
    own, _ = coverage(True)
    assert mean == pytest.approx(0.9, abs=0.02)
    assert one[4] < 0.6
    assert min(own) > 0.84


def test_coverage_is_reported_by_class():
    """Each class of the held-out rows has its number of rows and its coverage, and one threshold if asked for."""
    rng = np.random.default_rng(0)
    X, y = draw(rng, 600)
    data = features(X, y, ["train"] * 300 + ["test"] * 300)
    e = evaluate_head("logistic", data, EvaluationSettings(conformal_alpha=0.1, conformal_by_class=True, **IGNORE))
    by_class = e.conformal["coverage_by_class"]
    assert [c["rows"] for c in by_class] == np.bincount(y[300:]).tolist()
    assert sum(c["rows"] * c["coverage"] for c in by_class) / 300 == pytest.approx(e.conformal["coverage"])
    assert set(e.conformal["threshold"]) == {"0", "1", "2", "3", "4"}
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
    joined = evaluate_head("mlp", features(X, y, splits), EvaluationSettings(), **options)
    apart = evaluate_head("mlp", features(X, y, splits), EvaluationSettings(**IGNORE), **options)
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
    data = NearDuplicateOptions().join(features(X[:160], y[:160]))
    head = heads.TipAdapter(np.eye(4, 32, dtype=np.float32), ["0", "1", "2", "3"])
    codes = np.array([int(v) for v in data.y])
    rest, held_out = head._hold_out(codes, data.groups)
    assert not set(data.groups[rest]) & set(data.groups[held_out])
    assert set(codes[rest]) == set(codes[held_out]) == set(codes)
    fitted = head.fit(data.X, data.y, groups=data.groups)
    assert fitted.tuning_rows_ == "held-out shots"


def curve_coverage(runs, copies=1):
    """The share of learning curves whose interval at 4 labels per class holds the accuracy of the population."""
    rng = np.random.default_rng(0)
    X_all, y_all = draw(rng, 20_000)
    truth = []
    for _ in range(150):
        rows = np.concatenate([rng.choice(np.flatnonzero(y_all == c), 4, replace=False) for c in range(5)])
        truth.append((heads.make_head("prototype").fit(X_all[rows], y_all[rows]).predict(X_all) == y_all).mean())
    held = 0
    for seed in range(runs):
        X, y = draw(np.random.default_rng(seed + 1), 260)
        test = np.repeat(np.arange(200, 260), copies)
        rows = np.concatenate([np.arange(200), test])
        data = features(X[rows], y[rows], ["train"] * 200 + ["test"] * len(test), groups=rows)
        settings_ = LearningCurveSettings((4,), near_duplicates=IGNORED)
        point = learning_curve("prototype", data, settings_).points[0]
        held += point.low <= np.mean(truth) <= point.high
    return held / runs


@pytest.mark.parametrize("copies", [1, 8])
def test_the_interval_of_a_learning_curve_holds_the_accuracy_of_the_population(copies):
    """With 60 held-out rows, or eight copies of each as declared groups, at least 90% of 40 intervals hold it."""
    assert curve_coverage(40, copies) >= 0.9


def test_the_interval_of_a_multilabel_curve_knows_the_held_out_rows():
    """A single fit on all labels has an interval, and fewer held-out rows make it wider."""
    rng = np.random.default_rng(0)
    X, y = draw(rng, 400)
    labels = np.empty(400, dtype=object)
    labels[:] = [(f"c{v}",) if rng.random() < 0.9 else (f"c{v}", "extra") for v in y]

    def width(n_test):
        data = features(X[: 200 + n_test], y[: 200 + n_test], ["train"] * 200 + ["test"] * n_test)
        data = replace(data, y=labels[: len(data)], multilabel=True)
        point = learning_curve("prototype", data, LearningCurveSettings((), near_duplicates=IGNORED)).points[-1]
        assert point.low < point.mean < point.high
        return point.high - point.low

    assert width(40) > width(200)
