"""Which rows a classifier learns from and which judge it. Nothing that belongs together stands on both sides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import LabelError
from embedstore.records import Split

HELD_FRACTION = 0.2  # of each class, where the items have no split of their own
HASHED = "hash"  # the name of such a split


@dataclass(frozen=True)
class Division:
    """Two disjoint sets of rows.

    Attributes:
        train, held: rows, ascending.
        name: of the held-out side: ``test`` or ``val`` of the items' own split, or ``hash``.
        leaks: training rows left out because their content or group is also held out.
    """

    train: NDArray[np.int64]
    held: NDArray[np.int64]
    name: str
    leaks: int


def divide(y: NDArray[np.object_], groups: NDArray[np.int64], splits: NDArray[np.object_]) -> Division:
    """The items' own split where they have one, else a deterministic fifth of every class.

    Args:
        y: labels ``(N,)``. groups: int64 ``(N,)``, equal where rows must not be parted. splits: ``(N,)`` or None each.

    Returns:
        The division; rows of the held-out side's groups never train. The ``test`` rows are held out if there are
        any, else the ``val`` rows; with ``test``, the ``val`` rows are used by neither side.

    Raises:
        LabelError: one side is empty, or the training side has fewer than two classes.
    """
    names = set(splits.tolist())
    name = next((s.value for s in (Split.TEST, Split.VAL) if s in names), HASHED)
    if name == HASHED:
        held = _fifth(y, groups)
        train = ~held
    else:
        held = splits == name
        train = np.array([s in (None, Split.TRAIN) for s in splits.tolist()], dtype=bool)
    leaking = train & np.isin(groups, groups[held])
    train &= ~leaking
    _check(y[train], int(held.sum()), name)
    return Division(np.flatnonzero(train), np.flatnonzero(held), name, int(leaking.sum()))


def _fifth(y: NDArray[np.object_], groups: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A fifth of every class, group by group in the order of the groups' hashes: the same rows at every call."""
    held = np.zeros(len(y), dtype=bool)
    for label in sorted(set(y.tolist())):
        own = y == label
        names, sizes = np.unique(groups[own], return_counts=True)
        wanted = HELD_FRACTION * own.sum()
        chosen = names[np.cumsum(sizes) <= max(wanted, sizes[0] if len(names) > 1 else 0)]
        held |= np.isin(groups, chosen)
    return held


def _check(y: NDArray[np.object_], held: int, name: str) -> None:
    """Refuse a division that cannot answer anything."""
    classes = sorted(set(y.tolist()))
    if not held or not len(y):
        side = f"split {name!r} holds" if not held else "training has"
        raise LabelError(f"{side} no labelled rows; label some, or give the items a `split` column of train and val")
    if len(classes) < 2:
        raise LabelError(f"training has one class only ({classes[0]!r}); a classifier needs at least two")


def folds_for(y: NDArray[np.object_], groups: NDArray[np.int64], *, wanted: int = 5) -> int:
    """How many cross-validation folds the smallest class can fill, at most ``wanted``.

    Raises:
        LabelError: a class lives in one group only (one example): it cannot be both learned and judged.
    """
    spread = {label: len(np.unique(groups[y == label])) for label in sorted(set(y.tolist()))}
    lonely = [label for label, n in spread.items() if n < 2]
    if lonely:
        named = ", ".join(repr(label) for label in lonely[:5])
        raise LabelError(
            f"{len(lonely)} classes have one training example only ({named}); label more of them, or leave them out "
            f"with --where"
        )
    return min(wanted, *spread.values())
