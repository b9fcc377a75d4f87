"""An archive as bytes at positions: a local file, or a file on a server of which only ranges are read."""

from __future__ import annotations

import io
import os
import stat
from typing import Protocol

from embedstore.errors import ImageError
from embedstore.sources.local_files import file_failure
from embedstore.sources.remote.filesystem import is_remote, read_remote, stat_remote
from embedstore.types import FailureReason


class RangeReader(Protocol):
    """Bytes at positions; for many threads.

    Attributes:
        size: the size of the whole file, in bytes.
        version_ns: changes when the file is replaced; the modification time of a local file, in nanoseconds.
    """

    size: int
    version_ns: int

    def read(self, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes; fewer at the end of the file.

        Raises:
            ImageError: if they cannot be read.
        """


class LocalRanges:
    """Ranges of a local file.

    Args:
        path: the path of a regular file.

    Raises:
        ImageError: if the file cannot be opened.
    """

    def __init__(self, path: str) -> None:
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115, PTH123 - a path may hold surrogates; closed when forgotten
            status = os.fstat(self._file.fileno())
        except (OSError, ValueError) as e:
            raise file_failure(e) from e
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(FailureReason.NOT_A_FILE, "not a regular file")
        self.size = status.st_size
        self.version_ns = status.st_mtime_ns

    def read(self, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start``."""
        parts = []
        try:
            while length > 0 and (part := os.pread(self._file.fileno(), length, start)):
                parts.append(part)
                start, length = start + len(part), length - len(part)
        except OSError as e:
            raise file_failure(e) from e
        return b"".join(parts)


class RemoteRanges:
    """Ranges of a file on a server.

    Args:
        url: the address of the file.

    Raises:
        ImageError: if the server does not give it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        found = stat_remote(url)
        self.size, self.version_ns = found.size, found.version_ns

    def read(self, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start``."""
        end = min(start + length, self.size)
        return read_remote(self._url, start, end) if end > start else b""


def open_ranges(path: str) -> RangeReader:
    """Open a path or url.

    Raises:
        ImageError: if it cannot be opened.
    """
    return RemoteRanges(path) if is_remote(path) else LocalRanges(path)


class RangeFile(io.RawIOBase):
    """A seekable file over ranges, as ``tarfile`` and ``zipfile`` read it."""

    def __init__(self, ranges: RangeReader) -> None:
        self._ranges = ranges
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._ranges.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed: the stub names a private type
        """Read into a buffer and return how many bytes were read."""
        data = self._ranges.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
