"""Comparisons: the same items and training rows for all, groups as one draw, and no figure that a score cannot have."""

import json

import numpy as np
import pytest

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation import EvaluationSettings, evaluate_head
from embedstore.classify.evaluation.compare_heads import SpaceCost, compare_heads
from embedstore.classify.heads import LogisticProbe
from embedstore.errors import BadHead
from embedstore.finetuning.advice import DomainDifference, advise
from embedstore.reports import comparison_text, evaluation_text
from tests.helpers.clusters import clusters

COST = SpaceCost(8, 32, None)


def features(X, y, *, groups=None, splits=None, ids=None, space="a"):
    """Return rows as the features of a space."""
    n, labels, own = len(X), np.empty(len(X), object), np.empty(len(X), object)
    labels[:] = [str(v) for v in y]
    own[:] = [None] * n if splits is None else splits
    ids = np.arange(n) if ids is None else ids
    return Features(
        X=np.asarray(X, np.float32),
        y=labels,
        ids=np.asarray(ids),
        groups=np.arange(n) if groups is None else np.asarray(groups, np.int64),
        splits=own,
        n_unlabeled=0,
        n_without_vector=0,
        label="l",
        space=space,
    )


@pytest.fixture(scope="module")
def rows():
    X, y = clusters(240, noise=2.0)
    return X, np.array(y)


def test_items_without_a_shared_vector_are_counted_once_each(rows):
    """10 items lack the second space and 20 lack the first: 30 are left out."""
    X, y = rows
    first, second = np.arange(10, 240), np.r_[0:10, 30:240]
    spaces = [features(X[i], y[i], ids=i, space=name) for i, name in ((first, "a"), (second, "b"))]
    found = compare_heads([(s, COST) for s in spaces], heads=("prototype",))
    assert found.n_without_shared_vector == 30


def test_spaces_that_know_different_groups_are_split_alike(rows):
    """A chain of contents that only one space knows joins the rows in both: the same items are held out and train."""
    X, y = rows
    chained = np.arange(240) // 4
    spaces = [features(X, y, space="a"), features(X + 0.1, y, groups=chained, space="b")]
    settings = EvaluationSettings(near_duplicates="ignore")
    found = compare_heads([(s, COST) for s in spaces], heads=("prototype",), settings=settings)
    held_out = [r.evaluation.held_out_predictions for r in found.results]
    assert set(held_out[0].ids.tolist()) == set(held_out[1].ids.tolist())
    assert len({r.evaluation.n_train for r in found.results}) == 1
    assert len(np.unique(held_out[0].groups)) == len(held_out[0].ids) / 4


@pytest.mark.parametrize("head", ["knn", "svm", "ridge"])
def test_scores_that_are_no_probabilities_have_no_log_loss(rows, head):
    """Nor a Brier score or calibration error; the note says so, and calibrated scores have them."""
    data = features(*rows)
    plain = evaluate_head(head, data)
    absent = {"log_loss", "brier_score", "calibration_error", "expected_calibration_error"}
    assert not absent & set(plain.scores)
    assert any("no probabilities" in note for note in evaluation_text.evaluation_notes(plain))
    calibrated = evaluate_head(head, data, EvaluationSettings(calibrate="temperature"))
    assert {"log_loss", "brier_score", "calibration_error"} <= set(calibrated.scores)
    json.dumps(plain.to_json(), allow_nan=False)


def test_an_evaluation_of_groups_has_wider_intervals(rows):
    """Each row five times as one group: the interval is that of the rows, not of five times as many."""
    X, y = rows
    split = np.array(["train", "test"] * 120)
    once = evaluate_head("prototype", features(X, y, splits=split))
    many = np.repeat(np.arange(240), 5)
    copies = features(X[many], y[many], splits=split[many], groups=many)
    five = evaluate_head("prototype", copies)
    width = [e.scores["accuracy"].high - e.scores["accuracy"].low for e in (once, five)]
    assert five.accuracy == pytest.approx(once.accuracy)
    assert width[1] >= width[0]
    assert any("are 120 groups" in note for note in evaluation_text.evaluation_notes(five))


def test_a_comparison_says_what_its_items_can_show(rows):
    """The notes name the detectable difference, the items for one point, and that the best is a maximum."""
    found = compare_heads([(features(*rows), COST)], heads=("logistic", "prototype", "knn"))
    text = "\n".join(comparison_text.comparison_notes(found))
    assert "in four of five cases" in text
    assert "the highest of 3" in text
    assert found.power.detectable_difference > 0.03
    assert found.power.items_for_one_point > found.n_held_out
    assert found.to_json()["power"]["items_for_one_point"] == found.power.items_for_one_point
    assert found.results[0].items_needed is None


def test_a_single_head_has_no_comparison_to_explain(rows):
    """One contestant: no gap, no power, no note."""
    found = compare_heads([(features(*rows), COST)], heads=("prototype",))
    assert (found.power, comparison_text.comparison_notes(found)) == (None, [])


def test_a_head_that_cannot_read_so_many_rows_refuses_first(monkeypatch):
    """Minutes of other heads would be lost; every head with a limit is known, whatever the order of the names."""
    fitted = []
    monkeypatch.setattr(LogisticProbe, "fit", lambda self, *_, **__: fitted.append(self))
    y = np.repeat(["a", "b"], 2500)
    X = np.random.default_rng(0).normal(size=(5000, 4)) + (y == "a")[:, None]
    with pytest.raises(BadHead, match="at most 3,000"):
        compare_heads([(features(X, y), COST)], heads=("logistic", "kernel"))
    assert fitted == []


@pytest.mark.parametrize("seed", [0, 3])
def test_advice_is_measured_on_one_split(rows, seed):
    """The accuracy is that of a probe with the same seed, on whose split the last doubling is measured, too."""
    data = features(*rows)
    found = advise(data, "l", DomainDifference("unknown", None, 0), seed=seed)
    assert found.accuracy[0] == evaluate_head("logistic", data, EvaluationSettings(seed=seed)).accuracy
