"""Report an error of the disk as an error of the store."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedstore.errors import EmbedstoreError, OutputError, StoreIOError
from embedstore.storage.reading import cure_of
from embedstore.types import display_uri

DEFAULT_CURE = "free disk space or check the disk, then run it again; earlier commits are kept"


@contextmanager
def disk_errors(action: str, *, cure: str = DEFAULT_CURE) -> Iterator[None]:
    """Raise an error of the disk as :class:`StoreIOError`.

    Args:
        action: what failed, such as ``write FILE``.
        cure: what the user can do where the error itself does not say.

    Raises:
        StoreIOError: if the disk is full or fails.
    """
    try:
        yield
    except OSError as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise StoreIOError(f"cannot {action}: {e.strerror or e}; {cure_of(e.errno, cure)}") from e


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Create missing parent folders of a file that the user named, and report an error of the disk for that file.

    Raises:
        OutputError: if the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise OutputError(f"cannot write {path}: {e.strerror or e}") from e


@contextmanager
def duckdb_output(path: Path) -> Iterator[None]:
    """Report that DuckDB could not write a file as :class:`OSError`, as every other writer does.

    Raises:
        OSError: if the disk is full or fails, or the file may not be written.
    """
    import duckdb

    if display_uri(str(path)) != str(path):
        raise OSError(errno.EINVAL, "DuckDB writes files with names in UTF-8 only", display_uri(str(path)))
    try:
        yield
    except (duckdb.IOException, duckdb.HTTPException, duckdb.PermissionException) as e:
        raise OSError(errno.EIO, str(e).splitlines()[0].split(": ", 1)[-1], str(path)) from e
