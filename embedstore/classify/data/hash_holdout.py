"""The fifth that is held out where the items have no split of their own: each group is on the side of its own hash.

The side of a group depends on nothing but its number and the seed. So it stays where other items are added, removed,
relabeled or come in another order. A fifth of every class by rank would be exact, and would move.

Classes come second: a class keeps at least half of its rows for training, and has a held-out group. Only a class
that its groups' hashes put on one side, or that is mostly one group, takes a group from the other side.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

HELD_OUT_FRACTION = 0.2  # of the groups
_MOST_HELD_OUT = 0.5  # of the rows of a class


def hash_keys(groups: NDArray[np.int64], *, seed: int = 0, purpose: str = "test") -> NDArray[np.uint64]:
    """Return a number that looks random for each group, uint64 ``(N,)``; equal groups have equal numbers.

    Args:
        groups: int64 ``(N,)``.
        seed: random seed.
        purpose: what is held out; another purpose gives other numbers.
    """
    salt = int.from_bytes(hashlib.sha256(f"{purpose} {seed}".encode()).digest()[:8], "big")
    bits = groups.astype(np.int64).view(np.uint64) ^ np.uint64(salt)
    with np.errstate(over="ignore"):  # the finalizer of SplitMix64 (Steele et al. 2014): a bijection of 64 bits
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(bits ^ (bits >> np.uint64(31)))


def in_hash_fifth(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which keys of :func:`hash_keys` are among the lowest fifth of all possible keys, bool ``(N,)``."""
    return np.asarray(keys < np.uint64(int(HELD_OUT_FRACTION * 2**64)))


def hash_holdout_mask(
    y: NDArray[np.object_] | None,
    groups: NDArray[np.int64],
    in_fifth: NDArray[np.bool_] | None = None,
    *,
    seed: int = 0,
    purpose: str = "test",
) -> NDArray[np.bool_]:
    """Return the rows that are held out, bool ``(N,)``: the groups in the lowest fifth of the hashes.

    Every class of several groups has some on both sides, and at least half of its rows train.

    Args:
        y: labels ``(N,)``, or tuples of labels; None does not look at classes.
        groups: int64 ``(N,)``.
        in_fifth: bool ``(N,)``, the rows that are in the fifth, equal in a group; by default by the hash of the group.
        seed: random seed of the hash; equal arguments give the same rows.
        purpose: what is held out; another purpose gives another fifth.
    """
    names, first, code = np.unique(groups, return_index=True, return_inverse=True)
    keys = hash_keys(names, seed=seed, purpose=purpose)
    wanted = in_hash_fifth(keys) if in_fifth is None else in_fifth[first]
    rows, labels = _rows_with_labels(y, len(groups))
    return np.asarray(balanced_holdout(code[rows], labels, wanted, keys)[code])


def _rows_with_labels(y: NDArray[np.object_] | None, n_rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each row, once per label of it, and the number of that label; one label for all rows without ``y``."""
    if y is None or not n_rows:
        return np.arange(n_rows), np.zeros(n_rows, np.int64)
    sets = [value if isinstance(value, tuple) else (str(value),) for value in y.tolist()]
    rows = np.repeat(np.arange(n_rows), [len(labels) for labels in sets])
    names = [label for labels in sets for label in labels]
    return rows, np.unique(names, return_inverse=True)[1].astype(np.int64) if names else np.zeros(0, np.int64)


def balanced_holdout(
    group: NDArray[np.int64], label: NDArray[np.int64], in_fifth: NDArray[np.bool_], keys: NDArray[np.uint64]
) -> NDArray[np.bool_]:
    """Return the groups that are held out, bool ``(G,)``: the fifth, as far as the classes allow it.

    A class of which more than half of the rows would be held out keeps the groups that do not fit, in the order of
    their keys. A class without a held-out group holds out the first one that fits into half of its rows, else its
    smallest, unless a class would be left without training rows.

    Args:
        group: int64 ``(M,)``, the group of each row, once per class of the row.
        label: int64 ``(M,)``, the class.
        in_fifth: bool ``(G,)``, the groups whose hash holds them out.
        keys: uint64 ``(G,)``, the order of the groups.
    """
    holdout = _Holdout(group, label, in_fifth, keys)
    for column in np.flatnonzero(holdout.taken > _MOST_HELD_OUT * holdout.totals).tolist():
        holdout.keep_what_does_not_fit(column)
    for column in np.argsort(holdout.totals, kind="stable").tolist():
        if not holdout.taken[column]:
            holdout.take_one(column)
    return holdout.held_out


class _Holdout:
    """Groups that are held out, and the rows that this takes of each class.

    Attributes:
        held_out: bool ``(G,)``.
        totals: int64 ``(K,)``, the rows of each class.
        taken: int64 ``(K,)``, those that are held out.
    """

    def __init__(
        self,
        group: NDArray[np.int64],
        label: NDArray[np.int64],
        in_fifth: NDArray[np.bool_],
        keys: NDArray[np.uint64],
    ) -> None:
        pairs, rows = np.unique(np.stack([label, group], axis=1).reshape(-1, 2), axis=0, return_counts=True)
        order = np.lexsort((keys[pairs[:, 1]], pairs[:, 0]))  # the groups of a class in the order of their keys
        self._label, self._group, self._rows = pairs[order, 0], pairs[order, 1], rows[order]
        n_labels = int(label.max(initial=-1)) + 1
        self._begin = np.searchsorted(self._label, np.arange(n_labels + 1))
        self._of_group = np.argsort(self._group, kind="stable")
        self._group_begin = np.searchsorted(self._group[self._of_group], np.arange(len(keys) + 1))
        self.held_out = in_fifth.copy()
        self.totals = np.bincount(self._label, self._rows, n_labels).astype(np.int64)
        self.taken = np.bincount(self._label, self._rows * in_fifth[self._group], n_labels).astype(np.int64)

    def keep_what_does_not_fit(self, label: int) -> None:
        """Let held-out groups of a class train, from the first that is larger than what is left of half its rows."""
        groups, sizes = self._groups_of(label)
        left = _MOST_HELD_OUT * self.totals[label]
        for group, size in zip(groups.tolist(), sizes.tolist(), strict=True):
            if self.held_out[group] and size <= left:
                left -= size
            elif self.held_out[group]:
                self._move(group, held_out=False)

    def take_one(self, label: int) -> None:
        """Hold out one group of a class, if every class of it still has training rows then."""
        groups, sizes = self._groups_of(label)
        fits = sizes <= _MOST_HELD_OUT * self.totals[label]
        for group in groups[np.argsort(np.where(fits, 0, sizes), kind="stable")].tolist():
            own = self._of_group[self._group_begin[group] : self._group_begin[group + 1]]
            labels = self._label[own]
            if (self.taken[labels] + self._rows[own] < self.totals[labels]).all():
                self._move(group, held_out=True)
                return

    def _groups_of(self, label: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the groups that have a class, and how many rows of the class each has."""
        of_label = slice(self._begin[label], self._begin[label + 1])
        return self._group[of_label], self._rows[of_label]

    def _move(self, group: int, *, held_out: bool) -> None:
        """Put a group on the other side."""
        self.held_out[group] = held_out
        own = self._of_group[self._group_begin[group] : self._group_begin[group + 1]]
        self.taken[self._label[own]] += self._rows[own] if held_out else -self._rows[own]
