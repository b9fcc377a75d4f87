"""One file on a server: its size, version and bytes.

fsspec reads every scheme; the package of a scheme is an extra (``s3fs`` for ``s3://``). The packages of buckets try
again by themselves what may pass; HTTP is tried again here.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any, TypeVar

from embedstore.errors import ImageError, MissingExtra, SourceError, SourceNotFound
from embedstore.sources.local_files import check_size
from embedstore.sources.uris import scheme_of
from embedstore.types import FailureReason

T = TypeVar("T")

SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}  # scheme -> extra that reads it
ATTEMPTS = 4  # by HTTP
FIRST_DELAY_SECONDS = 0.25  # doubled after every attempt, with up to half of it added at random
_ABSENT = (404, 410)  # RFC 9110, 15.5.5 and 15.5.11
_LASTING = (FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError, ValueError)
_NANOSECONDS = 1_000_000_000  # of a second


@dataclass(frozen=True, slots=True)
class RemoteStat:
    """What a server says of a file.

    Attributes:
        size: in bytes; 0 where the server does not say.
        version_ns: the modification time in nanoseconds. S3 gives whole seconds; the digits below come from the ETag,
            so that a file that is replaced within a second, or whose server gives no time, has another version.
    """

    size: int
    version_ns: int


@dataclass(frozen=True, slots=True)
class RemoteEntry:
    """One file or folder of a listing.

    Attributes:
        url: the address with its scheme.
        name: the last part of the url.
        is_folder: whether it is a folder.
        stat: its size and version.
    """

    url: str
    name: str
    is_folder: bool
    stat: RemoteStat


def is_remote(uri: str) -> bool:
    """Return whether a uri names a file on a server that can be read."""
    return scheme_of(uri) in SCHEMES


def stat_remote(url: str) -> RemoteStat:
    """Return size and version of a file.

    Raises:
        ImageError: if there is no such file, or the server does not give it.
    """
    fs = _open_filesystem(url)
    return _stat(_as_image_error(lambda: _retry(url, lambda: fs.info(url))))


def read_remote(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of a file, or those from ``start`` to before ``end``.

    Raises:
        ImageError: if there is no such file, it is too large, or the server does not give it.
    """
    fs = _open_filesystem(url)
    if start is None:
        check_size(stat_remote(url).size)
    data: bytes = _as_image_error(lambda: _retry(url, lambda: fs.cat_file(url, start=start, end=end)))
    if not data and start is None:
        raise ImageError(FailureReason.EMPTY, "the file has no bytes")
    return data


def is_remote_file(url: str) -> bool:
    """Return whether a url names a file; what it names in a bucket is what the server says, not what it looks like.

    Raises:
        SourceNotFound: if a bucket has neither a file nor a folder of that name.
        SourceError: if the server refuses or does not answer.
    """
    if scheme_of(url) in ("http", "https"):
        return True  # web servers have no folders that could be listed
    fs = _open_filesystem(url)
    entry = _as_source_error(url, lambda: _retry(url, lambda: fs.info(url)))
    return bool(entry["type"] == "file")


def list_folder(url: str) -> list[RemoteEntry]:
    """Return the files and folders directly below a url, by name.

    Raises:
        SourceNotFound: if there is nothing.
        SourceError: if the server refuses or does not answer.
    """
    fs = _open_filesystem(url)
    entries = _as_source_error(url, lambda: _retry(url, lambda: fs.ls(url, detail=True, refresh=True)))
    listed = (_entry(url, entry) for entry in entries)
    return sorted((e for e in listed if e.name and e.url.rstrip("/") != url.rstrip("/")), key=lambda e: e.name)


def glob_remote(pattern: str) -> Iterator[RemoteEntry]:
    """Yield the files that match a pattern of fsspec: ``*``, ``?``, ``[a-z]``, ``**``; by name.

    Raises:
        SourceError: if the server refuses or does not answer.
    """
    fs = _open_filesystem(pattern)
    found: dict[str, dict[str, Any]] = _as_source_error(
        pattern, lambda: _retry(pattern, lambda: fs.glob(pattern, detail=True, refresh=True))
    )
    for _, entry in sorted(found.items()):
        listed = _entry(pattern, entry)
        if not listed.is_folder:
            yield listed


def forget_connections() -> None:
    """Forget the connections and listings of this process, so that changed credentials are used."""
    _filesystem.cache_clear()


if hasattr(os, "register_at_fork"):  # the event loop of the connections stays in the parent
    os.register_at_fork(after_in_child=forget_connections)


def _open_filesystem(url: str) -> Any:
    """Return the file system of a url's scheme."""
    scheme = scheme_of(url) or ""
    if scheme not in SCHEMES:
        readable = ", ".join(f"{name}://" for name in SCHEMES)
        raise SourceNotFound(f"{url}: {scheme}:// is not read; use a path or one of {readable}")
    return _filesystem(scheme)


@cache
def _filesystem(scheme: str) -> Any:
    """Return the file system of a scheme; threads share it, since fsspec runs its requests on one event loop."""
    import fsspec

    try:
        return fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True)
    except ImportError as e:
        extra = SCHEMES[scheme]
        raise MissingExtra(
            f"{scheme}:// needs a package that is not installed; run `pip install 'embedstore[{extra}]'`"
        ) from e


def _entry(url: str, entry: dict[str, Any]) -> RemoteEntry:
    """Return an entry of a listing with its scheme."""
    name = str(entry["name"])
    full = name if scheme_of(name) else f"{scheme_of(url)}://{name}"
    return RemoteEntry(full, full.rstrip("/").rsplit("/", 1)[-1], entry.get("type") == "directory", _stat(entry))


def _stat(entry: dict[str, Any]) -> RemoteStat:
    """Return size and version from what fsspec gives of a file."""
    changed = entry.get("LastModified") or entry.get("mtime") or entry.get("updated")
    if isinstance(changed, datetime):
        changed = changed.timestamp()
    seconds = int(changed) if isinstance(changed, int | float) else 0
    tag = str(entry.get("ETag") or entry.get("etag") or "")
    digits = int.from_bytes(sha256(tag.encode()).digest()[:8], "big") % _NANOSECONDS if tag else 0
    return RemoteStat(int(entry.get("size") or 0), seconds * _NANOSECONDS + digits)


def _retry(url: str, call: Callable[[], T]) -> T:
    """Call, and by HTTP again after a growing pause where the error may pass."""
    for attempt in range(ATTEMPTS - 1 if url.startswith("http") else 0):
        try:
            return _call(url, call)
        except _LASTING:
            raise
        except Exception:  # fsspec's packages raise errors of every type
            delay = FIRST_DELAY_SECONDS * 2**attempt
            time.sleep(delay * (1 + random.random() / 2))  # noqa: S311 - not for security
    return _call(url, call)


def _call(url: str, call: Callable[[], T]) -> T:
    """Call; by HTTP fsspec reports whatever went wrong as an absent file, and the cause is raised in its place."""
    try:
        return call()
    except FileNotFoundError as e:
        cause = e.__cause__
        is_absent = isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in _ABSENT
        if url.startswith("http") and isinstance(cause, Exception) and not is_absent:
            raise cause from None
        raise


def _as_image_error(call: Callable[[], T]) -> T:
    """Call, and raise what the file system raises as ImageError."""
    try:
        return call()
    except FileNotFoundError as e:
        raise ImageError(FailureReason.MISSING, "the server has no such file") from e
    except Exception as e:  # fsspec's packages raise errors of every type
        raise ImageError(FailureReason.UNREACHABLE, _one_line(e)) from e


def _as_source_error(url: str, call: Callable[[], T]) -> T:
    """Call, and raise what the file system raises as an error of the source."""
    try:
        return call()
    except FileNotFoundError as e:
        raise SourceNotFound(f"{url} does not exist") from e
    except Exception as e:  # fsspec's packages raise errors of every type
        raise SourceError(f"{url} cannot be listed: {_one_line(e)}; check the address and the credentials") from e


def _one_line(e: Exception) -> str:
    """Return the type and message of an error in one line."""
    return f"{type(e).__name__}: {' '.join(str(e).split())}"[:300]
