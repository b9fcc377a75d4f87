"""Rows with several labels cut into parts with about equal shares of every label and of pairs of labels.

Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011) gives the rarest label out first, each example to the
part that needs the label most. With pairs of labels as further labels (Szymanski and Kajdanowicz 2017) combinations are
spread, too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embedstore.arrays import Array, FloatArray, IntArray

_MAX_PAIRS = 1000  # with more pairs of labels that occur together only single labels are spread


def iterative_parts(
    labels: npt.NDArray[np.bool_], groups: Array, shares: FloatArray, *, order: IntArray
) -> npt.NDArray[np.int64]:
    """Return the part of each row, int64 ``(N,)``; a group is never cut.

    Args:
        labels: bool ``(N, K)``.
        groups: ``(N,)``.
        shares: ``(P,)``, the share of each part; they sum to 1.
        order: int ``(N,)``, groups of equal claim come in the order of the smallest number of their rows.
    """
    _, code, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    columns = _with_pairs(labels)
    counts = np.zeros((len(sizes), columns.shape[1]))
    np.add.at(counts, code, columns)
    first = np.full(len(sizes), np.iinfo(np.int64).max)
    np.minimum.at(first, code, order)
    part_of_group = _assign(counts, sizes.astype(np.float64), shares, np.lexsort((first, -sizes)))
    return part_of_group[code]


def _with_pairs(labels: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the labels, and the pairs of labels that occur together, as columns of 0 and 1."""
    single = labels.astype(np.float64)
    together = np.triu(single.T @ single, 1) > 0
    first, second = np.nonzero(together)
    if len(first) > _MAX_PAIRS:
        return single
    return np.hstack([single, single[:, first] * single[:, second]])


def _assign(counts: FloatArray, sizes: FloatArray, shares: FloatArray, order: IntArray) -> npt.NDArray[np.int64]:
    """Return the part of each group, ``(G,)``.

    Args:
        counts: ``(G, C)``, the rows of each group with each label.
        sizes: ``(G,)``, its rows.
        shares: ``(P,)``.
        order: ``(G,)``, the groups in the order in which they are given out.
    """
    out = np.full(len(sizes), -1, np.int64)
    wanted, wanted_rows = shares[:, None] * counts.sum(0), shares * sizes.sum()
    remaining = counts.sum(0)
    while (remaining > 0).any():
        label = int(np.where(remaining > 0, remaining, np.inf).argmin())
        for group in order[(counts[order, label] > 0) & (out[order] < 0)].tolist():
            part = int(np.lexsort((-wanted_rows, -wanted[:, label]))[0])
            out[group] = part
            wanted[part] -= counts[group]
            wanted_rows[part] -= sizes[group]
            remaining -= counts[group]
        remaining[label] = 0
    for group in order[out[order] < 0].tolist():  # without any label
        part = int((-wanted_rows).argsort(kind="stable")[0])
        out[group] = part
        wanted_rows[part] -= sizes[group]
    return out
