"""The names of images as users write them into tables, and the one place that turns them into paths."""

from __future__ import annotations

import functools
import os
import re
from collections import Counter
from urllib.parse import unquote_to_bytes

from embedstore.sources.local_files import existing_path
from embedstore.text_form import clean_text

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
FILE_SCHEME = "file"
REMOTE_CURE = "is not read; copy the images to a folder first"
_CACHED_FOLDERS = 64  # whose names are kept while files are looked for


def scheme_of(uri: str) -> str | None:
    """Return ``https`` of ``https://…``, in lower case; None for a path."""
    match = _SCHEME.match(uri) if "://" in uri else None
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


def names_a_path(uri: str) -> bool:
    """Return whether a uri that no file has is a path all the same: it has a folder or a suffix, and no scheme."""
    return remote_scheme(uri) is None and ("/" in uri or "\\" in uri or bool(os.path.splitext(uri)[1]))  # noqa: PTH122


def replace_parent(path: str, folder: str, to: str) -> str | None:
    """Return the path with one folder above it replaced; None if the folder is not above it."""
    prefix = folder.rstrip("/") + "/"
    return os.path.join(to, path[len(prefix) :]) if path.startswith(prefix) else None  # noqa: PTH118


class UriResolver:
    r"""The path that each uri of a table means.

    A file of exactly that name comes first. Otherwise one is taken whose name looks the same: in another Unicode normal
    form (macOS writes NFD), with other white space around it, or with ``/`` for ``\``.

    Args:
        folder: the folder that relative uris start from.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._differences: Counter[str] = Counter()
        self._first: dict[str, str] = {}
        self._names = functools.lru_cache(_CACHED_FOLDERS)(_names_in)
        self._missing_folder = functools.lru_cache(_CACHED_FOLDERS)(self._find_missing_folder)
        self._resolved = functools.lru_cache(_CACHED_FOLDERS)(self._search_folder)

    def path(self, uri: str) -> str:
        """Return the path of the file, or the path as written if there is no such file."""
        above, _, name = uri.rpartition("/")
        if "://" not in uri and name not in ("", ".", "..") and "\\" not in name:
            missing = self._missing_folder(above)
            if missing is not None:
                return missing + name
        written = local_path(uri, folder=self._folder)
        if "\\" not in written and self._resolved(written.rpartition("/")[0], False) is None:
            return written
        for path, difference in self._candidates(uri, written):
            if os.path.lexists(path):
                self._count(difference, uri)
                return path
        return written

    def near_miss(self, path: str) -> str | None:
        """Return a file whose name differs from a missing one in upper and lower case only."""
        return self._search(path, fold_case=True)

    def notes(self) -> list[str]:
        """Return one sentence per kind of difference between uris and file names."""
        return [
            f"{count:,} {'file was' if count == 1 else 'files were'} found under another spelling: the uri differs in "
            f"{difference}, first {self._first[difference]!r}"
            for difference, count in self._differences.items()
        ]

    def _candidates(self, uri: str, written: str) -> list[tuple[str, str]]:
        """Return the paths to try in order, each with what is different."""
        if os.path.lexists(written):
            return [(written, "")]
        found, others = [(existing_path(written), "escaped bytes")], [(written, "Unicode form or white space")]
        if "\\" in uri:
            slashes = local_path(uri.replace("\\", "/"), folder=self._folder)
            found.append((slashes, "backslashes"))
            others.append((slashes, "backslashes and spelling"))
        for path, difference in others:
            if near := self._search(path, fold_case=False):
                found.append((near, difference))
        return [(path, difference) for path, difference in found if path != written]

    def _search(self, path: str, *, fold_case: bool) -> str | None:
        """Return the only file whose path looks like this one, None if there is none or several."""
        folder, _, name = path.rpartition("/")
        found = self._resolved(folder, fold_case)
        if found is None:
            return None
        exact = os.path.join(found, name)  # noqa: PTH118
        if os.path.lexists(exact):
            return exact
        alike = self._names(found, fold_case).get(_key(name, fold_case), [])
        return os.path.join(found, alike[0]) if len(alike) == 1 else None  # noqa: PTH118

    def _find_missing_folder(self, above: str) -> str | None:
        """Return what a file's path begins with if the folder that its uri names does not exist, else None.

        Args:
            above: the uri, which has no scheme, without the file's name.
        """
        written = local_path(f"{above}/.", folder=self._folder)
        is_there = above == "" or "\\" in written or self._resolved(written, False) is not None
        return None if is_there else written + "/"

    def _search_folder(self, folder: str, fold_case: bool) -> str | None:
        """Return the only folder whose path looks like this one; it is looked for once, not for every file in it."""
        return self._search(folder, fold_case=fold_case) if folder else "/"

    def _count(self, difference: str, uri: str) -> None:
        if difference:
            self._differences[difference] += 1
            self._first.setdefault(difference, uri)


def _names_in(folder: str, fold_case: bool) -> dict[str, list[str]]:
    """Return the names in a folder by the form in which they are compared."""
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):  # noqa: PTH208
            names.setdefault(_key(name, fold_case), []).append(name)
    except OSError:
        return {}
    return names


def _key(name: str, fold_case: bool) -> str:
    """Return the form of a name in which files are looked for."""
    return clean_text(name).casefold() if fold_case else clean_text(name)
