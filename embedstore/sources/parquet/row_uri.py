"""The uri of an image in a row of a Parquet file: ``/data/train.parquet#column=image&row=17``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

PARQUET_SUFFIXES = (".parquet", ".pq")
_ROW_URI = re.compile(r"(.+\.(?:parquet|pq))#column=([^&#/]+)&row=([0-9]{1,18})", re.IGNORECASE | re.DOTALL)
_TABLE_ROW = re.compile(r"(.+)#(?:[^#]*&)?column=[^&#]+&row=([0-9]{1,18})", re.DOTALL)  # of any table
_RESERVED = "%&#/\\"  # what would end the name of the column, or look like a folder


@dataclass(frozen=True, slots=True)
class RowUri:
    """An image in a row of a Parquet file.

    Attributes:
        file: the path of the file.
        column: the column that holds the image.
        row: the number of the row, from 0.
    """

    file: str
    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.file}{column_fragment(self.column)}{self.row}"


def column_fragment(column: str) -> str:
    """Return what is between the path and the number of the row; reserved characters are percent-encoded."""
    name = "".join(quote(c, safe="") if c in _RESERVED or not c.isprintable() else c for c in column)
    return f"#column={name}&row="


def parse_row_uri(uri: str) -> RowUri | None:
    """Return the row that a uri names; None if it names something else.

    A file whose name looks like such a uri is a file.
    """
    match = _ROW_URI.fullmatch(uri)
    if match is None or os.path.lexists(uri):
        return None
    return RowUri(match[1], unquote(match[2]), int(match[3]))


def split_table_row(uri: str) -> tuple[str, int] | None:
    """Return the table and the number of the row that the uri of an item of any table names; None for other items."""
    match = _TABLE_ROW.fullmatch(uri)
    return (match[1], int(match[2])) if match else None


def has_parquet_suffix(name: str) -> bool:
    """Return whether a name or pattern ends as the name of a Parquet file."""
    return name.lower().endswith(PARQUET_SUFFIXES)
