"""Files on this machine: their facts and their bytes. Only sources open the path of an image."""

from __future__ import annotations

import errno
import os
import re
import stat

from embedstore.errors import ImageError
from embedstore.resources import memory_share
from embedstore.types import Failure, FailureReason, ImageRef, display_uri

MAX_FILE_BYTES = 1 << 30  # twice the uncompressed RGB pixels of the largest image that is decoded

_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")
_FILE_KINDS = {"p": "FIFO", "s": "socket", "c": "character device", "b": "block device", "d": "folder"}


def existing_path(uri: str) -> str:
    r"""Return the path of the file that a uri of :func:`~embedstore.types.display_uri` names.

    It is the uri itself, unless no file has that name and one does where every ``\xNN`` is the byte that it stands for.
    """
    if "\\x" not in uri or os.path.lexists(uri):
        return uri
    path = os.fsdecode(_ESCAPED_BYTE.sub(lambda m: bytes.fromhex(m[1].decode()), os.fsencode(uri)))
    return path if os.path.lexists(path) else uri


def is_local_file(path: str) -> bool:
    """Return whether a path, as ``os.fsdecode`` gives it, is that of a file on this machine."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for a uri that is too long for a path


def read_file(path: str) -> bytes:
    """Return the bytes of a regular file; refuse a FIFO, socket or device before it can block.

    Args:
        path: as ``os.fsdecode`` gives it.

    Raises:
        ImageError: if the file is missing, unreadable, not a regular file, empty or too large.
    """
    try:
        _require_regular(os.stat(path).st_mode)  # noqa: PTH116 - a path may hold surrogates; opening a device may act
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
        try:
            status = os.fstat(fd)
            _require_regular(status.st_mode)  # it may have been replaced in between
            check_size(status.st_size)
            data = _read_all(fd, status.st_size)
        finally:
            os.close(fd)
    except ImageError:
        raise
    except (OSError, ValueError) as e:
        raise file_failure(e) from e
    except MemoryError as e:
        raise ImageError(FailureReason.NO_MEMORY, "the file does not fit into memory") from e
    if not data:
        raise ImageError(FailureReason.EMPTY, "the file has no bytes")
    return data


def _read_all(fd: int, size: int) -> bytes:
    """Return the first ``size`` bytes of an open file, or all if it is shorter, mostly by one call."""
    data = os.read(fd, size)
    if len(data) == size or not data:
        return data
    parts = [data]  # a signal, or more than 2 GiB; a network file system may give less at once
    while data and (left := size - sum(map(len, parts))):
        data = os.read(fd, left)
        parts.append(data)
    return b"".join(parts)


def check_size(size: int) -> None:
    """Refuse the bytes of an image that are too many to be read at once.

    Args:
        size: bytes of the file, of the member of an archive or of the value of a table.

    Raises:
        ImageError: if it is larger than :data:`MAX_FILE_BYTES`, or than a quarter of the memory of this process.
    """
    if size > MAX_FILE_BYTES:
        raise ImageError(FailureReason.TOO_LARGE, f"the file has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}")
    if size > (most := max_file_bytes()):
        detail = (
            f"the file has {size:,} bytes; in the memory of this process, files of up to {most:,} bytes can be read"
        )
        raise ImageError(FailureReason.NO_MEMORY, detail)


def max_file_bytes() -> int:
    """Return the most bytes of an image file that are read."""
    return memory_share(MAX_FILE_BYTES, 4)


def stat_file(
    path: str, label: str | None = None, split: str | None = None, group: str | None = None
) -> ImageRef | Failure:
    """Return the reference of one named file, following a link to a file, or why there is none."""
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            return _follow_link(path, status, label, split, group)
    except (OSError, ValueError) as e:
        return unreadable_path(path, e)
    if stat.S_ISREG(status.st_mode):
        return ImageRef(display_uri(path), path, status.st_size, stored_mtime_ns(status), label, split, group)
    return failed_entry(path, status, FailureReason.NOT_A_FILE, f"a {_file_kind(status.st_mode)}, not a file")


def stored_mtime_ns(status: os.stat_result) -> int:
    """Return a modification time in nanoseconds as 64 bits hold it.

    The years 1677 to 2262 are unchanged. Others wrap around as two's complement, so that a change is still seen.
    """
    return (status.st_mtime_ns + 2**63) % 2**64 - 2**63


def file_failure(error: OSError | ValueError) -> ImageError:
    """Return the error of a file that the operating system refuses."""
    return ImageError(_reason(error), _detail(error))


def unreadable_path(path: str, error: OSError | ValueError) -> Failure:
    """Return the failure of a path that the operating system refuses."""
    return Failure(display_uri(path), path, 0, 0, _reason(error), _detail(error))


def failed_entry(path: str, status: os.stat_result, reason: FailureReason, detail: str) -> Failure:
    """Return the failure of a directory entry that exists."""
    return Failure(display_uri(path), path, status.st_size, stored_mtime_ns(status), reason, detail)


def _follow_link(
    path: str, link: os.stat_result, label: str | None, split: str | None, group: str | None
) -> ImageRef | Failure:
    """Return the reference of the file that a link leads to, or why it is not embedded."""
    try:
        target = os.stat(path)  # noqa: PTH116
    except OSError as e:
        return failed_entry(path, link, _reason(e), f"a link that leads nowhere: {e.strerror}")
    if stat.S_ISDIR(target.st_mode):
        detail = "a link to a folder; name that folder itself to embed it"
        return failed_entry(path, link, FailureReason.NOT_FOLLOWED, detail)
    if not stat.S_ISREG(target.st_mode):
        return failed_entry(path, link, FailureReason.NOT_A_FILE, "a link to something that is not a file")
    return ImageRef(display_uri(path), path, target.st_size, stored_mtime_ns(target), label, split, group)


def _require_regular(mode: int) -> None:
    """Raise ImageError unless the mode is a regular file's."""
    if not stat.S_ISREG(mode):
        raise ImageError(FailureReason.NOT_A_FILE, f"a {_file_kind(mode)}, not a file")


def _file_kind(mode: int) -> str:
    """Name what is not a regular file."""
    return _FILE_KINDS.get(stat.filemode(mode)[0], "special file")


def _reason(error: OSError | ValueError) -> FailureReason:
    """Return the reason behind what the operating system raised; a ValueError is a name that no file can have."""
    code = error.errno if isinstance(error, OSError) else errno.ENOENT
    if code in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return FailureReason.MISSING
    if code in (errno.ENXIO, errno.EISDIR, errno.ENODEV):
        return FailureReason.NOT_A_FILE
    return FailureReason.UNREADABLE


def _detail(error: OSError | ValueError) -> str:
    """Return one line that says what the operating system refused."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"not a possible file name: {error}"
