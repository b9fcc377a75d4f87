"""Heads as ONNX models answer as the heads themselves do, with every wrapper around them."""

from __future__ import annotations

import numpy as np
import pytest

from embedstore.classify import heads
from embedstore.classify.heads.onnx_head import build_head_onnx
from embedstore.errors import BadHead

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
EXPORTED = ["logistic", "lda", "svm", "ridge", "prototype", "mlp"]


def rows_of(classes, n=240, dim=12, seed=0):
    """Overlapping classes, so that probabilities are far from 0 and 1."""
    rng = np.random.default_rng(seed)
    centers, y = rng.normal(size=(classes, dim)), rng.integers(0, classes, n)
    return (centers[y] + 1.2 * rng.normal(size=(n, dim))).astype(np.float32), np.array([f"class {k}" for k in y])


def run(head, X):
    """The outputs of the exported head by name."""
    session = runtime.InferenceSession(build_head_onnx(head).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"features": np.asarray(X, np.float32)}), strict=True))


@pytest.mark.parametrize("wrapper", ["none", "temperature", "isotonic", "selective", "sets", "sets by class"])
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("name", EXPORTED)
def test_the_model_answers_as_the_head(name, classes, wrapper):
    """Probabilities to 1e-5 (1e-4 after a steep curve), and the same labels or sets."""
    X, y = rows_of(classes)
    head = heads.make_head(name).fit(X[:120], y[:120])
    wrappers = {
        "none": lambda: head,
        "temperature": lambda: heads.CalibratedHead(head).fit(X[120:], y[120:]),
        "isotonic": lambda: heads.CalibratedHead(head, "isotonic").fit(X[120:], y[120:]),
        "selective": lambda: heads.SelectiveClassifier(heads.CalibratedHead(head), 0.6),
        "sets": lambda: heads.ConformalSets(head, 0.2).fit(X[120:], y[120:]),
        "sets by class": lambda: heads.ConformalSets(head, 0.2, by_class=True).fit(X[120:], y[120:]),
    }
    wrapped = wrappers[wrapper]()
    if wrapper == "selective":
        wrapped.head.fit(X[:120], y[:120])
        wrapped.fit(X, y)
        confidence = np.sort(wrapped.predict_proba(X).max(1))
        gap = int(np.diff(confidence).argmax())
        wrapped.threshold_ = float(confidence[gap : gap + 2].mean())  # some rows, not all, and none at the border
    outputs = run(wrapped, X)
    expected = heads.probabilities(wrapped, X)
    assert outputs["probabilities"] == pytest.approx(expected, abs=1e-4 if wrapper == "isotonic" else 1e-5)
    if wrapper.startswith("sets"):
        clear = np.abs(expected - np.asarray(wrapped.threshold_)) > 1e-5  # beside rounding
        assert np.array_equal(outputs["predicted"][clear], heads.set_members(wrapped, expected)[clear])
    else:
        predicted = wrapped.predict(X) if hasattr(wrapped, "predict") else head.predict(X)
        two = np.sort(expected, axis=1)[:, -2:]
        clear = two[:, 1] - two[:, 0] > 1e-5
        assert clear.mean() > 0.9
        assert [str(v) for v in outputs["label"][clear]] == [str(v) for v in predicted[clear]]
        assert wrapper != "selective" or {"none of these"} < set(outputs["label"])


@pytest.mark.parametrize("wrapper", ["none", "temperature", "isotonic", "thresholds", "both"])
def test_a_model_of_several_labels_answers_as_the_head(wrapper):
    """A label that every row has, a label of one row, calibration and thresholds are all in the model."""
    X, y = rows_of(3)
    Y = np.stack([*(y == f"class {k}" for k in range(3)), X[:, 0] > 0, np.arange(len(y)) == 7, np.ones(len(y))], 1)
    head = heads.OneVsRest(classes=["a", "b", "c", "d", "one", "all"]).fit(X[:120], Y[:120].astype(int))
    wrapped = head
    if wrapper in ("temperature", "isotonic"):
        wrapped = heads.CalibratedHead(head, wrapper).fit(X[120:], Y[120:])
    if wrapper == "both":
        wrapped = heads.CalibratedHead(head, "temperature").fit(X[120:], Y[120:])
    if wrapper in ("thresholds", "both"):
        wrapped = heads.LabelThresholds(wrapped).fit(X[120:], Y[120:])
    outputs, expected = run(wrapped, X), heads.probabilities(wrapped, X)
    assert outputs["probabilities"] == pytest.approx(expected, abs=1e-5)
    clear = np.abs(expected - 0.5) > 1e-5
    assert np.array_equal(outputs["predicted"][clear], heads.set_members(wrapped, expected)[clear])


def test_labels_that_exclude_each_other_answer_as_the_head():
    """One head per class, scaled to sum to 1, also with a temperature."""
    X, y = rows_of(3)
    head = heads.OneVsRest().fit(X[:120], y[:120])
    for wrapped in (head, heads.CalibratedHead(head).fit(X[120:], y[120:])):
        assert run(wrapped, X)["probabilities"] == pytest.approx(heads.probabilities(wrapped, X), abs=1e-5)


def test_a_zero_shot_head_answers_as_the_head():
    """Text vectors of any length; a zero row gets equal logits."""
    rng = np.random.default_rng(0)
    head = heads.ZeroShotHead(rng.normal(size=(3, 12)).astype(np.float32), ["a", "b", "c"], logit_scale=20.0).fit()
    X = np.vstack([rows_of(3)[0], np.zeros((1, 12), np.float32), 1e-6 * np.ones((1, 12), np.float32)])
    assert run(head, X)["probabilities"] == pytest.approx(head.predict_proba(X), abs=1e-5)


@pytest.mark.parametrize("name", ["knn", "kernel"])
def test_a_head_that_keeps_its_training_rows_is_refused(name):
    """The message names the heads that are exported and the command that makes one."""
    X, y = rows_of(2)
    with pytest.raises(BadHead, match=r"training rows.*logistic, lda.*embedstore probe STORE LABEL --head logistic"):
        build_head_onnx(heads.make_head(name).fit(X, y))
