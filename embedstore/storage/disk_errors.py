"""What a disk refuses, in one line of ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from embedstore.errors import EmbedstoreError, StoreFailed

MEND = "make room or mend the disk and run it again; what was committed is kept"


@contextmanager
def said(what: str, *, so: str = MEND) -> Iterator[None]:
    """Raise an error of the disk as :class:`StoreFailed`.

    Args:
        what: could not be done, such as ``write FILE``. so: what to do, and what holds meanwhile.

    Raises:
        StoreFailed: the disk refused.
    """
    try:
        yield
    except OSError as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise StoreFailed(f"cannot {what}: {e.strerror or e}; {so}") from e
