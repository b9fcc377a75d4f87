"""How Python collects garbage while a run makes objects for every file."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignore_existing_objects() -> Iterator[None]:
    """Let the garbage collector leave out the objects that exist now, until the end of the block.

    A full collection visits every object, most of which belong to imported libraries: PyTorch alone has several hundred
    thousand. If the caller has frozen objects already, nothing is changed, since they could not be told apart later.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
