"""How often Python looks for garbage while a run makes objects for every file."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNGER_COLLECTIONS = 200  # between two full ones; Python's own number is 10


@contextmanager
def fewer_full_collections() -> Iterator[None]:
    """Let a full collection come after more of the younger generation's, until the end of the block.

    It visits every object, most of which belong to imported libraries: PyTorch alone has several hundred thousand. What
    a run leaves in cycles is young, and is collected as before.
    """
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, max(old, _YOUNGER_COLLECTIONS))
    try:
        yield
    finally:
        gc.set_threshold(young, middle, old)
