"""Calibration, abstaining and prediction sets on held-out rows."""

import math

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression, RidgeClassifier

from embedstore.classify import metrics
from embedstore.classify.heads import (
    CalibratedHead,
    ConformalSets,
    SelectiveClassifier,
    WeightedKNN,
    ZeroShotHead,
    probabilities,
)
from embedstore.classify.heads.calibration import choose_threshold
from embedstore.errors import LabelError


class Fixed:
    """A head whose probabilities are the features themselves."""

    def __init__(self, classes):
        self.classes_ = np.asarray(classes)

    def predict_proba(self, X):
        return np.asarray(X)


def drawn(rows, seed, classes=4):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    return (rng.standard_normal((rows, 10)) + np.eye(classes, 10)[y] * 1.5).astype(np.float32), y


@pytest.fixture(scope="module")
def too_sure():
    """A logistic regression with far too little penalty, fitted on few rows: sure of itself and often wrong."""
    return LogisticRegression(C=1e4, max_iter=5000).fit(*drawn(80, 0))


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_lowers_the_error_on_new_rows(too_sure, method):
    """ECE and log-loss on rows that neither fit has seen fall."""
    X, y = drawn(3000, 2)
    before = probabilities(too_sure, X)
    after = CalibratedHead(too_sure, method).fit(*drawn(1000, 1)).predict_proba(X)
    assert (
        metrics.compute_metric("expected_calibration_error", y, after)
        < metrics.compute_metric("expected_calibration_error", y, before) / 2
    )
    assert metrics.compute_metric("log_loss", y, after) < metrics.compute_metric("log_loss", y, before)
    assert after.sum(1) == pytest.approx(np.ones(3000))


def test_temperature_equals_scikit_learns(too_sure):
    """The probabilities are those of CalibratedClassifierCV(method="temperature") around the frozen head."""
    X, y = drawn(500, 1)
    theirs = CalibratedClassifierCV(FrozenEstimator(too_sure), method="temperature", cv=2, ensemble=False).fit(X, y)
    ours = CalibratedHead(too_sure).fit(X, y)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-3)
    assert ours.temperature_ > 1.5
    assert (ours.predict(X) == too_sure.predict(X)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_temperature_serves_every_kind_of_head(classes):
    """Margins alone (ridge), probabilities alone (neighbours), words (zero-shot): the log-loss never rises."""
    X, y = drawn(200, 0, classes)
    X_new, y_new = drawn(400, 1, classes)
    for head in (
        RidgeClassifier().fit(X, y),
        WeightedKNN(20).fit(X, y),
        ZeroShotHead(np.eye(classes, 10), np.arange(classes)),
    ):
        found = CalibratedHead(head).fit(X_new, y_new)
        before, after = (
            metrics.compute_metric("log_loss", y_new, p)
            for p in (probabilities(head, X_new), found.predict_proba(X_new))
        )
        assert after <= before + 1e-4
        assert (found.predict(X_new) == np.asarray(head.predict(X_new))).mean() > 0.995


def test_an_isotonic_curve_by_hand():
    """Scores .1 .4 .6 .9 with truth no, yes, no, yes pool the middle two: 0, 1/2, 1/2, 1 for the second class."""
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    found = CalibratedHead(Fixed(["no", "yes"]), "isotonic").fit(proba, ["no", "yes", "no", "yes"])
    assert found.predict_proba(proba)[:, 1] == pytest.approx([0, 0.5, 0.5, 1])


def test_a_threshold_keeps_the_target_precision_at_the_largest_coverage():
    """Right down to .7, wrong at .6, right at .5: 2/3 allows all five rows but the tie at .5, which is half wrong."""
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.5])
    right = np.array([True, True, True, False, True, False])
    exact = choose_threshold(confidence, right, 1.0)
    assert (exact.threshold, exact.precision, exact.coverage) == (0.7, 1.0, 0.5)
    loose = choose_threshold(confidence, right, 0.75)
    assert (loose.threshold, loose.precision, loose.coverage) == (0.6, 0.75, pytest.approx(4 / 6))
    assert choose_threshold(confidence, right, 0.6).coverage == 1.0


def test_a_target_out_of_reach_answers_nothing():
    """Every row wrong: coverage 0, precision unknown, and predict always says the other."""
    head = SelectiveClassifier(Fixed(["a", "b"]), target_precision=0.9).fit([[0.9, 0.1], [0.8, 0.2]], ["b", "b"])
    assert head.coverage_ == 0
    assert math.isnan(head.precision_)
    assert head.predict([[0.9, 0.1], [0.5, 0.5]]).tolist() == ["none of these"] * 2


def test_abstaining_meets_its_target_on_new_rows(too_sure):
    """A precision of .9 is chosen on 2,000 rows and holds within four points on 4,000 others; strangers count."""
    calibrated = CalibratedHead(too_sure).fit(*drawn(500, 1))
    head = SelectiveClassifier(calibrated, target_precision=0.9, abstain_label=-1).fit(*drawn(2000, 2))
    X, y = drawn(4000, 3)
    said = head.predict(X)
    answered = said != -1
    assert 0.05 < head.coverage_ < 1
    assert answered.mean() == pytest.approx(head.coverage_, abs=0.04)
    assert (said[answered] == y[answered]).mean() == pytest.approx(0.9, abs=0.04)
    strangers = SelectiveClassifier(calibrated, target_precision=0.9).fit(X, np.where(y == 0, 99, y))
    assert strangers.coverage_ < head.coverage_


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_sets_hold_the_true_class_as_often_as_promised(too_sure, alpha):
    """Over 4,000 new rows the share of sets with the true class is 1 - alpha within two points."""
    sets = ConformalSets(too_sure, alpha).fit(*drawn(2000, 1))
    X, y = drawn(4000, 2)
    held = sets.predict_set(X)[np.arange(4000), y].mean()
    assert held == pytest.approx(1 - alpha, abs=0.02)


def test_the_conformal_rank_by_hand():
    """Nine rows and alpha .2: the ceil(10 * .8) = 8th largest probability of the true class, .2, is the threshold."""
    true = np.arange(1, 10) / 10
    head = ConformalSets(Fixed(["a", "b"]), alpha=0.2).fit(np.stack([true, 1 - true], 1), ["a"] * 9)
    assert head.threshold_ == pytest.approx(0.2)
    assert head.predict_set([[0.85, 0.15], [0.5, 0.5]]).tolist() == [[True, False], [True, True]]
    few = ConformalSets(Fixed(["a", "b"]), alpha=0.05).fit([[0.9, 0.1]], ["a"])
    assert few.predict_set([[1.0, 0.0]]).all()


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_sets_equal_mapies(too_sure, alpha):
    """The same classes in every set as MAPIE's split conformal classifier with its score 1 - p ("lac")."""
    library = pytest.importorskip("mapie.classification")
    (X, y), new = drawn(500, 1), drawn(500, 2)[0]
    ours = ConformalSets(too_sure, alpha).fit(X, y).predict_set(new)
    theirs = library.SplitConformalClassifier(too_sure, confidence_level=1 - alpha, conformity_score="lac", prefit=True)
    assert np.array_equal(ours, theirs.conformalize(X, y).predict_set(new)[1][:, :, 0])


@pytest.mark.parametrize("wrapper", [CalibratedHead, SelectiveClassifier, ConformalSets])
def test_no_rows_are_refused(wrapper):
    """Nothing to calibrate on is said, not guessed."""
    with pytest.raises(LabelError, match="no held-out rows"):
        wrapper(Fixed(["a", "b"])).fit(np.zeros((0, 2)), [])


def test_targets_outside_their_range_are_refused():
    """A precision above 1 and an alpha of 1."""
    for wrapper in (
        SelectiveClassifier(Fixed(["a", "b"]), target_precision=1.5),
        ConformalSets(Fixed(["a", "b"]), alpha=1.0),
    ):
        with pytest.raises(ValueError, match="must be in"):
            wrapper.fit([[0.9, 0.1]], ["a"])
