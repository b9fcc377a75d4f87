"""Report an error of the disk as an error of the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedstore.errors import EmbedstoreError, StoreIOError

DEFAULT_CURE = "free disk space or check the disk, then run it again; earlier commits are kept"


@contextmanager
def disk_errors(action: str, *, cure: str = DEFAULT_CURE) -> Iterator[None]:
    """Raise an error of the disk as :class:`StoreIOError`.

    Args:
        action: what failed, such as ``write FILE``.
        cure: what the user can do.

    Raises:
        StoreIOError: if the disk is full or fails.
    """
    try:
        yield
    except OSError as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise StoreIOError(f"cannot {action}: {e.strerror or e}; {cure}") from e
