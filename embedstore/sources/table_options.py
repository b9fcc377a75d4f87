"""How a user's table is read; a module of its own, because the public signatures need it and nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TableOptions:
    """How a user's table is read.

    Attributes:
        uri_column: the column that names the images; by default ``uri``.
        root: the folder that relative uris start from; by default the table's own folder.
        encoding: the encoding of a text file, as Python names it; by default UTF-8, or what a byte-order mark says.
        collect_rows: make one item of several rows of one image; columns whose values differ become lists.
        text_column: the column whose texts are the items, one per row; None for a table that names files.
        vector_column: the column of a Parquet file that holds the vectors; by default ``vector``, or the only one of
            lists of floats.
        known_types: the DuckDB types of the columns that the store has, by name.
    """

    uri_column: str | None = None
    root: str | Path | None = None
    encoding: str | None = None
    collect_rows: bool = False
    text_column: str | None = None
    vector_column: str | None = None
    known_types: Mapping[str, str] = field(default_factory=dict)
