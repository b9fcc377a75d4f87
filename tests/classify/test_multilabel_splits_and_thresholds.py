"""Several labels per item: splits and folds with equal shares, chosen thresholds, average precision as VOC counts."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.iterative_stratification import iterative_parts
from embedstore.classify.data.splits import evaluation_splits
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.heads.label_thresholds import best_threshold
from embedstore.classify.metrics.voc import voc_average_precision, voc_estimates
from embedstore.errors import BadHead
from tests.classify.test_near_duplicates import features
from tests.helpers.clusters import clusters, store_of


def labeled(indicators, X=None, splits=None, groups=None) -> Features:
    """Rows with several labels ``l0``, ``l1`` and so on."""
    X = np.random.default_rng(0).normal(size=(len(indicators), 4)) if X is None else X
    y = np.empty(len(indicators), object)
    y[:] = [tuple(f"l{k}" for k in np.flatnonzero(row)) for row in indicators]
    return replace(features(X, range(len(y)), splits, groups), y=y, multilabel=True)


def skewed(n, seed=0, k=6):
    """Labels of which each is rarer than the one before; the last two only occur together."""
    rng = np.random.default_rng(seed)
    out = rng.random((n, k)) < 0.5 / 1.7 ** np.arange(k)
    out[:, k - 1] = out[:, k - 2]
    return out


@settings(max_examples=40, deadline=None)
@given(
    groups=st.lists(st.integers(0, 25), min_size=30, max_size=120),
    n_parts=st.integers(2, 5),
    seed=st.integers(0, 99),
)
def test_no_group_is_cut_and_every_row_has_a_part(groups, n_parts, seed):
    """Whatever the groups and labels; rows without a label, too."""
    rng = np.random.default_rng(seed)
    labels = rng.random((len(groups), 4)) < 0.3
    shares = np.full(n_parts, 1 / n_parts)
    part = iterative_parts(labels, np.array(groups), shares, order=rng.permutation(len(groups)))
    assert ((part >= 0) & (part < n_parts)).all()
    for group in set(groups):
        assert len(set(part[np.array(groups) == group])) == 1


@pytest.mark.parametrize("seed", range(5))
def test_folds_have_equal_shares_of_every_label_and_pair(seed):
    """Each fold has its fifth of every label within two rows; random folds miss it by far more."""
    labels = skewed(300, seed)
    folds = evaluation_splits(labeled(labels), n_folds=5, seed=seed)
    assert np.array_equal(np.sort(np.concatenate([f.held_out for f in folds])), np.arange(300))
    counts = np.stack([labels[f.held_out].sum(0) for f in folds])
    assert np.abs(counts - labels.sum(0) / 5).max() <= 2
    random = np.random.default_rng(seed).permutation(300) % 5
    at_random = np.stack([labels[random == k].sum(0) for k in range(5)])
    assert np.abs(counts - labels.sum(0) / 5).sum() < np.abs(at_random - labels.sum(0) / 5).sum() / 3


def test_a_rare_label_is_on_both_sides_of_the_split():
    """One or two of five rows with the rarest label are held out; the same seed gives the same rows."""
    labels = np.zeros((200, 3), bool)
    labels[:100, 0] = labels[50:150, 1] = labels[:5, 2] = True
    (split,) = evaluation_splits(labeled(labels))
    assert labels[split.held_out].sum(0)[2] in (1, 2)
    assert labels[split.train].sum(0)[2] >= 3
    assert 24 <= len(split.held_out) <= 56, "a fifth, within three standard deviations"
    (again,) = evaluation_splits(labeled(labels))
    (other,) = evaluation_splits(labeled(labels), seed=1)
    assert np.array_equal(split.held_out, again.held_out)
    assert not np.array_equal(split.held_out, other.held_out)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=2, max_size=30))
def test_the_threshold_has_the_highest_f1_of_all(rows):
    """No other threshold has a higher F1, also with ties."""
    scores, labels = np.array([s / 10 + 0.05 for s, _ in rows]), np.array([y for _, y in rows])
    chosen = best_threshold(scores, labels)
    if not labels.any() or labels.all():
        assert chosen == 0.5
        return
    best = max(f1_score(labels, scores >= t, zero_division=0) for t in np.arange(0, 1.1, 0.1))
    assert f1_score(labels, scores >= chosen) == pytest.approx(best)


def noisy_tags(n, seed=0):
    """Rows with a common and a rare label that they tell badly: at one half the rare one is never predicted."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.random(n) < 0.5, rng.random(n) < 0.12], axis=1)
    return 1.2 * labels @ np.eye(2, 6) + rng.normal(size=(n, 6)), labels


@pytest.mark.parametrize("with_val", [True, False])
def test_chosen_thresholds_raise_f1_and_never_see_the_test_rows(with_val):
    """On val rows or out of fold; permuting the labels of the test rows changes no threshold."""
    X, labels = noisy_tags(900)
    middle = ["val"] * 300 if with_val else ["train"] * 300
    splits = ["train"] * 300 + middle + ["test"] * 300
    data = labeled(labels, X, splits)
    half = evaluate_head("logistic", data, EvaluationSettings())
    chosen = evaluate_head("logistic", data, EvaluationSettings(label_thresholds="chosen"))
    assert chosen.scores["macro_f1"].value > half.scores["macro_f1"].value + 0.05
    assert chosen.scores["average_precision_macro"].value == pytest.approx(
        half.scores["average_precision_macro"].value, abs=1e-6
    )
    assert chosen.label_thresholds["l1"] < 0.4
    assert "log_loss" not in chosen.scores
    assert chosen.n_unused_validation == 0
    mixed = labels.copy()
    mixed[600:] = labels[600:][::-1]
    again = evaluate_head("logistic", labeled(mixed, X, splits), EvaluationSettings(label_thresholds="chosen"))
    assert again.label_thresholds == chosen.label_thresholds


def test_the_thresholds_are_kept_and_used_for_predictions(tmp_path):
    """The saved head predicts the labels that the report counts; pred.NAME lists them."""
    X, labels = noisy_tags(300)
    tags = [",".join(f"l{k}" for k in np.flatnonzero(row)) or None for row in labels]
    store = store_of(tmp_path / "s", X.astype(np.float32), tags=tags)
    e = store.probe("tags", separator=",", label_thresholds="chosen", save_as="tags")
    assert e.to_json()["label_thresholds"] == e.label_thresholds
    store.predict("tags")
    listed = store.sql("select pred.tags as p from items order by item").df().p
    head = store.head("tags")
    data = store.features("tags", separator=",")
    predicted = head.predict(data.X)
    by_item = dict(zip(store.sql("select item from items order by item").df().item, listed, strict=True))
    for item, row in zip(data.ids.tolist(), predicted, strict=True):
        assert sorted(by_item[item]) == [f"l{k}" for k in np.flatnonzero(row)]


def test_thresholds_need_several_labels(tmp_path):
    """One label per item is refused, and so is another word."""
    X, y = clusters(60)
    store = store_of(tmp_path / "s", X, kind=[f"c{v}" for v in y])
    with pytest.raises(BadHead, match="label_thresholds are for several labels per item"):
        store.probe("kind", label_thresholds="chosen")
    with pytest.raises(BadHead, match="label_thresholds must be half or chosen, not 'best'"):
        store.probe("kind", label_thresholds="best")
    with pytest.raises(BadHead, match="val items calibrate"):
        EvaluationSettings(label_thresholds="chosen", refit=True)


def brute_force(labels, scores):
    """VOC's average precision from its definition: (eleven recalls, all recalls)."""
    points = []
    for t in sorted(set(scores), reverse=True):
        taken = scores >= t
        points.append((labels[taken].sum() / labels.sum(), labels[taken].mean()))

    def precision(recall):
        return max((p for r, p in points if r >= recall - 1e-9), default=0.0)

    eleven = np.mean([precision(r / 10) for r in range(11)])
    total, before = 0.0, 0.0
    for r, _ in points:
        total += (r - before) * precision(r)
        before = r
    return eleven, total


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=40))
def test_voc_average_precision_is_that_of_its_definition(rows):
    """With ties; never below the step sum of scikit-learn; NaN without positives."""
    scores, labels = np.array([s / 12 for s, _ in rows]), np.array([y for _, y in rows])
    found = voc_average_precision(labels, scores, np.ones((1, len(rows))))[0]
    if not labels.any():
        assert np.isnan(found).all()
        return
    assert found == pytest.approx(brute_force(labels, scores), abs=1e-9)
    assert found[1] >= average_precision_score(labels, scores) - 1e-9


def test_a_count_repeats_a_row_of_voc():
    """A replicate of the bootstrap is the metric of the drawn rows; the interval holds the value."""
    rng = np.random.default_rng(0)
    labels, scores, counts = rng.random(50) < 0.4, rng.integers(0, 20, 50) / 20, rng.integers(0, 3, 50)
    drawn = np.repeat(np.arange(50), counts)
    weighted = voc_average_precision(labels, scores, counts[None].astype(float))
    assert weighted == pytest.approx(voc_average_precision(labels[drawn], scores[drawn], np.ones((1, len(drawn)))))
    estimates = voc_estimates(labels[:, None], scores[:, None], np.arange(50), has_interval=True)
    assert all(e.low < e.value < e.high for e in estimates.values())


def test_a_head_with_thresholds_answers_from_one_half():
    """The scaled score is one half at the threshold, 0 at 0, 1 at 1, and keeps the order."""

    class Scores:
        classes_, n_features_in_, multilabel_ = np.array(["a", "b"]), 2, True

        def predict_proba(self, X):
            return X

    head = heads.LabelThresholds(Scores())
    head.thresholds_ = np.array([0.2, 0.9])
    assert head.predict_proba(np.array([[0.2, 0.9], [0, 0], [1, 1]])).tolist() == [[0.5, 0.5], [0, 0], [1, 1]]
    assert head.predict(np.array([[0.19, 0.9], [0.3, 0.89]])).tolist() == [[0, 1], [1, 0]]
