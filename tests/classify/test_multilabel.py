"""Items that have any number of labels."""

import json

import numpy as np
import pytest

from embedstore.classify.data.sampling import sample_per_class
from embedstore.classify.evaluation import multilabel
from embedstore.errors import BadHead
from tests.helpers.clusters import clusters, store_of


def test_every_label_of_a_multilabel_item_is_learned(tmp_path):
    """Color and shape split at a comma are learned; an item counts as correct if all its labels are."""
    X, _ = clusters(300, classes=2, noise=0.3)
    X = np.hstack([X, clusters(300, classes=3, noise=0.3, seed=5)[0]])
    labels = [f"{'red' if n % 2 else 'blue'}, {'abc'[n % 3]}" for n in range(300)]
    store = store_of(tmp_path / "s", X, tags=labels)
    e = store.probe("tags", separator=",", folds=3)
    assert e.classes == ("a", "b", "blue", "c", "red")
    assert e.accuracy >= 0.95
    assert e.scores["micro_f1"].value >= 0.97
    assert e.scores["average_precision_macro"].value >= 0.97
    assert {c.name: c.support for c in e.report.per_class} == {"a": 100, "b": 100, "blue": 150, "c": 100, "red": 150}
    assert e.confusion == ()
    json.dumps(e.to_json(), allow_nan=False)


@pytest.fixture
def tagged(tmp_path):
    """300 noisy rows: a colour of two and a letter of three each, and a rare label on every tenth."""
    X, _ = clusters(300, classes=2, noise=1.6)
    X = np.hstack([X, clusters(300, classes=3, noise=1.6, seed=5)[0], np.eye(10)[np.arange(300) % 10]])
    names = [[("blue", "red")[n % 2], "abc"[n % 3], *(["rare"] if n % 10 == 0 else [])] for n in range(300)]
    return store_of(tmp_path / "tagged", X, tags=[",".join(n) for n in names])


def test_a_probability_of_one_half_predicts_the_label_in_every_metric():
    """Isotonic curves give exactly one half: the report's accuracy at this confidence is that of the decisions."""
    y = np.empty(3, object)
    y[:] = [("a",), ("a", "b"), ("a", "b")]
    proba = np.full((3, 2), 0.5, np.float32)
    y_true, scores = multilabel.binary_decisions(y, proba, ["a", "b"])
    (bin_of_all,) = multilabel.multilabel_report(y, proba, ["a", "b"]).reliability
    assert bin_of_all.accuracy == pytest.approx((scores.argmax(1) == y_true).mean()) == pytest.approx(5 / 6)
    assert (bin_of_all.rows, bin_of_all.confidence) == (6, 0.5)


@pytest.mark.parametrize("method", ["temperature", "isotonic"])
def test_multilabel_probabilities_are_calibrated(tagged, method):
    """The calibration error and log-loss of ridge regression on held-out items are lower after calibration."""
    e = tagged.probe("tags", separator=",", head="ridge", calibrate=method)
    c = e.calibration
    assert c.calibration_error_after < c.calibration_error_before / 1.5
    assert c.log_loss_after < c.log_loss_before
    score = e.scores["calibration_error"]
    assert score.value == pytest.approx(c.calibration_error_after, abs=1e-6)
    assert score.low <= score.value <= score.high + 1e-9


def test_the_multilabel_learning_curve_rises_with_the_labels(tagged):
    """Mean average precision rises with the labels; with one seed a larger sample contains the smaller one."""
    found = tagged.learning_curve("tags", separator=",", head="prototype", labels_per_class=(2, 16), repeats=3)
    assert found.metric == "average_precision_macro"
    two, sixteen, every = (p.mean for p in found.points)
    assert two < sixteen < every
    assert [p["shots"] for p in found.to_json()["points"]] == [2, 16, None]
    assert set(found.to_json()["points"][0]) >= {"average_precision_macro", "spread", "values"}
    data = tagged.features("tags", separator=",")
    few, more = (sample_per_class(data, np.arange(300), shots, 0).tolist() for shots in (2, 16))
    assert set(few) < set(more)
    given = [label for row in data.y[few].tolist() for label in row]
    assert min(given.count(name) for name in ("blue", "red", "a", "b", "c", "rare")) == 2


def test_multilabel_heads_are_compared_and_their_mistakes_listed(tagged):
    """The gap to the best has an interval and a p-value over exact matches; mistakes name both sides."""
    found = tagged.compare_heads("tags", separator=",", heads=["ridge", "prototype"])
    second = found.results[1]
    assert second.accuracy_gap.low <= second.accuracy_gap.value <= second.accuracy_gap.high
    assert 0 <= second.p_value <= 1
    e = found.results[0].evaluation
    assert len(e.mistakes) == min(60, round((1 - e.accuracy) * e.n_held_out))
    worst = e.mistakes[0]
    assert worst.true_label != worst.predicted_label
    assert 0.5 <= worst.score <= 1
    assert [m.score for m in e.mistakes] == sorted((m.score for m in e.mistakes), reverse=True)


def test_options_for_one_label_per_item_are_refused_for_several(tagged):
    """Abstention and conformal sets need one label per item; the error says so."""
    for how in ({"abstain_precision": 0.9}, {"conformal_alpha": 0.1}):
        with pytest.raises(BadHead, match="one label per item"):
            tagged.probe("tags", separator=",", head="ridge", **how)


def test_a_list_column_has_several_labels(tmp_path):
    """Lists of text are labels; an empty list means that no label applies, NULL that the item is unlabeled."""
    X, y = clusters(120, classes=2, noise=0.3)
    store = store_of(tmp_path / "s", X, label=y)
    with store._session.storage.writer("test") as writer, writer.transaction() as con:
        con.execute("ALTER TABLE items ADD COLUMN tags VARCHAR[]")
        con.execute("UPDATE items SET tags = CASE WHEN label = 'c0' THEN ['zero', 'even'] ELSE [] END")
        con.execute("UPDATE items SET tags = ['zero', 'odd'] WHERE item = 1")
        con.execute("UPDATE items SET tags = NULL WHERE item <= 4 AND item > 1")
    data = store.features("tags")
    assert data.multilabel
    assert data.n_unlabeled == 3
    assert data.y[:3].tolist() == [("odd", "zero"), ("even", "zero"), ()]
    e = store.probe("tags", head="ridge")
    assert e.scores["micro_f1"].value >= 0.95
    assert "odd" in {*e.unlearned_classes, *e.classes}
