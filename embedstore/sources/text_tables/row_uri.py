"""The uri of a text in a row of a table: ``/data/reviews.csv#column=text&row=17``, with a named encoding before it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from embedstore.sources.parquet.row_uri import column_fragment

_ROW_URI = re.compile(
    r"(.+\.(?:csv|tsv|jsonl|ndjson|json)(?:\.gz|\.zst)?)#(?:encoding=([^&#/]+)&)?column=([^&#/]+)&row=([0-9]{1,18})",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class TextRowUri:
    """A text in a row of a table.

    Attributes:
        file: the path of the table.
        column: the column that holds the texts.
        row: the number of the row, from 0, without the header.
        encoding: the encoding of the file, if the user named it.
    """

    file: str
    column: str
    row: int
    encoding: str | None = None

    def __str__(self) -> str:
        return f"{self.file}{text_fragment(self.column, self.encoding)}{self.row}"


def text_fragment(column: str, encoding: str | None) -> str:
    """Return what is between the path and the number of the row."""
    fragment = column_fragment(column)
    return f"#encoding={quote(encoding, safe='')}&{fragment.removeprefix('#')}" if encoding else fragment


def parse_text_row_uri(uri: str) -> TextRowUri | None:
    """Return the row that a uri names; None if it names something else.

    A file whose name looks like such a uri is a file.
    """
    match = _ROW_URI.fullmatch(uri) if "#" in uri else None
    if match is None or os.path.lexists(uri):
        return None
    encoding = unquote(match[2]) if match[2] else None
    return TextRowUri(match[1], unquote(match[3]), int(match[4]), encoding)
