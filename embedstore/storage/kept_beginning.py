"""The beginning of a database file and its log, kept while DuckDB opens it for writing, so that it can be put back.

DuckDB takes a file for missing if one ``stat`` fails, whatever the cause. It then removes the log and writes the header
of a new, empty database over the old one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from embedstore.storage import durable_files

_BYTES = 1 << 20  # an empty database fills less: three headers of 4 KiB, and blocks of 256 KiB


class KeptBeginning:
    """The first bytes of a database file, and an open file of its log; a context manager.

    Args:
        file: the database.
        log: its log, which may not exist.
    """

    def __init__(self, file: Path, log: Path) -> None:
        self._file, self._log = file, log
        with file.open("rb") as opened:
            self._start = opened.read(_BYTES)
        self._log_file: BinaryIO | None = None
        with suppress(FileNotFoundError):
            self._log_file = log.open("rb")

    def __enter__(self) -> KeptBeginning:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        if self._log_file is not None:
            self._log_file.close()

    def is_overwritten(self) -> bool:
        """Return whether the file begins in another way now."""
        with self._file.open("rb") as opened:
            return opened.read(_BYTES) != self._start

    def put_back(self) -> None:
        """Write both back, and force them to the disk.

        Raises:
            OSError: if the disk refuses.
        """
        if self._log_file is not None:
            self._log_file.seek(0)
            durable_files.write_synced(self._log, self._log_file.read())
        with self._file.open("r+b") as opened:
            opened.write(self._start)
            opened.flush()
            os.fsync(opened.fileno())
