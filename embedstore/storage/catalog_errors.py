"""What an error of DuckDB means for a catalog."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb

from embedstore.errors import StoreBusy, StoreDamaged, StoreError, StoreIOError, StoreTooNew, StoreUnreadable
from embedstore.storage.file_lock import NO_LOCK_CODES, no_locks
from embedstore.storage.reading import passing_error
from embedstore.storage.sql import first_line

FAILURES = (duckdb.FatalException, duckdb.IOException, duckdb.InternalException, duckdb.OutOfMemoryException)
VALUE_ERRORS = (duckdb.ConversionException, duckdb.OutOfRangeException, duckdb.TypeMismatchException)
_DISK_MESSAGES = (
    "No space left", "Permission denied", "Read-only file system", "Input/output error", "Disk quota", "Too many",
    "fsync failed",
)  # fmt: skip
_NO_MEMORY = ("Out of Memory", "bad_alloc", "failed to allocate")
_NO_LOCKS = tuple(os.strerror(code) for code in NO_LOCK_CODES)
_LATER_VERSION = ("we can only read", "newer version of DuckDB", "latest version supported")


def is_disk_error(error: Exception) -> bool:
    """Return whether the disk is full, fails, or may not be written to."""
    return any(message in first_line(error) for message in _DISK_MESSAGES)


def concerns_file(error: duckdb.Error, file: Path) -> bool:
    """Return whether an error is about the catalog's own file, and not about a file that a user's query names."""
    text = str(error)
    return file.name in text or "Corrupt database" in text or "has been invalidated" in text


def read_problem(error: duckdb.Error, file: Path) -> StoreUnreadable | None:
    """Return the error for a catalog that cannot be read now; None if it was read and found wrong."""
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException) or any(m.lower() in text.lower() for m in _NO_MEMORY):
        return StoreUnreadable(f"cannot read {file} now: out of memory; free memory and run it again")
    if isinstance(error, duckdb.InterruptException):
        return StoreUnreadable(f"cannot read {file} now: the query was interrupted; run it again")
    return passing_error(file, text)


def lock_problem(error: duckdb.Error, file: Path) -> StoreError | None:
    """Return the error for a catalog that cannot be locked, however long one waits; None for other errors."""
    text = str(error)
    if "Unique file handle conflict" in text:
        return StoreBusy(f"{file} is open in this process, through another connection of DuckDB; close that one")
    if "Could not set lock" in text and any(reason in text for reason in _NO_LOCKS):
        return no_locks(file)
    return None


def explain(error: duckdb.Error, file: Path, action: str, *, writing: bool = False) -> StoreError:
    """Return the error that a caller raises.

    Args:
        error: the error of DuckDB.
        file: the catalog.
        action: what failed, such as ``"open"``.
        writing: whether the action writes; then only damage that DuckDB names is reported as damage.
    """
    message = f"cannot {action} {file}: {first_line(error)}"
    if problem := lock_problem(error, file):
        return problem
    if any(text in str(error) for text in _LATER_VERSION):
        return StoreTooNew(f"{message}; a later DuckDB wrote it: run `pip install -U duckdb embedstore`")
    if not writing and (unreadable := read_problem(error, file)):
        return unreadable
    if is_disk_error(error):
        return StoreIOError(
            f"{message}; free disk space or check the disk, then run it again; acknowledged commits are kept"
        )
    if writing and not ("orrupt" in message or "checksum" in message):
        return StoreIOError(f"{message}; run it again; acknowledged commits are kept")
    return StoreDamaged(f"{message}; run `embedstore repair STORE`")
