"""Sets of items that the page works with, in memory: a handle stands for their ids."""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ItemNotFound, QueryError
from embedstore.operations.bounded_cache import BoundedCache
from embedstore.operations.packed_ids import PackedIds
from embedstore.wording import counted

MAX_SELECTIONS = 200
MAX_SELECTION_BYTES = 64 << 20  # of all selections together; those of filters take a bit per item


class Selections:
    """The selections of one server. The ones that were not used for longest are dropped. Threads may share it."""

    def __init__(self) -> None:
        self._kept: BoundedCache[str, PackedIds] = BoundedCache(
            MAX_SELECTION_BYTES, lambda ids: ids.nbytes, max_values=MAX_SELECTIONS
        )

    def add(self, items: NDArray[np.int64]) -> str:
        """Keep a set of items, and return its handle.

        Args:
            items: int64 ``(n,)`` ids, in the order to show.

        Raises:
            QueryError: if there are more items than the server keeps.
        """
        ids = PackedIds.of(items)
        if ids.nbytes > MAX_SELECTION_BYTES:
            raise QueryError(
                f"a selection takes at most {MAX_SELECTION_BYTES >> 20} MB, and these "
                f"{counted(len(items), 'item takes', 'items take')} "
                f"{ids.nbytes >> 20} MB; use a filter"
            )
        handle = secrets.token_urlsafe(9)
        self._kept.put(handle, ids)
        return handle

    def items(self, handle: str) -> NDArray[np.int64]:
        """Return the ids of a selection.

        Raises:
            ItemNotFound: if there is no such selection.
        """
        ids = self._kept.get(handle)
        if ids is None:
            raise ItemNotFound(f"there is no selection {handle!r} any more; select again")
        return ids.unpack()
