"""The names of images as users write them into tables."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_to_bytes

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
FILE_SCHEME = "file"
REMOTE_CURE = "is not read; copy the images to a folder first"


def scheme_of(uri: str) -> str | None:
    """Return ``https`` of ``https://…``, in lower case; None for a path."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else None


def remote_scheme(uri: str) -> str | None:
    """Return the scheme of a uri that is not on this machine; None for a local one."""
    scheme = scheme_of(uri)
    return None if scheme == FILE_SCHEME else scheme


def local_path(uri: str, *, folder: str) -> str:
    """Return the absolute path that a path or ``file://`` uri means, without resolving links.

    Args:
        uri: as written; after ``file://`` it is percent-encoded (RFC 8089).
        folder: the folder that a relative path starts from.
    """
    if scheme_of(uri) == FILE_SCHEME:
        uri = os.fsdecode(unquote_to_bytes(uri.split("://", 1)[1].removeprefix("localhost")))
    return os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118


def replace_parent(path: str, folder: str, to: str) -> str | None:
    """Return the path with one folder above it replaced; None if the folder is not above it."""
    prefix = folder.rstrip("/") + "/"
    return os.path.join(to, path[len(prefix) :]) if path.startswith(prefix) else None  # noqa: PTH118
