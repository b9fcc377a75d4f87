"""Items to write: one by one as a run finds them, or as columns, which many rows of a table are from end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.storage.sql import encode_paths, object_array
from embedstore.types import ImageRef

NEW_ITEM = -1  # in place of the id of an existing item


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item to write.

    Attributes:
        ref: the file.
        content: the digest of its bytes, 32 hexadecimal digits.
        item: the id of the existing item to update; None inserts a new item.
        keeps_columns: whether an existing item keeps the user's own columns, whatever the source says of them.
    """

    ref: ImageRef
    content: str
    item: int | None = None
    keeps_columns: bool = False


@dataclass(frozen=True)
class FileColumns:
    """N files as columns, in the form in which the catalog holds them.

    Attributes:
        uri: object ``(N,)``, their names.
        path: object ``(N,)``, the bytes of a path that is not UTF-8; None where the uri is the path.
        label: object ``(N,)``, labels; None where there is none.
        split: object ``(N,)``, splits; None where there is none.
        group: object ``(N,)``, groups; None where there is none.
        size: int64 ``(N,)``, in bytes.
        mtime_ns: int64 ``(N,)``, the modification times in nanoseconds.
    """

    uri: NDArray[np.object_]
    path: NDArray[np.object_]
    label: NDArray[np.object_]
    split: NDArray[np.object_]
    group: NDArray[np.object_]
    size: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]

    @classmethod
    def of_refs(cls, refs: Sequence[ImageRef]) -> FileColumns:
        """Return references as columns."""
        return cls(
            uri=object_array([r.uri for r in refs]),
            path=encode_paths([(r.uri, r.path) for r in refs]),
            label=object_array([r.label for r in refs]),
            split=object_array([r.split for r in refs]),
            group=object_array([r.group for r in refs]),
            size=np.array([r.size for r in refs], dtype=np.int64),
            mtime_ns=np.array([r.mtime_ns for r in refs], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.uri)

    def take(self, rows: NDArray[np.bool_]) -> FileColumns:
        """Return the chosen rows."""
        return FileColumns(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def as_dict(self) -> dict[str, NDArray[Any]]:
        """Return the columns by name, as DuckDB reads them from a Python variable."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class ItemColumns:
    """N items to write as columns.

    Attributes:
        files: their files.
        content: object ``(N,)``, the digests of their contents.
        item: int64 ``(N,)``, the ids of existing items to update; NEW_ITEM inserts a new item.
        keeps_columns: bool ``(N,)``, whether an existing item keeps the user's own columns.
    """

    files: FileColumns
    content: NDArray[np.object_]
    item: NDArray[np.int64]
    keeps_columns: NDArray[np.bool_]

    @classmethod
    def of_rows(cls, rows: Sequence[ItemRow]) -> ItemColumns:
        """Return rows as columns."""
        return cls(
            files=FileColumns.of_refs([r.ref for r in rows]),
            content=object_array([r.content for r in rows]),
            item=np.array([NEW_ITEM if r.item is None else r.item for r in rows], dtype=np.int64),
            keeps_columns=np.array([r.keeps_columns for r in rows], dtype=np.bool_),
        )

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: NDArray[np.bool_]) -> ItemColumns:
        """Return the chosen rows."""
        if rows.all():
            return self
        return ItemColumns(self.files.take(rows), self.content[rows], self.item[rows], self.keeps_columns[rows])
