"""What a process keeps for later requests, with a limit in bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class BoundedCache(Generic[Key, Value]):
    """The values that were used last, as many as fit; the newest one stays in any case. Threads may share it.

    Args:
        max_bytes: the limit of all values together.
        size_of: returns about how many bytes a value takes.
        max_values: the limit of their number.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[Value], int], *, max_values: int = 1000) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._max_values = max_values
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """About how many bytes the values take."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Return a value and mark it as just used; None if it is not kept."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, and drop those that were not used for longest until the limits hold."""
        with self._lock:
            self._drop(key)
            size = self._size_of(value)
            self._values[key] = value, size
            self._bytes += size
            while len(self._values) > 1 and (len(self._values) > self._max_values or self._bytes > self._max_bytes):
                self._drop(next(iter(self._values)))

    def keep_only(self, is_wanted: Callable[[Key], bool]) -> None:
        """Drop the values of the other keys."""
        with self._lock:
            for key in [key for key in self._values if not is_wanted(key)]:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        """Drop a value, if it is kept."""
        if key in self._values:
            self._bytes -= self._values.pop(key)[1]
