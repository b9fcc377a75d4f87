"""Linear heads for other programs as NumPy arrays; heads as ONNX models are in `onnx_head.py`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray
from embedstore.classify.heads.calibration import CalibratedHead
from embedstore.errors import BadHead
from embedstore.storage import durable_files


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
