"""Map a file as an array of bytes without keeping a file descriptor, so thousands of files can be mapped at once.

Python's own ``mmap`` keeps a duplicate of the descriptor before 3.13 (``trackfd``), and a process may have 1,024.
A mapped file stays readable after another process unlinked it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.resources import memory_share
from embedstore.storage.store_files import open_regular

MAX_IN_MEMORY_BYTES = 1 << 30  # up to which a matrix is an ordinary array; above, a mapped temporary file


def empty_matrix(rows: int, dim: int) -> NDArray[np.float32]:
    """Return an empty float32 array; a large one is in a temporary file that disappears with its last reader.

    Large is more than 1 GiB, or than an eighth of the memory of this process where that is less.
    """
    if rows * dim * 4 <= memory_share(MAX_IN_MEMORY_BYTES, 8):
        return np.empty((rows, dim), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="embedstore-features-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, dim))


def map_file(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the first bytes of a file: uint8 ``(size,)``, read-only, loaded when they are accessed.

    Raises:
        OSError: if the file cannot be opened or mapped.
    """
    if os.name == "nt":
        return np.memmap(path, np.uint8, "r", shape=(size,))
    fd = open_regular(path)
    try:
        return np.asarray(_Map(fd, size))
    finally:
        os.close(fd)


def read_whole(path: Path, size: int) -> NDArray[np.uint8]:
    """Return the first bytes of a file in memory: uint8 ``(size,)``, read-only.

    Raises:
        OSError: if the file cannot be read.
        EOFError: if the file has fewer bytes.
    """
    data = np.empty(size, np.uint8)
    rest = data.data
    with path.open("rb", buffering=0) as f:
        while rest and (count := f.readinto(rest)):
            rest = rest[count:]
    if rest:
        raise EOFError(f"{path} has {size - len(rest)} bytes instead of {size}")
    data.flags.writeable = False
    return data


def release_pages(rows: NDArray[Any]) -> None:
    """Release the pages of a mapped array from this process's memory; later reads come from the page cache.

    The first and the last page may belong to a neighbor, and stay. Only Linux has this call.
    """
    if not sys.platform.startswith("linux"):
        return
    import mmap

    start = -(-rows.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (rows.ctypes.data + rows.nbytes - start) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        _libc().madvise(start, length, mmap.MADV_DONTNEED)


class _Map:
    """One mapping, which ends with the last array over it."""

    def __init__(self, fd: int, size: int) -> None:
        import mmap

        address = _libc().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._address, self._size = address, size
        self._unmap = _libc().munmap  # looked up now: names may be gone when the interpreter exits
        self.__array_interface__: dict[str, Any] = {
            "version": 3, "data": (address, True), "shape": (size,), "typestr": "|u1"
        }  # fmt: skip

    def __del__(self) -> None:
        if hasattr(self, "_unmap") and not sys.is_finalizing():
            self._unmap(self._address, self._size)


@cache
def _libc() -> Any:
    """Return the C library with the argument types of the calls."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong
    ]  # fmt: skip
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc
