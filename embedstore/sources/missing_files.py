"""Tables whose paths lead to no file: counted, and refused if all of them do."""

from __future__ import annotations

from collections.abc import Sequence

from embedstore.errors import BadManifest
from embedstore.types import Failure, FailureReason, ImageRef


class MissingFiles:
    """Counts the rows of a table whose files do not exist.

    Args:
        table: the table's name in messages.
        root: the folder that relative uris start from.
        columns: the table's other columns that probably name files.
    """

    def __init__(self, table: str, root: str, columns: Sequence[str] = ()) -> None:
        self._table, self._root, self._columns = table, root, tuple(columns)
        self._rows = self._missing = 0
        self._first = ""

    def count(self, entry: ImageRef | Failure) -> None:
        """Count one row."""
        self._rows += 1
        if isinstance(entry, Failure) and entry.reason is FailureReason.MISSING:
            self._missing += 1
            self._first = self._first or entry.path

    def check(self) -> None:
        """Refuse a table of which no file exists: its uris start from another folder, or are not names of files.

        Raises:
            BadManifest: if there are rows, and the files of all of them are missing.
        """
        if self._rows and self._missing == self._rows:
            files = "its only file does not exist" if self._rows == 1 else f"none of its {self._rows:,} files exists"
            raise BadManifest(f"{self._table}: {files}, first {self._first!r}; {self._cure()}; nothing was recorded")

    def notes(self) -> list[str]:
        """Return one sentence if some files are missing."""
        if not self._missing:
            return []
        share = f"{self._missing:,} of {self._rows:,} files do not exist"
        return [f"{self._table}: {share}, first {self._first!r}; {self._cure()}"]

    def _cure(self) -> str:
        """Say where the files were looked for, and how to name another place."""
        cure = f"relative uris start from {self._root} (--root FOLDER names another folder)"
        if self._columns:
            cure += f", and the column {self._columns[0]!r} may name the files (--uri-column {self._columns[0]})"
        return cure
