"""The folder of re-encoded images in a store: derived, of limited size, and safe to delete at any time.

A file is named by its content and size, so it never becomes stale. The folder may come from somebody else: nothing in
it is followed or believed to be more than a WebP.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from embedstore.errors import UnsafeStore
from embedstore.storage.store_files import read_bounded

MAX_CACHE_BYTES = 1 << 30  # about 100,000 thumbnails of 256 pixels
_MAX_FILE_BYTES = 16 << 20
_KEPT_SHARE = 0.8  # of the limit, after files were removed
_NAME = re.compile(r"[0-9a-f]{32}-[0-9]{1,5}\.webp")


class ThumbnailCache:
    """The cached images of one store. Threads may share it; where the folder cannot be written to, it stays empty.

    Args:
        folder: the folder; it is created with the first file.
        max_bytes: the limit of all files together.
    """

    def __init__(self, folder: Path, *, max_bytes: int = MAX_CACHE_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._bytes: int | None = None  # of all files, as far as this process knows
        self._lock = threading.Lock()

    def get(self, content: str, size: int) -> bytes | None:
        """Return the cached image of a content, None if there is none."""
        if not self._is_usable():
            return None
        path = self._path(content, size)
        try:
            data = read_bounded(path, _MAX_FILE_BYTES)
        except (OSError, ValueError, UnsafeStore):
            return None
        with suppress(OSError):
            os.utime(path)  # the oldest are removed first
        return data if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None

    def put(self, content: str, size: int, data: bytes) -> None:
        """Cache an image; a disk that is full or cannot be written to is no error."""
        path = self._path(content, size)
        temporary = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            self._folder.mkdir(exist_ok=True, parents=True)
            if not self._is_usable():
                return
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o644)
            with os.fdopen(descriptor, "wb") as f:
                f.write(data)
            temporary.replace(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return
        self._count(len(data))

    def remove(self, contents: Iterable[str]) -> None:
        """Delete the images of some contents.

        Raises:
            OSError: if one cannot be deleted.
        """
        wanted = set(contents)
        for path in self._files():
            if path.name[:32] in wanted:
                path.unlink(missing_ok=True)

    def _path(self, content: str, size: int) -> Path:
        """Return the file of a content at a size."""
        name = f"{content}-{size}.webp"
        if not _NAME.fullmatch(name):
            raise UnsafeStore(f"{content!r} is not the digest of a content; run `embedstore verify STORE`")
        return self._folder / name

    def _is_usable(self) -> bool:
        """Return whether the folder is a folder of the store, and no link."""
        return self._folder.is_dir() and not any(p.is_symlink() for p in (self._folder, self._folder.parent))

    def _files(self) -> list[Path]:
        """Return the cached files, and temporary ones that a killed process left."""
        if not self._is_usable():
            return []
        return [p for p in self._folder.iterdir() if _NAME.match(p.name) and not p.is_symlink()]

    def _count(self, added: int) -> None:
        """Count the bytes of a new file, and remove the oldest files if there are too many bytes."""
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(_size(p) for p in self._files())
            else:
                self._bytes += added
            if self._bytes > self._max_bytes:
                self._bytes = _remove_oldest(self._files(), int(self._max_bytes * _KEPT_SHARE))


def _size(path: Path) -> int:
    """Return the size of a file; 0 if it is gone."""
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _remove_oldest(files: list[Path], max_bytes: int) -> int:
    """Remove the files that were used longest ago until the others fit, and return their bytes."""
    facts = []
    for path in files:
        with suppress(OSError):
            s = path.lstat()
            facts.append((s.st_mtime_ns, s.st_size, path))
    total = sum(size for _, size, _ in facts)
    for _, size, path in sorted(facts):
        if total <= max_bytes:
            break
        with suppress(OSError):
            path.unlink()
            total -= size
    return total
