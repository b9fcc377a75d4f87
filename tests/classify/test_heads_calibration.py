"""Calibration, selective classification and prediction sets on held-out rows."""

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
from embedstore.classify.heads.selective import choose_threshold
from embedstore.errors import LabelError


class Fixed:
    """A head whose probabilities are the features themselves."""

    def __init__(self, classes):
        self.classes_ = np.asarray(classes)

    def predict_proba(self, X):
        return np.asarray(X)


def sample(rows, seed, classes=4):
    """Return features of overlapping classes, and their labels."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    return (rng.standard_normal((rows, 10)) + np.eye(classes, 10)[y] * 1.5).astype(np.float32), y


@pytest.fixture(scope="module")
def overconfident():
    """A logistic regression with far too little penalty, fitted on few rows: confident and often wrong."""
    return LogisticRegression(C=1e4, max_iter=5000).fit(*sample(80, 0))


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_calibration_lowers_the_error_on_new_rows(overconfident, method):
    """Calibration error and log-loss fall on rows that neither fit has seen."""
    X, y = sample(3000, 2)
    before = probabilities(overconfident, X)
    after = CalibratedHead(overconfident, method).fit(*sample(1000, 1)).predict_proba(X)
    assert (
        metrics.compute_metric("expected_calibration_error", y, after)
        < metrics.compute_metric("expected_calibration_error", y, before) / 2
    )
    assert metrics.compute_metric("log_loss", y, after) < metrics.compute_metric("log_loss", y, before)
    assert after.sum(1) == pytest.approx(np.ones(3000))


def test_temperature_scaling_equals_scikit_learn(overconfident):
    """The probabilities are those of CalibratedClassifierCV(method="temperature") around the frozen head."""
    X, y = sample(500, 1)
    theirs = CalibratedClassifierCV(FrozenEstimator(overconfident), method="temperature", cv=2, ensemble=False).fit(
        X, y
    )
    ours = CalibratedHead(overconfident).fit(X, y)
    assert ours.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-3)
    assert ours.temperature_ > 1.5
    assert (ours.predict(X) == overconfident.predict(X)).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_temperature_scaling_works_with_every_kind_of_head(classes):
    """The log-loss never rises for margins (ridge), probabilities (neighbors) and zero-shot logits."""
    X, y = sample(200, 0, classes)
    X_new, y_new = sample(400, 1, classes)
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


def test_an_isotonic_curve_equals_one_computed_by_hand():
    """Scores .1 .4 .6 .9 with truth no, yes, no, yes pool the middle two: 0, 1/2, 1/2, 1 for the second class."""
    proba = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.1, 0.9]])
    found = CalibratedHead(Fixed(["no", "yes"]), "isotonic").fit(proba, ["no", "yes", "no", "yes"])
    assert found.predict_proba(proba)[:, 1] == pytest.approx([0, 0.5, 0.5, 1])


def test_a_threshold_is_the_last_that_every_test_passes():
    """At .5 five rows without an error are the first test (.5^5 = .031); an error in twelve rows passes (.003)."""
    confidence = np.array([0.9] + [0.8] * 4 + [0.7] * 7 + [0.6] * 8)
    correct = np.array([True] * 11 + [False] + [False] * 8)
    chosen = choose_threshold(confidence, correct, 0.5)
    assert (chosen.threshold, chosen.precision, chosen.coverage) == (0.7, pytest.approx(11 / 12), 0.6)
    assert math.isinf(choose_threshold(confidence[:4], correct[:4], 0.5).threshold), "four rows show nothing"


def test_an_unreachable_precision_abstains_on_every_row():
    """If every row is wrong the threshold is infinite, the precision NaN, and every prediction the abstain label."""
    head = SelectiveClassifier(Fixed(["a", "b"]), target_precision=0.9).fit([[0.9, 0.1], [0.8, 0.2]], ["b", "b"])
    assert (head.coverage_, head.threshold_, head.rows_needed_) == (0, math.inf, None)
    assert math.isnan(head.precision_)
    assert head.predict([[0.9, 0.1], [0.5, 0.5]]).tolist() == ["none of these"] * 2


def test_selective_predictions_reach_the_target_precision_on_new_rows(overconfident):
    """A precision of .75 chosen on 2,000 rows holds on 4,000 others; unknown classes count."""
    calibrated = CalibratedHead(overconfident).fit(*sample(500, 1))
    head = SelectiveClassifier(calibrated, target_precision=0.75, abstain_label=-1).fit(*sample(2000, 2))
    X, y = sample(4000, 3)
    predicted = head.predict(X)
    answered = predicted != -1
    assert 0.05 < head.coverage_ < 1
    assert answered.mean() == pytest.approx(head.coverage_, abs=0.04)
    assert (predicted[answered] == y[answered]).mean() == pytest.approx(0.78, abs=0.04)
    unknown = SelectiveClassifier(calibrated, target_precision=0.75).fit(X, np.where(y == 0, 99, y))
    assert unknown.coverage_ < head.coverage_


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_conformal_sets_contain_the_true_class_at_the_stated_rate(overconfident, alpha):
    """Over 4,000 new rows the share of sets with the true class is 1 - alpha within two points."""
    sets = ConformalSets(overconfident, alpha).fit(*sample(2000, 1))
    X, y = sample(4000, 2)
    covered = sets.predict_set(X)[np.arange(4000), y].mean()
    assert covered == pytest.approx(1 - alpha, abs=0.02)


def test_the_conformal_threshold_equals_one_computed_by_hand():
    """Nine rows and alpha .2: the ceil(10 * .8) = 8th largest probability of the true class, .2, is the threshold."""
    true = np.arange(1, 10) / 10
    head = ConformalSets(Fixed(["a", "b"]), alpha=0.2).fit(np.stack([true, 1 - true], 1), ["a"] * 9)
    assert head.threshold_ == pytest.approx(0.2)
    assert head.predict_set([[0.85, 0.15], [0.5, 0.5]]).tolist() == [[True, False], [True, True]]
    few = ConformalSets(Fixed(["a", "b"]), alpha=0.05).fit([[0.9, 0.1]], ["a"])
    assert few.predict_set([[1.0, 0.0]]).all()


@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.3])
def test_conformal_sets_equal_those_of_mapie(overconfident, alpha):
    """Every set has the classes of MAPIE's split conformal classifier with its score 1 - p ("lac")."""
    library = pytest.importorskip("mapie.classification")
    (X, y), new = sample(500, 1), sample(500, 2)[0]
    ours = ConformalSets(overconfident, alpha).fit(X, y).predict_set(new)
    theirs = library.SplitConformalClassifier(
        overconfident, confidence_level=1 - alpha, conformity_score="lac", prefit=True
    )
    assert np.array_equal(ours, theirs.conformalize(X, y).predict_set(new)[1][:, :, 0])


@pytest.mark.parametrize("wrapper", [CalibratedHead, SelectiveClassifier, ConformalSets])
def test_a_fit_without_held_out_rows_is_refused(wrapper):
    """The error says that there are no held-out rows."""
    with pytest.raises(LabelError, match="no held-out rows"):
        wrapper(Fixed(["a", "b"])).fit(np.zeros((0, 2)), [])


def test_targets_outside_their_range_are_refused():
    """A precision above 1 and an alpha of 1 are errors."""
    for wrapper in (
        SelectiveClassifier(Fixed(["a", "b"]), target_precision=1.5),
        ConformalSets(Fixed(["a", "b"]), alpha=1.0),
    ):
        with pytest.raises(ValueError, match="must be in"):
            wrapper.fit([[0.9, 0.1]], ["a"])
