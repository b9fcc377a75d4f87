"""Labels as columns of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedstore.errors import LabelError


def codes(
    labels: Sequence[Any] | npt.NDArray[Any], classes: Sequence[Any] | npt.NDArray[Any]
) -> npt.NDArray[np.integer[Any]]:
    """The column of each label, int64 ``(N,)``.

    Raises:
        LabelError: a label that is not among the classes.
    """
    column = {c: i for i, c in enumerate(np.asarray(classes).tolist())}
    values = np.asarray(labels).tolist()
    unknown = sorted({str(v) for v in values if v not in column})
    if unknown:
        raise LabelError(f"labels {', '.join(unknown[:5])} are not among the head's {len(column)} classes")
    return np.array([column[v] for v in values], dtype=np.int64)


def indicators(y: npt.NDArray[np.object_], names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which labels each row has: bool ``(N, K)``; labels that are not among the names are left out."""
    column = {n: k for k, n in enumerate(names)}
    out = np.zeros((len(y), len(names)), dtype=bool)
    for i, row in enumerate(y.tolist()):
        out[i, [column[label] for label in row if label in column]] = True
    return out
