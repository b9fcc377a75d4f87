"""Labels as columns of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import LabelError
from embedstore.wording import counted

LABEL_THRESHOLD = 0.5  # the probability from which a label is predicted where an item may have several


def encode_labels(
    labels: Sequence[Any] | npt.NDArray[Any], classes: Sequence[Any] | npt.NDArray[Any]
) -> npt.NDArray[np.integer[Any]]:
    """Return the column of each label, int64 ``(N,)``.

    Raises:
        LabelError: if a label is not among the classes.
    """
    columns = {c: i for i, c in enumerate(np.asarray(classes).tolist())}
    values = np.asarray(labels).tolist()
    unknown = sorted({str(v) for v in values if v not in columns})
    if unknown:
        raise LabelError(
            f"labels {', '.join(unknown[:5])} are not among the head's {counted(len(columns), 'class', 'classes')}"
        )
    return np.array([columns[v] for v in values], dtype=np.int64)


def label_indicators(y: npt.NDArray[np.object_], names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return which labels each row has, bool ``(N, K)``; labels that are not among the names are ignored."""
    columns = {n: k for k, n in enumerate(names)}
    out = np.zeros((len(y), len(names)), dtype=bool)
    for i, labels in enumerate(y.tolist()):
        out[i, [columns[label] for label in labels if label in columns]] = True
    return out
