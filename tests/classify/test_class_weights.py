"""Weights of classes: the optimum of scikit-learn, equal recalls for rare classes, and refusals."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from embedstore.classify import heads
from embedstore.classify.heads.serialization import decode_head, encode_head
from embedstore.cli import main
from embedstore.errors import BadHead
from tests.helpers.clusters import clusters, store_of


def rare(n, classes, seed=0):
    """Overlapping classes of which the last is rare."""
    rng = np.random.default_rng(seed)
    y = np.where(rng.random(n) < 0.08, classes - 1, rng.integers(0, classes - 1, n))
    y[:classes] = np.arange(classes)
    centers = np.random.default_rng(7).normal(size=(classes, 6))  # the same for every seed
    X = centers[y] + 1.5 * rng.normal(size=(n, 6))
    return X, np.array([f"c{k}" for k in y])


def objective(head, X, y, weights, C):
    """Scikit-learn's objective: C times the weighted loss plus half the squared weights."""
    proba = head.predict_proba(X)[np.arange(len(y)), np.searchsorted(head.classes_, y)]
    return -C * (weights * np.log(proba)).sum() + (head.coef_**2).sum() / 2


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.floats(0.01, 10), st.one_of(st.just("balanced"), st.floats(0.1, 20)), st.integers(0, 50))
def test_the_optimum_is_that_of_scikit_learn(classes, C, weight, seed):
    """For any number of classes, C and weights, the objective is within 1e-6 of scikit-learn's."""
    X, y = rare(200, classes, seed)
    class_weight = weight if weight == "balanced" else {"c0": weight}
    ours = heads.LogisticProbe(C=C, class_weight=class_weight, tol=1e-8).fit(X, y)
    theirs = LogisticRegression(C=C, class_weight=class_weight, tol=1e-10, max_iter=10_000).fit(X, y)
    counts = dict(zip(*np.unique(y, return_counts=True), strict=True))
    by_class = {c: len(y) / (classes * n) if weight == "balanced" else 1 for c, n in counts.items()}
    if weight != "balanced":
        by_class["c0"] = weight
    weights = np.array([by_class[c] for c in y])
    assert objective(ours, X, y, weights, C) == pytest.approx(objective(theirs, X, y, weights, C), rel=1e-6)


@pytest.mark.parametrize("name", ["logistic", "mlp"])
def test_balanced_weights_find_a_rare_class(name):
    """On new rows the recall of a class of 8% rises by a tenth or more."""
    train, new = rare(1000, 2), rare(4000, 2, seed=1)
    recall = [
        (heads.make_head(name, class_weight=w).fit(*train).predict(new[0])[new[1] == "c1"] == "c1").mean()
        for w in (None, "balanced")
    ]
    assert recall[1] > recall[0] + 0.1


@pytest.mark.parametrize("name", ["logistic", "mlp"])
@pytest.mark.parametrize("wrong", ["much", 2, {"cat": 2}, {"c0": 0}, {"c0": -1}, {"c0": float("nan")}, {"c0": "2"}])
def test_weights_without_a_meaning_are_refused(name, wrong):
    """Other words, other classes, and what is no positive number."""
    with pytest.raises(BadHead, match="class_weight"):
        heads.make_head(name, class_weight=wrong).fit(*rare(60, 2))


def test_a_head_with_weights_is_stored():
    """It is read back with its weights; without weights the stored form does not name them."""
    X, y = rare(100, 2)
    for weights in ("balanced", {"c0": 2.0}, None):
        head = heads.LogisticProbe(C=1, class_weight=weights).fit(X, y)
        tree, arrays = encode_head(head)
        again = decode_head(json.loads(json.dumps(tree)), arrays)
        assert again.class_weight == weights
        assert (again.predict(X) == head.predict(X)).all()
        assert ("class_weight" in tree["params"]) == (weights is not None)


def test_weights_are_an_option_of_the_command(tmp_path, capsys):
    """Balanced weights and a mapping are options of the head; a class that weighs more is found more often."""
    X, y = clusters(120, noise=2.0)
    store = store_of(tmp_path / "s", X, label=y)
    recall = []
    for value in ("balanced", '{"c0": 50}'):
        with pytest.raises(SystemExit) as e:
            main(["probe", str(store.path), "--head-arg", f"class_weight={value}", "--head-arg", "C=0.001", "--json"])
        assert not e.value.code
        found = json.loads(capsys.readouterr().out)
        recall.append(next(c for c in found["per_class"] if c["name"] == "c0")["recall"])
    assert recall[1] > recall[0]
