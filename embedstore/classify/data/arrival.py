"""The side of groups that grow: an item that comes to a group follows it, and a group that joins two sides is held out.

Items are taken in the order in which they came. An item alone is on the side of its own hash. One that is linked to
earlier items (a copy, the same content, the same declared group) is on their side, so a copy of a held-out item is
held out and a copy of a training item trains. Where it links items of both sides, all of them are held out: what was
held out once never trains.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.copy_groups import DisjointSets


class Sides(NamedTuple):
    """The side of each row.

    Attributes:
        held_out: bool ``(N,)``.
        joined: bool ``(N,)``, the rows of groups that were joined from both sides; all of them are held out.
    """

    held_out: NDArray[np.bool_]
    joined: NDArray[np.bool_]


def sides_by_arrival(units: NDArray[np.int64], links: NDArray[np.int64], in_fifth: NDArray[np.bool_]) -> Sides:
    """Return the side of each row; linked rows are on one side.

    Args:
        units: int64 ``(N,)``, rows of one unit are on one side.
        links: int64 ``(L, 2)``, pairs of linked rows; rows are numbered in the order in which they came.
        in_fifth: bool ``(N,)``, the rows whose own hash holds them out; equal in a unit.
    """
    _, first, code = np.unique(units, return_index=True, return_inverse=True)
    sides = _Sides(in_fifth[first])
    for row, earlier_rows in _links_by_later_row(links):
        unit, earlier_units = int(code[row]), code[earlier_rows].tolist()
        if first[unit] == row:
            sides.follow(unit, earlier_units[0])
        for earlier in earlier_units:
            sides.join(unit, earlier)
    set_names = sides.names()[code]
    return Sides(sides.held_out[set_names], sides.joined[set_names])


def _links_by_later_row(links: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Return each row that is linked to earlier ones, ascending, with those rows, ascending."""
    pairs = np.unique(np.sort(links, axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    later, begin = np.unique(pairs[:, 1], return_index=True)
    return list(zip(later.tolist(), np.split(pairs[:, 0], begin[1:]), strict=True)) if len(later) else []


class _Sides:
    """Units that are joined into sets, each on one side.

    Attributes:
        held_out: whether a set is held out, by its name: one of the sets that it was joined from was.
        joined: whether two of these sets were on different sides, by the name of the joined set.
    """

    def __init__(self, held_out: NDArray[np.bool_]) -> None:
        self.held_out = held_out.copy()
        self.joined = np.zeros(len(held_out), bool)
        self._sets = DisjointSets(len(held_out))

    def names(self) -> NDArray[np.int64]:
        """Return the name of the set of every unit, int64 ``(N,)``."""
        return self._sets.roots()

    def follow(self, unit: int, earlier: int) -> None:
        """Put a unit that is alone on the side of an earlier one."""
        self.held_out[unit] = self.held_out[self._sets.root(earlier)]

    def join(self, a: int, b: int) -> None:
        """Join two sets; what was held out stays held out."""
        both = [self._sets.root(a), self._sets.root(b)]
        name = self._sets.join(*both)
        self.joined[name] = self.joined[both].any() or self.held_out[both[0]] != self.held_out[both[1]]
        self.held_out[name] = self.held_out[both].any()
