"""Names of images as people write them into tables."""

from __future__ import annotations

import os
import re
from urllib.parse import unquote_to_bytes

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
FILE_SCHEME = "file"
REMOTE_CURE = "is not read; copy the images to a folder first"


def scheme_of(uri: str) -> str | None:
    """``https`` of ``https://…``, in lower case; None of a path."""
    found = _SCHEME.match(uri)
    return found[1].lower() if found else None


def remote_scheme(uri: str) -> str | None:
    """The scheme of a uri that names something outside this machine."""
    scheme = scheme_of(uri)
    return None if scheme == FILE_SCHEME else scheme


def local_path(uri: str, *, folder: str) -> str:
    """The absolute path that a path or ``file://`` uri means, links kept.

    Args:
        uri: as written; after ``file://`` it is percent-encoded (RFC 8089).
        folder: what a relative path is relative to.
    """
    if scheme_of(uri) == FILE_SCHEME:
        uri = os.fsdecode(unquote_to_bytes(uri.split("://", 1)[1].removeprefix("localhost")))
    return os.path.normpath(os.path.join(folder, uri))  # noqa: PTH118


def replace_parent(path: str, folder: str, to: str) -> str | None:
    """The path with one folder above it replaced; None where it is not above."""
    prefix = folder.rstrip("/") + "/"
    return os.path.join(to, path[len(prefix) :]) if path.startswith(prefix) else None  # noqa: PTH118
