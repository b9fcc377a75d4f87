"""How many examples a class has: rows of one group, such as copies of one picture, are one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.label_text import MAX_LISTED_NAMES
from embedstore.errors import LabelError
from embedstore.wording import counted

DEFAULT_FOLDS = 5


def max_folds(y: NDArray[np.object_], groups: NDArray[np.int64], *, limit: int = DEFAULT_FOLDS) -> int:
    """Return how many cross-validation folds the smallest class can fill; classes of one example do not count.

    Args:
        y: labels ``(N,)``.
        groups: int64 ``(N,)``.
        limit: the most folds.

    Raises:
        LabelError: if fewer than two classes are in two groups: nothing else can be on both sides.
    """
    check_two_classes(y)
    if n_folds := inner_folds(y, groups, limit=limit):
        return n_folds
    raise LabelError(
        f"{list_single_examples(y, groups)}, and a classifier is evaluated on at least two classes of two examples: "
        "label more items of these classes"
    )


def check_two_classes(y: NDArray[np.object_]) -> None:
    """Refuse labels of one class, or several labels per item that are the same for all: no split can evaluate them.

    Raises:
        LabelError: if all labels are equal.
    """
    if len(set(map(str, y.tolist()))) < 2:
        if isinstance(y[0], tuple):
            raise LabelError(
                f"every item has the same labels ({', '.join(y[0])}), and nothing can be told apart; label items that "
                "lack one of them, or give a column that varies"
            )
        raise LabelError(
            f"the labels hold one class only ({str(y[0])!r}); a classifier needs at least two: label items of another "
            "class, or give a column that has several"
        )


def inner_folds(y: NDArray[np.object_], groups: NDArray[np.int64], *, limit: int = DEFAULT_FOLDS) -> int:
    """Return how many folds the smallest class of two groups or more can fill; 0 if there are fewer than two such."""
    counts = groups_per_class(y, groups)[1]
    several = counts[counts > 1]
    return int(min(limit, several.min())) if len(several) > 1 else 0


def single_examples(y: NDArray[np.object_], groups: NDArray[np.int64]) -> list[str]:
    """Return the classes that are in one group only, sorted: copies of one example are one example."""
    names, counts = groups_per_class(y, groups)
    return [str(name) for name in names[counts < 2].tolist()]


def list_single_examples(y: NDArray[np.object_], groups: NDArray[np.int64], *, side: str = "") -> str:
    """Return how many classes have one example only, and the names of some.

    Args:
        y: labels ``(N,)``.
        groups: int64 ``(N,)``.
        side: where the rows are from.
    """
    single = single_examples(y, groups)
    sizes = dict(zip(*np.unique(y.astype(str), return_counts=True), strict=True))
    listed = [f"{n!r}: {sizes[n]} items" if sizes[n] > 1 else repr(n) for n in single[:MAX_LISTED_NAMES]]
    more = ", ..." if len(single) > len(listed) else ""
    return (
        f"{counted(len(single), 'class has', 'classes have')} one example only{side} ({', '.join(listed)}{more}), "
        "copies and groups counted once"
    )


def groups_per_class(y: NDArray[np.object_], groups: NDArray[np.int64]) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Return the classes, sorted, and the number of groups of each, int64 ``(K,)``."""
    names, codes = np.unique(y.astype(str), return_inverse=True)
    order = np.lexsort((groups, codes))
    is_first = np.diff(codes[order], prepend=-1) != 0
    is_first[1:] |= np.diff(groups[order]) != 0
    return names, np.bincount(codes[order][is_first], minlength=len(names))


def smaller_side(labels: NDArray[np.bool_], groups: NDArray[np.int64]) -> int:
    """Return the number of groups on the smaller side of a yes-or-no label; below 2 it cannot be cross-validated."""
    return min(len(np.unique(groups[labels == side])) for side in (True, False))
