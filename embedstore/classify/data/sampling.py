"""Select rows of labeled features: a few per class, the rows of some classes, the items that several spaces share."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.errors import LabelError


def sample_per_class(data: Features, rows: NDArray[np.int64], max_per_class: int, seed: int) -> NDArray[np.int64]:
    """Draw at most a number of pictures per class; with one seed a larger sample contains the smaller ones.

    Rows of one group with one label count as one picture: the first that is drawn represents the others.

    Args:
        data: labeled rows; with several labels per item the first items of each label are drawn, and of those
            without any.
        rows: int64 ``(M,)`` rows to draw from.
        max_per_class: rows per class.
        seed: the random seed of the order in which rows are drawn.

    Returns:
        The rows, int64, ascending.
    """
    order = np.random.default_rng(seed).permutation(rows)
    order = order[first_of_each_picture(data, order)]
    counts: dict[str, int] = {}
    selected = np.zeros(len(order), dtype=bool)
    for i, label in enumerate(data.y[order].tolist()):
        for name in (label or ("",)) if data.multilabel else (str(label),):
            counts[name] = counts.get(name, 0) + 1
            selected[i] |= counts[name] <= max_per_class
    return np.sort(order[selected])


def first_of_each_picture(data: Features, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the places in ``rows`` of the first row of each group and label, ascending."""
    labels = np.unique([str(label) for label in data.y[rows].tolist()], return_inverse=True)[1].ravel()
    groups = np.unique(data.groups[rows], return_inverse=True)[1]
    return np.sort(np.unique(groups * (int(labels.max(initial=0)) + 1) + labels, return_index=True)[1])


def select_classes(data: Features, class_names: Sequence[str]) -> Features:
    """Return the rows whose label is one of the class names."""
    return data.take(np.flatnonzero(np.isin(data.y.astype(str), list(class_names))))


def select_shared_items(spaces: Sequence[Features]) -> list[Features]:
    """Return the rows of the items that have a vector in every space, in the order of the items, with equal groups.

    Raises:
        LabelError: when no item has a vector in all of them.
    """
    ids = functools.reduce(np.intersect1d, [data.ids for data in spaces])
    if not len(ids):
        fewest = shlex.quote(min(spaces, key=len).space)
        raise LabelError(
            f"no labeled item has a vector in all of the spaces {', '.join(data.space for data in spaces)}; "
            f"`embedstore reembed STORE --space {fewest}` embeds what that space lacks, or name fewer with --spaces"
        )
    shared = [data.take(np.flatnonzero(np.isin(data.ids, ids))) for data in spaces]
    groups = _shared_groups([data.groups for data in shared])
    return [replace(data, groups=groups) for data in shared]


def _shared_groups(groups_by_space: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return groups of rows that are together in any space, so that all spaces are split alike, int64 ``(N,)``.

    A chain of contents may be known in one space only, because a link of it has no vector in another. A merged group
    has the lowest number of its parts in the first space.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    first = groups_by_space[0]
    edges = []
    for groups in groups_by_space:
        order = np.argsort(groups, kind="stable")
        same = groups[order[1:]] == groups[order[:-1]]
        edges.append(np.stack([order[1:][same], order[:-1][same]]))
    rows, columns = np.concatenate(edges, axis=1)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(len(first), len(first)))
    n_parts, part = connected_components(graph, directed=False)
    numbers = np.full(n_parts, np.iinfo(np.int64).max)
    np.minimum.at(numbers, part, first)
    return np.asarray(numbers[part], dtype=np.int64)
