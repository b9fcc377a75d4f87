"""What an error of DuckDB means for a catalog."""

from __future__ import annotations

from pathlib import Path

import duckdb

from embedstore.errors import StoreDamaged, StoreError, StoreIOError
from embedstore.storage.sql import first_line

FAILURES = (duckdb.FatalException, duckdb.IOException, duckdb.InternalException, duckdb.OutOfMemoryException)
VALUE_ERRORS = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.TypeMismatchException)
_DISK_MESSAGES = (
    "No space left", "Permission denied", "Read-only file system", "Input/output error", "Disk quota", "Too many",
    "fsync failed",
)  # fmt: skip


def is_disk_error(error: Exception) -> bool:
    """Return whether the disk is full, fails, or may not be written to."""
    return any(message in first_line(error) for message in _DISK_MESSAGES)


def concerns_file(error: duckdb.Error, file: Path) -> bool:
    """Return whether an error is about the catalog's own file, and not about a file that a user's query names."""
    text = str(error)
    return file.name in text or "Corrupt database" in text or "has been invalidated" in text


def explain(error: duckdb.Error, file: Path, action: str, *, writing: bool = False) -> StoreError:
    """Return the error that a caller raises.

    Args:
        error: the error of DuckDB.
        file: the catalog.
        action: what failed, such as ``"open"``.
        writing: whether the action writes; then only damage that DuckDB names is reported as damage.
    """
    message = f"cannot {action} {file}: {first_line(error)}"
    if is_disk_error(error):
        return StoreIOError(
            f"{message}; free disk space or check the disk, then run it again; acknowledged commits are kept"
        )
    if writing and not ("orrupt" in message or "checksum" in message):
        return StoreIOError(f"{message}; run it again; acknowledged commits are kept")
    return StoreDamaged(f"{message}; run `embedstore repair`")
