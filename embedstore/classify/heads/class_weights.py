"""Weights of rows by their classes, as scikit-learn counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embedstore.arrays import Array, FloatArray, IntArray
from embedstore.errors import BadHead, did_you_mean

ClassWeight = str | Mapping[Any, float] | None
BALANCED = "balanced"


def class_weights(
    class_weight: ClassWeight, codes: IntArray, classes: Array, sample_weight: FloatArray | None = None
) -> FloatArray | None:
    """Return the weight of each row, float64 ``(N,)``, or None if all weights are 1.

    Args:
        class_weight: ``balanced`` (rows / (classes x rows of the class)), or weights by class; a class that is not
            named has the weight 1.
        codes: int64 ``(N,)``, the column of each row's class.
        classes: the K labels.
        sample_weight: float64 ``(N,)``, weights of single rows; the result is their product with those of the classes,
            and ``balanced`` counts a row as often as its weight says.

    Raises:
        BadHead: if the weight of a class is no positive number, or ``class_weight`` names another class.
    """
    if class_weight is None:
        return sample_weight
    own = np.ones(len(codes)) if sample_weight is None else sample_weight
    if isinstance(class_weight, str) and class_weight == BALANCED:
        counts = np.bincount(codes, own, minlength=len(classes))
        return np.asarray(own * (own.sum() / (len(classes) * counts))[codes])
    return np.asarray(own * _weights_by_class(class_weight, classes)[codes])


def _weights_by_class(class_weight: ClassWeight, classes: Array) -> FloatArray:
    """Return the weight of each class, float64 ``(K,)``.

    Raises:
        BadHead: if the weights are not positive numbers by the name of a class.
    """
    if not isinstance(class_weight, Mapping):
        raise BadHead(
            f"class_weight must be {BALANCED!r} or weights by class such as {{{str(classes[0])!r}: 2}}, "
            f"not {class_weight!r}"
        )
    column = {label: k for k, label in enumerate(classes.tolist())}
    out = np.ones(len(classes))
    for label, weight in class_weight.items():
        if label not in column:
            names = [str(c) for c in column]
            raise BadHead(
                f"class_weight names {label!r}{did_you_mean(str(label), names)}; the classes are {', '.join(names)}"
            )
        is_number = isinstance(weight, int | float | np.number) and not isinstance(weight, bool)
        if not is_number or not np.isfinite(weight) or weight <= 0:
            raise BadHead(f"class_weight of {label!r} must be a number above 0, not {weight!r}")
        out[column[label]] = float(weight)
    return out
