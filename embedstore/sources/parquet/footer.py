"""What the footer of a Parquet file says: its columns, its row groups, and Hugging Face's features."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from embedstore.storage.quoting import quote_literal
from embedstore.storage.sql import escape_pattern, parquet_source

IMAGE_FIELD, PATH_FIELD = "bytes", "path"  # of Hugging Face's structure for one image
_FEATURES_KEY = b"huggingface"


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group.

    Attributes:
        first: the number of its first row in the file.
        rows: how many rows it has.
        mean_bytes: bytes of one image, on average.
        nulls: how many rows have no image; None if the file does not say it.
    """

    first: int
    rows: int
    mean_bytes: int
    nulls: int | None


@dataclass(frozen=True)
class Footer:
    """The columns of a Parquet file.

    Attributes:
        types: the type of each column by name.
        features: what Hugging Face's metadata says of each column; empty without such metadata.
    """

    types: Mapping[str, duckdb.sqltypes.DuckDBPyType]
    features: Mapping[str, Mapping[str, Any]]


def rows_of(path: str) -> str:
    """Return SQL for the rows of a file, each with ``file_row_number``."""
    return f"read_parquet({_literal(path)}, file_row_number=true, hive_partitioning=false)"


def read_footer(con: duckdb.DuckDBPyConnection, path: str) -> Footer:
    """Return the columns of a file.

    Raises:
        duckdb.Error: if it is not a Parquet file.
        ValueError: if its name is not UTF-8.
    """
    relation = con.sql(f"FROM {parquet_source(path)}")
    found = con.execute(f"SELECT value FROM parquet_kv_metadata({_literal(path)}) WHERE key = ?", [_FEATURES_KEY])
    row = found.fetchone()
    return Footer(dict(zip(relation.columns, relation.types, strict=True)), parse_features(row[0] if row else b""))


def read_row_groups(con: duckdb.DuckDBPyConnection, path: str, column: str) -> list[RowGroup]:
    """Return the row groups of a file.

    Args:
        con: any connection.
        path: the file.
        column: the column of images, of which the mean size is taken.

    Raises:
        duckdb.Error: if the file is not a Parquet file.
    """
    names = ", ".join(quote_literal(name) for name in (column, f"{column}, {IMAGE_FIELD}"))
    images = f"FILTER (path_in_schema IN ({names}))"
    groups = con.execute(
        f"SELECT max(row_group_num_rows), coalesce(sum(total_uncompressed_size) {images}, max(row_group_bytes)), "
        f"max(stats_null_count) {images} FROM parquet_metadata({_literal(path)}) "
        "GROUP BY row_group_id ORDER BY row_group_id"
    ).fetchall()
    out, first = list[RowGroup](), 0
    for rows, size, nulls in groups:
        if rows:
            out.append(RowGroup(first, int(rows), max(1, int(size or 0) // int(rows)), nulls))
        first += int(rows)
    return out


def parse_features(text: bytes) -> dict[str, Mapping[str, Any]]:
    """Return the features of a data set by column; empty if the text is not such metadata."""
    try:
        features = json.loads(text)["info"]["features"]
        return {str(name): feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def class_names(feature: Mapping[str, Any] | None) -> list[str] | None:
    """Return the names that the numbers of a column stand for; None if it does not hold classes."""
    names = feature.get("names") if feature and feature.get("_type") == "ClassLabel" else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) and names else None


def list_element(feature: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the feature of the values of a list; None for another feature."""
    element = feature.get("feature") if feature else None
    return element if isinstance(element, dict) else None


def _literal(path: str) -> str:
    """Return a file's name in SQL."""
    return quote_literal(escape_pattern(path))
