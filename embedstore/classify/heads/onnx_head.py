"""Fitted heads as ONNX graphs, from features to probabilities and the predicted classes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.arrays import Array
from embedstore.classify.data.labels import LABEL_THRESHOLD
from embedstore.classify.heads.calibration import CalibratedHead, Curve
from embedstore.classify.heads.conformal import ConformalSets, predicts_sets
from embedstore.classify.heads.export import linear_coefficients
from embedstore.classify.heads.label_thresholds import LabelThresholds
from embedstore.classify.heads.mlp import MLPHead
from embedstore.classify.heads.multilabel import OneVsRest
from embedstore.classify.heads.prototype import NearestPrototype
from embedstore.classify.heads.selective import SelectiveClassifier
from embedstore.classify.heads.zero_shot import ZeroShotHead
from embedstore.errors import BadHead
from embedstore.onnx_graph import OnnxGraph
from embedstore.storage import durable_files

_TINY = 1e-12  # of a vector's length; a zero row stays zero
_CLIP = 1e-7  # probabilities of labels stay this far from 0 and 1 before their log odds are taken


def export_onnx(head: Any, path: str | os.PathLike[str]) -> Path:
    """Write a head as the ONNX model of :func:`build_head_onnx`.

    Raises:
        BadHead: if the head has no such form.
        MissingExtra: if the ``onnx`` package is not installed.
    """
    model = build_head_onnx(head)
    path = Path(path)
    with durable_files.atomic_write(path, f".{os.getpid()}.tmp") as file:
        file.write(model.SerializeToString())
    return path


def build_head_onnx(head: Any) -> Any:
    """Return a fitted head as a model.

    Its input is ``features``, float32 ``(N, D)``; its first output ``probabilities``, float32 ``(N, K)``. A head that
    predicts one class per row also has ``label`` ``(N,)``, integers or text; one that predicts any number of classes
    has ``predicted``, bool ``(N, K)``.

    Raises:
        BadHead: if the head keeps training rows (kNN, kernel, Tip-Adapter), predicts numbers, or is another's model.
        MissingExtra: if the package onnx is not installed.
    """
    graph = OnnxGraph("head")
    probabilities = _probabilities(graph, head, "features")
    dim, classes = int(head.n_features_in_), np.asarray(head.classes_)
    graph.apply("Identity", probabilities, output="probabilities")
    outputs: dict[str, Any] = {"probabilities": (np.float32, ["N", len(classes)])}
    if predicts_sets(head):
        threshold = head.threshold_ if isinstance(head, ConformalSets) else LABEL_THRESHOLD
        graph.apply("GreaterOrEqual", probabilities, graph.constant(threshold, np.float32), output="predicted")
        outputs["predicted"] = (np.bool_, ["N", len(classes)])
    else:
        outputs["label"] = (_add_label(graph, head, probabilities, classes), ["N"])
    return graph.build({"features": (np.float32, ["N", dim])}, outputs)


def _add_label(graph: OnnxGraph, head: Any, probabilities: str, classes: Array) -> Any:
    """Add the label of the largest probability, or of "none of these"; return its dtype."""
    best = graph.apply("ArgMax", probabilities, axis=1, keepdims=0)
    names: Array = classes
    if isinstance(head, SelectiveClassifier):
        names = np.array([*classes.tolist(), head.abstain_label], dtype=object)
        confidence = graph.apply("ReduceMax", probabilities, graph.constant([1]), keepdims=0)
        answered = graph.apply("GreaterOrEqual", confidence, graph.constant(head.threshold_, np.float32))
        best = graph.apply("Where", answered, best, graph.constant(len(classes)))
    is_integer = names.dtype.kind in "iu"
    texts = names.astype(np.int64) if is_integer else np.array([str(name) for name in names], dtype=object)
    graph.apply("Gather", graph.constant(texts), best, output="label")
    return np.int64 if is_integer else np.object_


def _probabilities(graph: OnnxGraph, head: Any, features: str) -> str:
    """Add the probabilities of a head, float32 ``(N, K)``."""
    match head:
        case CalibratedHead() if hasattr(head, "curves_"):
            return _curves(graph, _probabilities(graph, head.head, features), head.curves_, head.multilabel_)
        case CalibratedHead() if head.multilabel_:
            return _tempered_labels(graph, _probabilities(graph, head.head, features), head.temperature_)
        case CalibratedHead():
            cooled = graph.apply("Div", _logits(graph, head.head, features), _number(graph, head.temperature_))
            return graph.apply("Softmax", cooled, axis=1)
        case SelectiveClassifier() | ConformalSets():
            return _probabilities(graph, head.head, features)
        case LabelThresholds():
            return _centered(graph, _probabilities(graph, head.head, features), head.thresholds_)
        case OneVsRest():
            return _one_vs_rest(graph, head, features)
    return graph.apply("Softmax", _logits(graph, head, features), axis=1)


def _logits(graph: OnnxGraph, head: Any, features: str) -> str:
    """Add the logits of a head ``(N, K)``: the softmax of a constant times them keeps their order."""
    match head:
        case NearestPrototype():
            return _cosines(graph, features, head.prototypes_ / np.float32(head.temperature))
        case ZeroShotHead():
            return _cosines(graph, features, np.float32(head.logit_scale) * np.asarray(head.class_vectors, np.float32))
        case MLPHead():
            return _perceptron(graph, head, features)
        case _ if hasattr(head, "coef_") and not hasattr(head, "predict_interval"):
            weights, intercepts, _ = linear_coefficients(head)
            return _affine(graph, features, weights.T, intercepts)
        case OneVsRest():  # it has no margins of its own
            proba = _probabilities(graph, head, features)
            return graph.apply("Log", graph.apply("Max", proba, _number(graph, np.finfo(np.float32).eps)))
    raise BadHead(_refusal(head))


def _refusal(head: Any) -> str:
    exported = "export logistic, lda, svm, ridge, prototype, mlp or a zero-shot head"
    if hasattr(head, "predict_interval"):
        return f"a head that predicts numbers is not exported as ONNX; {exported}"
    return (
        f"{type(head).__name__} is not exported as ONNX: it computes with its training rows or with a model of another "
        f"package; {exported}: `embedstore probe STORE LABEL --head logistic --save NAME`"
    )


def _number(graph: OnnxGraph, value: Any) -> str:
    return graph.constant(value, np.float32)


def _affine(graph: OnnxGraph, rows: str, weights: Array, intercepts: Array) -> str:
    return graph.apply("Add", graph.apply("MatMul", rows, _number(graph, weights)), _number(graph, intercepts))


def _cosines(graph: OnnxGraph, features: str, directions: Array) -> str:
    """Add the products of unit rows with the directions ``(K, D)``."""
    length = graph.apply("ReduceL2", features, graph.constant([1]), keepdims=1)
    unit = graph.apply("Div", features, graph.apply("Max", length, _number(graph, _TINY)))
    return graph.apply("MatMul", unit, _number(graph, np.ascontiguousarray(directions.T)))


def _perceptron(graph: OnnxGraph, head: MLPHead, features: str) -> str:
    """Add the layers of an MLP head."""
    centered = graph.apply("Sub", features, _number(graph, head.mean_))
    rows = graph.apply("Div", centered, _number(graph, head.scale_))
    for weights, intercepts in zip(head.coefs_[:-1], head.intercepts_[:-1], strict=True):
        rows = graph.apply("Relu", _affine(graph, rows, weights, intercepts))
    return _affine(graph, rows, head.coefs_[-1], head.intercepts_[-1])


def _one_vs_rest(graph: OnnxGraph, head: OneVsRest, features: str) -> str:
    """Add one column per label; rows sum to 1 where labels exclude each other."""
    rows = graph.apply("MatMul", features, _number(graph, np.zeros((int(head.n_features_in_), 1))))  # N zeros
    second, axis = graph.constant([1]), graph.constant([1])
    columns = [
        graph.apply("Add", rows, _number(graph, one))
        if isinstance(one, float)
        else graph.apply("Slice", _probabilities(graph, one, features), second, graph.constant([2]), axis)
        for one in head.heads_
    ]
    stacked = graph.apply("Concat", *columns, axis=1)
    if head.multilabel_:
        return stacked
    total = graph.apply("ReduceSum", stacked, axis, keepdims=1)
    return graph.apply("Div", stacked, graph.apply("Max", total, _number(graph, 1e-30)))


def _tempered_labels(graph: OnnxGraph, probabilities: str, temperature: float) -> str:
    """Add the sigmoid of each label's log odds over the temperature."""
    wide = graph.cast(probabilities, np.float64)
    p = graph.apply("Clip", wide, graph.constant(_CLIP), graph.constant(1 - _CLIP))
    odds = graph.apply("Log", graph.apply("Div", p, graph.apply("Sub", graph.constant(1.0), p)))
    cooled = graph.apply("Div", odds, graph.constant(float(temperature)))
    return graph.cast(graph.apply("Sigmoid", cooled), np.float32)


def _centered(graph: OnnxGraph, probabilities: str, thresholds: Array) -> str:
    """Add scores that are one half at each label's threshold, as :class:`LabelThresholds`."""
    p, half = graph.cast(probabilities, np.float64), graph.constant(0.5)
    above = graph.apply(
        "Add",
        graph.apply("Mul", p, graph.constant(0.5 / (1 - thresholds))),
        graph.constant(0.5 - 0.5 * thresholds / (1 - thresholds)),
    )
    below = graph.apply("Mul", graph.apply("Mul", p, half), graph.constant(1 / thresholds))
    is_above = graph.apply("GreaterOrEqual", p, graph.constant(thresholds))
    return graph.cast(graph.apply("Where", is_above, above, below), np.float32)


def _curves(graph: OnnxGraph, probabilities: str, curves: list[Curve], multilabel: bool) -> str:
    """Add a piecewise linear curve per class: its start and what each piece adds up to the score.

    Rows whose curves are all 0 keep the head's own probabilities, as in :class:`CalibratedHead`.
    """
    raw = graph.cast(probabilities, np.float64)
    columns = [_curve(graph, raw, k, curve) for k, curve in enumerate(curves)]
    calibrated = graph.apply("Concat", *columns, axis=1)
    if multilabel:
        return graph.cast(calibrated, np.float32)
    total = graph.apply("ReduceSum", calibrated, graph.constant([1]), keepdims=1)
    is_known = graph.apply("Greater", total, graph.constant(0.0))
    divisor = graph.apply("Where", is_known, total, graph.constant(1.0))
    share = graph.apply("Div", calibrated, divisor)
    return graph.cast(graph.apply("Where", is_known, share, raw), np.float32)


def _curve(graph: OnnxGraph, raw: str, k: int, curve: Curve) -> str:
    """Add the curve of one class, ``(N, 1)``."""
    x, y = (np.asarray(values, np.float64) for values in curve)
    score = graph.apply("Gather", raw, graph.constant([k]), axis=1)
    if len(x) == 1:
        return graph.apply("Add", graph.apply("Mul", score, graph.constant(0.0)), graph.constant(float(y[0])))
    width = np.diff(x)
    slope = np.divide(np.diff(y), width, out=np.zeros_like(width), where=width > 0)
    depth = graph.apply("Sub", score, graph.constant(x[None, :-1]))
    inside = graph.apply("Max", graph.apply("Min", depth, graph.constant(width[None])), graph.constant(0.0))
    gained = graph.apply("MatMul", inside, graph.constant(slope[:, None]))
    return graph.apply("Add", gained, graph.constant(float(y[0])))
