"""The standard streams of a command: any text can be printed, and a result that cannot be written is an error."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from embedstore.errors import OutputError

_STANDARD_DESCRIPTORS = (0, 1, 2)


class _ClosedOutput:
    """A stream that the caller closed: it fails as the stream would if anything was printed."""

    encoding, closed = "utf-8", False

    def __init__(self) -> None:
        self._lost = False

    def write(self, text: str) -> int:
        """Drop the text."""
        self._lost = self._lost or bool(text)
        return len(text)

    def isatty(self) -> bool:
        """Return whether it is a terminal."""
        return False

    def flush(self) -> None:
        """Raise OSError if text was dropped."""
        if self._lost:
            raise OSError(errno.EBADF, "it is closed")


class _CheckedOutput:
    """A stream whose write errors are ours: an OSError of a verb could otherwise be about any file.

    A library may swallow the first error, so every later call raises it again.

    Args:
        stream: standard output.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._error: OutputError | None = None

    def write(self, text: str) -> int:
        """Write text."""
        with self._reported():
            return self._stream.write(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        with self._reported():
            self._stream.flush()
            if hasattr(self._stream, "buffer"):
                self._stream.buffer.write(data)
            else:
                self._stream.write(os.fsdecode(data))

    def flush(self) -> None:
        """Write what is buffered."""
        with self._reported():
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Report that standard output cannot be written; a reader that closed it is no error of ours."""
        if self._error is not None:
            raise self._error
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as e:
            _discard_output()
            self._error = OutputError(f"cannot write the result to standard output: {e.strerror or e}")
            raise self._error from e


@contextmanager
def checked_streams() -> Iterator[None]:
    """Make the standard streams usable, however the command was started, and write everything at the end.

    A closed descriptor is opened on the null device, so that no file of a store gets its number. A character that the
    encoding of a stream lacks is printed as an escape.

    Raises:
        OutputError: if the result, or a part of it, could not be written.
        BrokenPipeError: if the reader of the result closed it.
    """
    _open_closed_descriptors()
    before = sys.stdout
    sys.stdout, sys.stderr = _or_closed(sys.stdout), _or_dropped(sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.stdout = cast("TextIO", _CheckedOutput(sys.stdout))
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        finally:
            sys.stdout = before


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output, as they are; only inside :func:`checked_streams`."""
    cast("_CheckedOutput", sys.stdout).write_bytes(data)


def is_utf8(stream: TextIO) -> bool:
    """Return whether a stream can hold every character."""
    return (stream.encoding or "utf-8").lower().replace("-", "").replace("_", "").startswith("utf")


def _or_closed(stream: TextIO | None) -> TextIO:
    """Return a stream; Python has None for one whose descriptor was closed when it started."""
    return cast("TextIO", _ClosedOutput()) if stream is None else stream


def _or_dropped(stream: TextIO | None) -> TextIO:
    """Return a stream, or one that drops its text: messages that nobody wants to read are no error."""
    return open(os.devnull, "w", encoding="utf-8") if stream is None else stream  # noqa: PTH123 - for the process


def _open_closed_descriptors() -> None:
    """Open the null device on every standard descriptor that is closed."""
    for descriptor in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one


def _discard_output() -> None:
    """Let the interpreter's last flush succeed."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
