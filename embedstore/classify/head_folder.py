"""The folder of a stored head, and how its files are replaced without a moment in which neither head is whole."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from embedstore.classify.heads import head_files
from embedstore.classify.heads.head_files import METADATA_FILE
from embedstore.errors import BadHead
from embedstore.storage.durable_files import sync_folder, sync_tree
from embedstore.storage.reading import is_file

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_head_name(name: str) -> bool:
    """Return whether a head can have this name."""
    return _NAME.fullmatch(name) is not None


class HeadFolder:
    """``heads/NAME`` of a store. A name that fits is also a safe folder name.

    Args:
        root: the folder of the store.
        name: the head's name, letters, digits, ``_`` and ``-``.

    Raises:
        BadHead: if the name does not fit.
    """

    def __init__(self, root: Path, name: str) -> None:
        if not is_head_name(name):
            raise BadHead(f"a head's name has letters, digits, _ and -, at most 64 of them; {name!r} does not fit")
        self.path = root / "heads" / name
        self._previous = self.path.with_name(f".{name}.previous")

    def replace(self, estimator: Any, binding: dict[str, Any]) -> str:
        """Write a head's files and return their digest; the files that they replace stay until :meth:`clean_up`.

        A process that is killed before the catalog names the new digest leaves the old head readable.

        Raises:
            BadHead: if the estimator cannot be stored without pickle.
        """
        if self.path.is_dir():
            shutil.rmtree(self._previous, ignore_errors=True)
            shutil.copytree(self.path, self._previous)
            sync_tree(self._previous)
            sync_folder(self.path.parent)
        head_files.save(estimator, self.path, binding)
        return head_files.file_digest(self.path)

    def find(self, digest: str) -> Path:
        """Return the folder whose files have the digest that the catalog names, or the head's own if none has."""
        for folder in (self.path, self._previous):
            if is_file(folder / METADATA_FILE) and head_files.file_digest(folder) == digest:
                return folder
        return self.path

    def clean_up(self) -> None:
        """Delete the replaced files, and what killed processes left half written."""
        for leftover in self.path.parent.glob(f".{self.path.name}.*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def delete(self, *, unless: HeadFolder | None = None) -> None:
        """Delete the head's files; files of the user's own in the folder stay.

        Args:
            unless: a folder that must stay. On a file system that ignores case two names can mean one folder.
        """
        if unless is not None and unless.path.exists() and self.path.exists() and self.path.samefile(unless.path):
            return
        head_files.delete_files(self.path)
        self.clean_up()
