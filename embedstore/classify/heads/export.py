"""Linear heads for other programs: NumPy arrays or an ONNX model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray
from embedstore.classify.heads.calibration import CalibratedHead
from embedstore.errors import BadHead, MissingExtra
from embedstore.storage import durable_files

_OPSET, _IR = 17, 8  # of 2022: every runtime in use reads them


def linear_coefficients(head: Any) -> tuple[FloatArray, FloatArray, Array]:
    """Return the numbers of a linear head; softmax(X W' + b) gives its probabilities.

    A binary head has one weight vector in scikit-learn. Here each class gets half of it, with opposite signs, which
    gives the same probabilities.

    Returns:
        Weights float32 ``(K, D)``, intercepts float32 ``(K,)`` and classes ``(K,)``.

    Raises:
        BadHead: if the head is not linear in its features.
    """
    if isinstance(head, CalibratedHead) and not head.multilabel_ and hasattr(head, "temperature_"):
        w, b, classes = linear_coefficients(head.head)
        return w / np.float32(head.temperature_), b / np.float32(head.temperature_), classes
    if hasattr(head, "predict_interval"):
        raise BadHead(
            "a head that predicts numbers is not exported; its numbers are `store.head(NAME).head.coef_` in Python"
        )
    if not hasattr(head, "coef_"):
        raise BadHead(
            f"{type(head).__name__} is not a linear head; export logistic, lda, svm or ridge, as they are or "
            "calibrated by temperature, saved without --abstain-precision and --conformal-alpha"
        )
    w, b = np.atleast_2d(head.coef_), np.atleast_1d(head.intercept_)
    if len(w) == 1:
        w, b = np.concatenate([-w, w]) / 2, np.concatenate([-b, b]) / 2
    return np.asarray(w, np.float32), np.asarray(b, np.float32), np.asarray(head.classes_)


def export_npz(head: Any, path: str | os.PathLike[str]) -> Path:
    """Write ``weights (K, D)``, ``intercepts (K,)`` and ``classes (K,)`` to one .npz file without pickle.

    Raises:
        BadHead: if the head is not linear.
    """
    w, b, classes = linear_coefficients(head)
    classes = classes.astype(str) if classes.dtype.kind == "O" else classes
    path = Path(path)
    with durable_files.atomic_write(path, f".{os.getpid()}.tmp") as file:
        np.savez(file, weights=w, intercepts=b, classes=classes)
    return path


def export_onnx(head: Any, path: str | os.PathLike[str]) -> Path:
    """Write an ONNX model from ``features (N, D)`` to ``probabilities (N, K)`` and ``label (N,)``.

    Raises:
        BadHead: if the head is not linear.
        MissingExtra: if the ``onnx`` package is not installed.
    """
    model = build_linear_onnx(*linear_coefficients(head))
    path = Path(path)
    with durable_files.atomic_write(path, f".{os.getpid()}.tmp") as file:
        file.write(model)
    return path


def build_linear_onnx(weights: FloatArray, intercepts: FloatArray, classes: Array) -> bytes:
    """Return softmax(X W' + b) and the label of the largest logit as a serialized ONNX model.

    Args:
        weights: float32 ``(K, D)``.
        intercepts: float32 ``(K,)``.
        classes: labels ``(K,)``; integers stay integers, all others become strings.

    Raises:
        MissingExtra: if the ``onnx`` package is not installed.
    """
    try:
        import onnx
    except ImportError as e:
        raise MissingExtra("writing ONNX needs the onnx package; run `pip install onnx`") from e
    h, kind = onnx.helper, onnx.TensorProto
    integers = classes.dtype.kind in "iu"
    labels = classes.astype(np.int64) if integers else np.array([str(c) for c in classes], dtype=object)
    constants = [
        onnx.numpy_helper.from_array(np.ascontiguousarray(weights.T, dtype=np.float32), "weights"),
        onnx.numpy_helper.from_array(np.asarray(intercepts, dtype=np.float32), "intercepts"),
        onnx.numpy_helper.from_array(labels, "classes"),
    ]
    nodes = [
        h.make_node("MatMul", ["features", "weights"], ["products"]),
        h.make_node("Add", ["products", "intercepts"], ["logits"]),
        h.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        h.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0),
        h.make_node("Gather", ["classes", "best"], ["label"], axis=0),
    ]
    features = h.make_tensor_value_info("features", kind.FLOAT, ["N", weights.shape[1]])
    outputs = [
        h.make_tensor_value_info("probabilities", kind.FLOAT, ["N", weights.shape[0]]),
        h.make_tensor_value_info("label", kind.INT64 if integers else kind.STRING, ["N"]),
    ]
    graph = h.make_graph(nodes, "linear_head", [features], outputs, constants)
    model: Any = h.make_model(graph, opset_imports=[h.make_opsetid("", _OPSET)], ir_version=_IR)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
