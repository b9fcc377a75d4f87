"""What a disk refuses, in one line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedstore.errors import EmbedstoreError, StoreIOError

DEFAULT_CURE = "make room or mend the disk and run it again; what was committed is kept"


@contextmanager
def disk_errors(action: str, *, cure: str = DEFAULT_CURE) -> Iterator[None]:
    """Raise an error of the disk as :class:`StoreIOError`.

    Args:
        what: could not be done, such as ``write FILE``. so: what to do, and what holds meanwhile.

    Raises:
        StoreIOError: the disk refused.
    """
    try:
        yield
    except OSError as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise StoreIOError(f"cannot {action}: {e.strerror or e}; {cure}") from e
