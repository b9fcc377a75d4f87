"""Where the photos are that annotations name, and the split that the names of their files state."""

from __future__ import annotations

import os
import re

from embedstore.errors import BadAnnotations
from embedstore.sources.folder_labels import label_and_split
from embedstore.sources.locations import is_location
from embedstore.sources.remote.filesystem import is_remote
from embedstore.sources.uris import UriResolver
from embedstore.text_form import known_split
from embedstore.types import display_uri

_WORD = re.compile(r"[^\W_]+")
_DATA_FOLDERS = ("", "images", "data", "..", os.path.join("..", "images"))  # noqa: PTH118


class PhotoNames:
    """From the name of a photo in a file of annotations to its uri.

    Args:
        file: the file of annotations.
        root: the folder, prefix or archive that names start from, or None: it is looked for next to the file.
    """

    def __init__(self, file: str, root: str | None) -> None:
        self._file = os.path.abspath(file)  # noqa: PTH100
        self._root = root
        self._resolver: UriResolver | None = None

    def uri(self, name: str) -> str:
        """Return the uri of a photo.

        Raises:
            BadAnnotations: if the first photo is in none of the folders where photos may be.
        """
        if is_location(name):
            return name
        if self._root is not None and is_remote(self._root):
            return f"{self._root.rstrip('/')}/{name.lstrip('/')}"
        if self._resolver is None:
            self._resolver = UriResolver(self._root or self._find_root(name))
        return display_uri(self._resolver.path(name))

    def notes(self) -> list[str]:
        """Return one sentence per kind of difference between names and files."""
        return self._resolver.notes() if self._resolver else []

    def _find_root(self, name: str) -> str:
        """Return the folder that names start from, by the first photo."""
        folder = os.path.dirname(self._file)  # noqa: PTH120
        if os.path.isabs(name):  # noqa: PTH117
            return folder
        stem = os.path.splitext(os.path.basename(self._file))[0]  # noqa: PTH119, PTH122
        words = stem.split("_")
        parts = [os.path.join("..", words[-1]), os.path.join("..", "images", words[-1]), words[-1]]  # noqa: PTH118
        candidates = [os.path.normpath(os.path.join(folder, part)) for part in (*_DATA_FOLDERS, *parts)]  # noqa: PTH118
        for candidate in candidates:
            if os.path.lexists(os.path.join(candidate, name)):  # noqa: PTH118
                return candidate
        raise BadAnnotations(
            f"{self._file} names {name!r}, which is in none of {', '.join(candidates)}; name the folder of the photos "
            "as SOURCE"
        )


def split_of_file(path: str) -> str | None:
    """Return the split that a file of annotations states by its name (``instances_val2017.json``) or its folder."""
    stem = os.path.splitext(os.path.basename(path))[0]  # noqa: PTH119, PTH122
    words = [word.rstrip("0123456789") for word in _WORD.findall(stem)]
    for word in (words[-1:] + words[:1]) if words else ():
        if (split := known_split(word)) is not None:
            return split.value
    split = known_split(os.path.basename(os.path.dirname(os.path.abspath(path))))  # noqa: PTH100, PTH119, PTH120
    return None if split is None else split.value


def split_of_name(name: str) -> str | None:
    """Return the split that the folders in a photo's name state; what is above the data set states none."""
    if os.path.isabs(name) or is_location(name):  # noqa: PTH117
        return None
    folders = name.replace("\\", "/").split("/")[:-1]
    return label_and_split(folders)[1]
