"""The accuracy to expect at twice the labels: its interval holds, and its advice is right where the answer is known."""

import json

import numpy as np
import pytest

import embedstore as es
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.fit import fit_head_to_few
from embedstore.classify.evaluation.label_forecast import forecast_labels
from tests.helpers.clusters import clusters, store_of

KINDS = {  # classes, numbers, distance of the classes, shares of the classes
    "two classes": (2, 16, 0.5, None),
    "five classes": (5, 32, 0.5, None),
    "classes that overlap": (3, 32, 0.15, None),
    "rare classes": (3, 16, 0.5, (0.9, 0.07, 0.03)),
}
TEST_ROWS = 2000


def draw(kind, n, seed):
    """Return unit rows and labels of one kind, each draw with other classes."""
    n_classes, dim, distance, shares = KINDS[kind]
    rng = np.random.default_rng([seed, n, len(kind)])
    means = rng.normal(size=(n_classes, dim)) * distance
    y = rng.choice(n_classes, n, p=shares)
    X = means[y] + rng.normal(size=(n, dim))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), y.astype(str).astype(object)


def features(X, y):
    """Return labeled rows, each a picture of its own."""
    n = len(X)
    return Features(X, y, np.arange(n), np.arange(n), np.full(n, None, object), 0, 0)


def coverage(n_seeds):
    """Return how often each of three intervals holds the truth, over all kinds and 40 and 120 labels."""
    held = []
    for kind in KINDS:
        for n in (40, 120):
            for seed in range(n_seeds):
                X, y = draw(kind, 2 * n + TEST_ROWS, seed)
                if len(set(y[:n])) < 2:
                    continue
                now, later = (accuracy(X, y, k, 2 * n) for k in (n, 2 * n))
                f = forecast_labels("logistic", features(X[:n], y[:n]), seed=seed)
                pairs = ((f.accuracy, now), (f.at_twice, later), (f.gain, later - now))
                held.append([a.low <= truth <= a.high for a, truth in pairs])
    return np.mean(held, axis=0), len(held)


def accuracy(X, y, n_train, n_before_test):
    """Return the accuracy of a head of the first rows on the last ones."""
    head = fit_head_to_few("logistic", features(X[:n_train], y[:n_train]))
    return float((np.asarray(head.predict(X[n_before_test:])).astype(str) == y[n_before_test:]).mean())


def test_the_intervals_hold_the_truth():
    """In a short simulation four in five intervals or more hold what 2,000 other items say."""
    share, count = coverage(2)
    assert count >= 14
    assert share.min() >= 0.8, share


@pytest.mark.slow
def test_the_intervals_have_their_level():
    """In 320 simulated sets at least 93% of the intervals hold the truth, at a level of 95%."""
    share, _ = coverage(40)
    assert share.min() >= 0.93, share


def test_labels_pay_while_the_curve_rises_and_not_after():
    """Forty labels of forty numbers leave much to gain; of two classes far apart every label is right already."""
    X, y = draw("five classes", 60, 1)
    rising = forecast_labels("logistic", features(X, y))
    assert rising.pays
    assert rising.gain.value > 0.01
    assert 0 < rising.labels_for_a_point < 60
    assert "more labels are expected to pay" in str(rising)
    far, side = np.eye(2, 16, dtype=np.float32), np.arange(80) % 2
    flat = forecast_labels("logistic", features(far[side], side.astype(str).astype(object)))
    assert (flat.accuracy.value, flat.at_twice.value, flat.gain.value) == (1, 1, 0)
    assert flat.labels_for_a_point is None
    assert not flat.pays
    assert "not expected to pay" in str(flat)
    assert 0.94 < flat.at_twice.low < 0.96, "Wilson: 80 of 80 is at least 0.954"


def test_the_store_forecasts_and_copies_count_once(tmp_path):
    """Every item four times is as many labels as once; the result is plain JSON, and the same every time."""
    X, y = draw("two classes", 40, 0)
    once = store_of(tmp_path / "once", X, label=list(y))
    often = store_of(tmp_path / "often", np.repeat(X, 4, axis=0), label=list(np.repeat(y, 4)))
    found = once.forecast_labels()
    assert found.labels == often.forecast_labels().labels == 40
    assert found == once.forecast_labels()
    assert json.loads(json.dumps(found.to_json()))["labels"] == 40
    assert [r["labels"] for r in found.records()] == [40, 80]


def test_what_cannot_be_forecast_is_refused(tmp_path):
    """Few labels, one class, several labels per item and numbers have a message that says what to do."""
    X, _ = clusters(60)
    names = [f"c{n % 2}" for n in range(60)]
    few = store_of(tmp_path / "few", X, label=[n if i < 19 else None for i, n in enumerate(names)])
    with pytest.raises(es.LabelError, match=r"at least 20 labeled pictures .* has 19 of 2.*suggest-labels"):
        few.forecast_labels()
    with pytest.raises(es.LabelError, match="has 60 of 1"):
        store_of(tmp_path / "one", X, label=["a"] * 60).forecast_labels()
    with pytest.raises(es.LabelError, match="one label per item"):
        store_of(tmp_path / "many", X, label=[f"{n},z" for n in names]).forecast_labels(separator=",")
    with pytest.raises(es.LabelError):
        store_of(tmp_path / "numbers", X, label=[float(n) for n in range(60)]).forecast_labels()
    with pytest.raises(es.NoLabels):
        store_of(tmp_path / "none", X, label=[None] * 60).forecast_labels()
