"""A compressed tar as bytes at positions: it is decompressed forward, and from its begin again to go back.

What was decompressed last is kept, so that threads that read its members side by side, each a little ahead of another,
cost one pass together.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import threading
import zlib
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any

from embedstore.errors import ImageError
from embedstore.sources.archives.range_file import RangeFile, RangeReader
from embedstore.types import FailureReason

WINDOW_BYTES = 160 << 20  # that are kept: what the stage that reads may be ahead, two groups of files and a large one
MAX_WINDOWS = 2  # archives that keep theirs at once
CHUNK_BYTES = 1 << 20
BUFFER_BYTES = 256 << 10  # one range of a server
MAX_RATIO = 200  # images hardly shrink; a bomb of zeros expands a thousandfold
FREE_BYTES = 1 << 30  # that an archive may expand to in any case

_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)  # of gzip, of any, of gzip, of xz; bz2 raises OSError


class DecompressedRanges:
    """Ranges of what a compressed file holds; for many threads.

    Args:
        file: the compressed file.
        compression: how it is compressed.

    Attributes:
        size: more than what it holds, which is not known before it was read.
        version_ns: that of the compressed file.
        failure: why it cannot be read on, where that was found.

    Raises:
        ImageError: if the package of the compression is not installed.
    """

    def __init__(self, file: RangeReader, compression: str) -> None:
        self.version_ns = file.version_ns
        self.size = FREE_BYTES + MAX_RATIO * file.size
        self._file = file
        self._open = _opener(compression)
        self.failure: ImageError | None = None
        self._lock = threading.Lock()
        self._stream: IO[bytes] | None = None
        self._chunks: deque[tuple[int, bytes]] = deque()  # position and bytes
        self._position = 0  # of the stream

    def read(self, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``start``; fewer at the end, and where the file cannot be read on.

        Raises:
            ImageError: if there are none because the file is damaged, ends early, or expands too much.
        """
        _activate(self)
        with self._lock:
            if self._stream is None or start < (self._chunks[0][0] if self._chunks else self._position):
                self._restart()
            while self._position < start + length and self._advance(start):
                pass
            parts = [
                chunk[max(0, start - at) : start + length - at]
                for at, chunk in self._chunks
                if at < start + length and at + len(chunk) > start
            ]
            failure = self.failure
        if not parts and length and failure is not None:
            raise failure
        return b"".join(parts)

    def release(self) -> None:
        """Forget what was decompressed, unless another thread is reading."""
        if self._lock.acquire(blocking=False):
            self._close()
            self._lock.release()

    def _restart(self) -> None:
        """Begin again."""
        self._close()
        self._stream = self._open(io.BufferedReader(RangeFile(self._file), BUFFER_BYTES))

    def _close(self) -> None:
        """Forget the stream and what it gave."""
        self._stream, self._position = None, 0
        self._chunks.clear()

    def _advance(self, needed: int) -> bool:
        """Decompress one chunk, and forget what is neither needed nor within the window; return False at the end."""
        if self._position > self.size:
            detail = f"the archive expands to more than {MAX_RATIO} times its size; unpack it if it is no bomb"
            self.failure = ImageError(FailureReason.TOO_LARGE, detail)
            return False
        chunk = self._next_chunk()
        if not chunk:
            return False
        self._chunks.append((self._position, chunk))
        self._position += len(chunk)
        while len(self._chunks) > 1 and self._chunks[1][0] <= needed and self._kept_bytes > WINDOW_BYTES:
            self._chunks.popleft()
        return True

    @property
    def _kept_bytes(self) -> int:
        """How many bytes are kept."""
        return self._position - self._chunks[0][0]

    def _next_chunk(self) -> bytes:
        """Return the next bytes of the stream; none at its end, and where it cannot be read on."""
        stream: Any = self._stream
        try:
            data: bytes = stream.read1(CHUNK_BYTES)
        except ImageError:
            raise
        except EOFError as e:
            self.failure = ImageError(FailureReason.TRUNCATED, f"the archive ends early: {e}")
            return b""
        except Exception as e:
            if isinstance(e, _BROKEN) or type(e).__name__ == "ZstdError":
                self.failure = ImageError(FailureReason.CORRUPT, f"the archive cannot be decompressed: {e}")
                return b""
            raise
        return data


def _opener(compression: str) -> Callable[[io.BufferedReader], Any]:
    """Return what opens a compressed stream.

    Raises:
        ImageError: if the package of the compression is not installed.
    """
    if compression == "gzip":
        return lambda file: gzip.GzipFile(fileobj=file)
    if compression == "bzip2":
        return bz2.BZ2File
    if compression == "xz":
        return lzma.LZMAFile
    try:
        import zstandard
    except ImportError:
        cure = "run `pip install 'embedstore[zstd]'` and embed again"
        raise ImageError(FailureReason.MISSING_EXTRA, f"the archive needs the package zstandard; {cure}") from None
    return lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


_active_lock = threading.Lock()  # held for moments only, and a forked child gets a new one
_active: list[DecompressedRanges] = []


def _activate(ranges: DecompressedRanges) -> None:
    """Note which archives are being read; the one that was read longest ago forgets what it decompressed."""
    with _active_lock:
        with suppress(ValueError):
            _active.remove(ranges)
        _active.append(ranges)
        oldest = _active.pop(0) if len(_active) > MAX_WINDOWS else None
    if oldest is not None:
        oldest.release()


def _leave_parent() -> None:
    """Get a new lock in a forked child, and forget what the parent decompressed."""
    global _active_lock  # noqa: PLW0603 - the archives are of the whole process
    _active_lock = threading.Lock()
    _active.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_parent)
