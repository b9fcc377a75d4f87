"""Sets of items that the page works with, in memory: a handle stands for their ids."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ItemNotFound, QueryError

MAX_SELECTIONS = 200
MAX_SELECTED_ITEMS = 20_000_000  # of all selections together: 160 MB


class Selections:
    """The selections of one server. The ones that were not used for longest are dropped. Threads may share it."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, items: NDArray[np.int64]) -> str:
        """Keep a set of items, and return its handle.

        Args:
            items: int64 ``(n,)`` ids, in the order to show.

        Raises:
            QueryError: if there are more items than the server keeps.
        """
        if len(items) > MAX_SELECTED_ITEMS:
            raise QueryError(f"a selection has at most {MAX_SELECTED_ITEMS:,} items, not {len(items):,}; use a filter")
        handle = secrets.token_urlsafe(9)
        with self._lock:
            self._items[handle] = items
            while len(self._items) > MAX_SELECTIONS or sum(map(len, self._items.values())) > MAX_SELECTED_ITEMS:
                self._items.popitem(last=False)
        return handle

    def items(self, handle: str) -> NDArray[np.int64]:
        """Return the ids of a selection.

        Raises:
            ItemNotFound: if there is no such selection.
        """
        with self._lock:
            items = self._items.get(handle)
            if items is None:
                raise ItemNotFound(f"there is no selection {handle!r} any more; select again")
            self._items.move_to_end(handle)
            return items
