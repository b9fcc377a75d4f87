"""The split ``val`` beside ``test``: unused items are reported, and they can select C and train."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from embedstore.classify import heads
from embedstore.errors import BadHead, LabelError
from embedstore.reports.evaluation_text import evaluation_notes
from tests.helpers.clusters import clusters, store_of

GRID = [0.001, 0.01, 0.1, 1.0]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """240 rows: half train, a quarter is val, a quarter is test."""
    X, y = clusters(240, noise=2.0)
    split = [("train", "train", "val", "test")[n % 4] for n in range(240)]
    return store_of(tmp_path_factory.mktemp("validation") / "s", X, label=y, split=split)


def rows_of(store, *splits):
    data = store.features("label")
    rows = np.isin(data.splits.astype(str), splits)
    return data.X[rows], data.y[rows].astype(str)


def test_unused_validation_items_are_reported(store):
    """The note counts them; calibration or refitting uses them, and then there is no note."""
    plain = store.probe("label")
    assert (plain.n_unused_validation, plain.n_train, plain.n_held_out) == (60, 120, 60)
    assert any("60 items of the split val were not used" in note for note in evaluation_notes(plain))
    for used in (store.probe("label", calibrate="temperature"), store.probe("label", refit=True)):
        assert used.n_unused_validation == 0
        assert not any("were not used" in note for note in evaluation_notes(used))


def test_c_is_selected_on_the_validation_items(store):
    """C is the one whose fit on the training items has the lowest log-loss on val, by scikit-learn."""
    e = store.probe("label", choose_on="val", head_options={"Cs": GRID, "patience": None})
    X, y = rows_of(store, "train")
    X_val, y_val = rows_of(store, "val")
    losses = [log_loss(y_val, LogisticRegression(C=C, max_iter=5000).fit(X, y).predict_proba(X_val)) for C in GRID]
    assert e.hyperparameters["C"] == GRID[int(np.argmin(losses))]
    assert [p[1] for p in e.c_path] == pytest.approx(losses, rel=1e-3)
    expected = LogisticRegression(C=e.hyperparameters["C"], max_iter=5000, tol=1e-8).fit(X, y)
    assert e.estimator.coef_ == pytest.approx(expected.coef_, abs=2e-3)
    assert e.n_train == 120


def test_refit_trains_on_both(store):
    """The coefficients are those of a fit on train and val with the selected C; n_train counts both."""
    e = store.probe("label", choose_on="val", refit=True, head_options={"Cs": GRID})
    X, y = rows_of(store, "train", "val")
    expected = LogisticRegression(C=e.hyperparameters["C"], max_iter=5000, tol=1e-8).fit(X, y)
    assert e.estimator.coef_ == pytest.approx(expected.coef_, abs=2e-3)
    assert (e.n_train, e.n_held_out) == (180, 60)


def test_refit_works_for_every_head(store):
    """Also for heads that select nothing."""
    e = store.knn("label", refit=True)
    assert e.n_train == len(e.estimator.vectors_) == 180


def test_a_comparison_can_select_on_val(store):
    """The other heads do not select C, and are compared all the same."""
    found = store.compare_heads("label", heads=["logistic", "knn"], choose_on="val", refit=True)
    assert {r.evaluation.n_train for r in found.results} == {180}


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"choose_on": "test"}, BadHead, "folds or val, not 'test'"),
        ({"choose_on": "val", "folds": 3}, LabelError, "leave out folds"),
        ({"refit": True, "calibrate": "temperature"}, BadHead, "leave out choose_on and refit, or calibrate"),
        ({"choose_on": "val", "head": "ridge"}, BadHead, "ridge selects nothing"),
        ({"choose_on": "val", "head_options": {"C": 1.0}}, BadHead, "selects nothing here"),
    ],
)
def test_what_cannot_be_done_with_validation_items_is_refused(store, options, error, words):
    """The message says what to leave out."""
    with pytest.raises(error, match=words):
        store.probe("label", **options)


def test_without_validation_items_the_error_says_what_is_missing(tmp_path):
    """No split, or a split whose val rows evaluate: there is nothing to select on."""
    X, y = clusters(60)
    store = store_of(tmp_path / "s", X, label=y)
    with pytest.raises(LabelError, match="no val items"):
        store.probe("label", choose_on="val")


def test_training_items_without_a_split_are_reported(tmp_path):
    """Rows without a split train beside those of train; the note counts them."""
    X, y = clusters(120)
    split = [("train", None, "test")[n % 3] for n in range(120)]
    e = store_of(tmp_path / "s", X, label=y, split=split).probe("label")
    assert (e.n_train, e.n_train_without_split) == (80, 40)
    assert "40 items without a split of their own train, too" in evaluation_notes(e)


@pytest.mark.parametrize("folds", [[([0, 1], [2])], [(list(range(45)), list(range(44, 90)))]])
def test_given_folds_must_divide_the_rows(folds):
    """Rows that are missing or on both sides are refused."""
    X, y = clusters(90)
    with pytest.raises(LabelError, match="must divide the 90 rows"):
        heads.LogisticProbe(cv=[tuple(map(np.array, f)) for f in folds]).fit(X, y)
