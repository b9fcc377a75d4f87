"""Columns that predict the label better than the vectors do: what a head learns may be the camera, not the picture.

Both predict rows that they were not fitted on, and are compared on the rows where one of them is wrong (McNemar 1947).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, IntArray
from embedstore.text_form import clean_name

LEVEL = 0.05  # of false findings among all columns of one set
MIN_ROWS = 20
_FOLDS = 5
_LEAVES_PER_CLASS = 4  # of the tree that predicts from numbers
_ROWS_PER_LEAF = 3

Column = FloatArray | NDArray[np.object_]


@dataclass(frozen=True)
class TellingColumn:
    """A column that predicts the label better than the vectors do.

    Attributes:
        name: the name of the column.
        accuracy: share of the rows that it predicts right, out of fold.
        head_accuracy: share of the same rows that the head predicts right, out of fold.
        is_renaming: whether each value has one label, and each label one value.
        p_value: the p-value of the test that the column predicts no better.
    """

    name: str
    accuracy: float
    head_accuracy: float
    is_renaming: bool
    p_value: float


def telling_columns(
    columns: Mapping[str, Column], y: NDArray[np.str_], head_is_right: NDArray[np.bool_], *, seed: int = 0
) -> list[TellingColumn]:
    """Return the columns that predict labels better than a head does, the most accurate first.

    Args:
        columns: the values of each row by column: numbers with NaN where there is none, or texts and None.
        y: the label of each row ``(N,)``; rows are independent of each other.
        head_is_right: whether the head predicts the row right, out of fold, ``(N,)``.
        seed: the random seed of the folds.
    """
    if len(y) < MIN_ROWS:
        return []
    found = []
    columns = {name: values for name, values in columns.items() if len({str(v) for v in values}) > 1}
    for name, values in columns.items():
        is_right = predicted_right(values, y, seed=seed)
        p_value = _better_p_value(is_right, head_is_right)
        if p_value < LEVEL / len(columns):
            accuracies = float(is_right.mean()), float(head_is_right.mean())
            found.append(TellingColumn(name, *accuracies, _is_renaming(values, y), p_value))
    return sorted(found, key=lambda column: (-column.accuracy, column.name))


def predicted_right(values: Column, y: NDArray[np.str_], *, seed: int = 0) -> NDArray[np.bool_]:
    """Return which labels a column alone predicts right, out of fold, bool ``(N,)``.

    Args:
        values: the values of each row.
        y: the label of each row.
        seed: the random seed of the folds.
    """
    codes = np.unique(y, return_inverse=True)[1]
    fold = np.random.default_rng(seed).permutation(len(y)) % _FOLDS
    predict = _predict_by_tree if values.dtype.kind == "f" else _predict_by_value
    out = np.zeros(len(y), np.bool_)
    for number in range(_FOLDS):
        held_out = fold == number
        out[held_out] = predict(values[~held_out], codes[~held_out], values[held_out]) == codes[held_out]
    return out


def _predict_by_value(train: Column, codes: IntArray, held_out: Column) -> IntArray:
    """Return the most frequent label of each value, of unknown values that of all rows."""
    default = int(np.bincount(codes).argmax())
    names, numbers = np.unique([str(v) for v in train], return_inverse=True)
    counts = np.zeros((len(names), codes.max() + 1), np.int64)
    np.add.at(counts, (numbers, codes), 1)
    label = dict(zip(names.tolist(), counts.argmax(1).tolist(), strict=True))
    return np.array([label.get(str(v), default) for v in held_out], np.int64)


def _predict_by_tree(train: Column, codes: IntArray, held_out: Column) -> IntArray:
    """Predict from numbers by ranges of them."""
    from sklearn.tree import DecisionTreeClassifier

    leaves = max(2, _LEAVES_PER_CLASS * len(np.unique(codes)))
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=_ROWS_PER_LEAF, random_state=0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few labels of many classes
        tree.fit(train.reshape(-1, 1).astype(np.float64), codes)
    return np.asarray(tree.predict(held_out.reshape(-1, 1).astype(np.float64)), np.int64)


def _better_p_value(is_right: NDArray[np.bool_], other_is_right: NDArray[np.bool_]) -> float:
    """Return the exact one-sided p-value of "the first is right no more often than the other"."""
    from scipy.stats import binom

    wins = int((is_right & ~other_is_right).sum())
    losses = int((~is_right & other_is_right).sum())
    return float(binom.sf(wins - 1, wins + losses, 0.5))


def _is_renaming(values: Column, y: NDArray[np.str_]) -> bool:
    """Return whether each value has one label, and each label one value."""
    pairs = set(zip([str(v) for v in values], y.tolist(), strict=True))
    return len(pairs) == len({value for value, _ in pairs}) == len({label for _, label in pairs})


def folders_without_labels(uris: Sequence[str], y: NDArray[np.str_]) -> NDArray[np.object_]:
    """Return the folder of each file without the parts that are names of labels, which is where labels come from.

    Args:
        uris: the uris of the rows.
        y: the label of each row.
    """
    labels = set(y.tolist())
    folders = ["/".join(part for part in uri.split("/")[:-1] if clean_name(part) not in labels) for uri in uris]
    return np.array(folders, dtype=object)
