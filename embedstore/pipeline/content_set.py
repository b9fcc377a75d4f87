"""The contents that a plan knows, looked up many at once in the memory of this process: 24 bytes for each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_RECENT = 1 << 14  # contents in a Python set, of about 120 bytes each, before they become a sorted array


def packed(digests: Sequence[str]) -> NDArray[np.bytes_]:
    """Return digests of 32 hexadecimal digits as ``S16``.

    All 16 bytes count in comparisons, also zeros at the end: two values of one length differ if one byte does.
    """
    return np.frombuffer(bytes.fromhex("".join(digests)), "S16")


class SortedContents:
    """Contents in ascending order.

    They are looked up by their first eight bytes as a number: NumPy compares bytes ten times as slowly.

    Args:
        ascending: the contents, ``S16``; not copied.

    Attributes:
        contents: the same.
    """

    def __init__(self, ascending: NDArray[np.bytes_]) -> None:
        self.contents = ascending
        self._first_bytes = _first_bytes(ascending)

    def places_of(self, wanted: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return where each wanted content is first, int64 ``(N,)``; -1 for a content that is not here."""
        numbers = _first_bytes(wanted)
        places = np.searchsorted(self._first_bytes, numbers)
        near = np.flatnonzero(places < len(self.contents))
        near = near[self._first_bytes[places[near]] == numbers[near]]
        other = near[self.contents[places[near]] != wanted[near]]  # first of several contents that begin alike
        places[other] = np.searchsorted(self.contents, wanted[other])
        found = np.full(len(wanted), -1, np.int64)
        near = near[places[near] < len(self.contents)]
        near = near[self.contents[places[near]] == wanted[near]]
        found[near] = places[near]
        return found


def _first_bytes(contents: NDArray[np.bytes_]) -> NDArray[np.uint64]:
    """Return the first eight bytes of contents as numbers, which are in the order of the contents."""
    return np.ascontiguousarray(contents).view(">u8")[::2].astype(np.uint64)


class ContentSet:
    """A growing set of contents.

    New contents are collected in a set, and then in sorted arrays whose sizes at least double, so that a look-up and an
    addition cost about the logarithm of the size, whatever the size is.

    Args:
        ascending: the first contents, ``S16``; not copied.
    """

    def __init__(self, ascending: NDArray[np.bytes_] = np.empty(0, "S16")) -> None:
        self._arrays = [SortedContents(ascending)] if len(ascending) else []
        self._recent: set[str] = set()

    def add(self, digests: Sequence[str]) -> None:
        """Add contents that the set does not have."""
        self._recent.update(digests)
        if len(self._recent) > MAX_RECENT:
            array = np.sort(packed(list(self._recent)))
            while self._arrays and len(self._arrays[-1].contents) <= 2 * len(array):
                array = np.sort(np.concatenate([self._arrays.pop().contents, array]), kind="stable")
            self._arrays.append(SortedContents(array))
            self._recent = set()

    def present(self, digests: Sequence[str]) -> set[str]:
        """Return which of the contents the set has."""
        found = self._recent.intersection(digests)
        if not self._arrays or not digests:
            return found
        wanted = packed(digests)
        is_known = np.zeros(len(wanted), bool)
        for array in self._arrays:
            is_known |= array.places_of(wanted) >= 0
        return found.union(digests[n] for n in np.flatnonzero(is_known).tolist())


class MissingItems:
    """The items whose files a scan did not find, by content: a new file with that content is one of them, renamed.

    Args:
        contents: the content of each item, ``S16``, ascending.
        items: the items; those of one content ascending.
    """

    def __init__(self, contents: NDArray[np.bytes_], items: NDArray[np.int64]) -> None:
        self._contents, self._items = SortedContents(contents), items
        self._next: dict[str, int] = {}  # of a content of which items were claimed, the place of the next one

    def claim(self, digests: Sequence[str | None]) -> list[int | None]:
        """Return for every file an item of the same content that was not claimed before, or None."""
        if not len(self._items):
            return [None] * len(digests)
        wanted = [d for d in digests if d is not None]
        first = dict(zip(wanted, self._contents.places_of(packed(wanted)).tolist(), strict=True))
        return [None if d is None or first[d] < 0 else self._claim_one(d, first[d]) for d in digests]

    def claimed(self) -> list[int]:
        """Return the items that were claimed."""
        starts = self._contents.places_of(packed(list(self._next))).tolist()
        ranges = zip(starts, self._next.values(), strict=True)
        return [item for start, end in ranges for item in self._items[start:end].tolist()]

    def _claim_one(self, digest: str, first: int) -> int | None:
        """Return the next item of a content that has some, or None if all were claimed."""
        place = self._next.get(digest, first)
        if place == len(self._items) or self._contents.contents[place] != self._contents.contents[first]:
            return None
        self._next[digest] = place + 1
        return int(self._items[place])
