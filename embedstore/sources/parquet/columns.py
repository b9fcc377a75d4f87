"""Which column of a Parquet file holds the images, and what the other columns become in a store."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb

from embedstore.errors import BadManifest, did_you_mean
from embedstore.sources.columns import RESERVED_PREFIX
from embedstore.sources.parquet.footer import (
    IMAGE_FIELD,
    PATH_FIELD,
    Footer,
    class_names,
    list_element,
)
from embedstore.storage.column_names import ROLE_COLUMNS, find_column, name_problem, stored_name
from embedstore.storage.quoting import quote_identifier, quote_literal

LIKELY_COLUMNS = (
    *("image", "img", "picture", "photo", "jpg", "jpeg", "png", "webp"),
    *("audio", "sound", "clip", "wav", "flac", "mp3", "bytes", "data"),
)
ROW_NUMBER = "file_row_number"  # DuckDB's own column
_INTEGERS = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint")
_NO_CLASS = -1  # in Hugging Face's data sets: this row has no label
_NESTED = ("struct", "map", "list", "array", "union", "blob")
_STATED = ("Image", "Audio")  # what Hugging Face's features call columns of items
_ITEM_FEATURES = (*_STATED, "Value")  # a Value may be of plain bytes


@dataclass(frozen=True)
class ColumnPlan:
    """What is read of a Parquet file besides its images.

    Attributes:
        select: SQL for the columns, each under its name in the store, and ``uri``: the path in the structure, or NULL.
        left_out: columns that hold images or other bytes, which are not kept as columns.
        class_checks: SQL conditions of rows whose number of a class has no name, by column.
        split_is_name: whether the split is that of the file's name.
    """

    select: str
    left_out: tuple[str, ...]
    class_checks: Mapping[str, str] = field(default_factory=dict)
    split_is_name: bool = False


def image_columns(footer: Footer) -> list[str]:
    """Return the columns that may hold images or sounds: bytes, or Hugging Face's structure of bytes and path."""
    return [
        name
        for name, kind in footer.types.items()
        if holds_bytes(kind) and footer.features.get(name, {}).get("_type", "Image") in _ITEM_FEATURES
    ]


def stated_columns(columns: Collection[str], features: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which columns Hugging Face's features call images; without any, which they call sounds."""
    by_kind = ([c for c in columns if features.get(c, {}).get("_type") == kind] for kind in _STATED)
    return next((stated for stated in by_kind if stated), [])


def holds_bytes(kind: duckdb.sqltypes.DuckDBPyType) -> bool:
    """Return whether a type is bytes, or a structure with a field of bytes."""
    return kind.id == "blob" or (kind.id == "struct" and _field(kind, IMAGE_FIELD) == "blob")


def holds_text(kind: duckdb.sqltypes.DuckDBPyType) -> bool:
    """Return whether a type is text."""
    return bool(kind.id == "varchar")


def choose_text_column(footer: Footer, wanted: str, table: str) -> str:
    """Return the column of texts that the user names.

    Raises:
        BadManifest: if there is no such column, or it holds something else.
    """
    texts = [name for name, kind in footer.types.items() if holds_text(kind)]
    return require_text_column(wanted, {name: str(kind) for name, kind in footer.types.items()}, texts, table)


def require_text_column(wanted: str, types: Mapping[str, str], texts: Collection[str], table: str) -> str:
    """Return the column of texts that the user names, as the table spells it.

    Args:
        wanted: what the user wrote.
        types: the type of every column, by name.
        texts: the columns that hold texts.
        table: the table's name in messages.

    Raises:
        BadManifest: if there is no such column, or it holds something else.
    """
    found = find_column(wanted, types)
    if found is None:
        listed = ", ".join(texts) or "none"
        raise BadManifest(
            f"{table} has no column of texts {wanted!r} (its columns of text are {listed}){did_you_mean(wanted, texts)}"
        )
    if found not in texts:
        raise BadManifest(f"{table}: the column {found!r} holds {types[found]}, not texts; write it as text")
    return found


def choose_column(footer: Footer, wanted: str | None, table: str) -> str | None:
    """Return the column of the images; None if the table names its images, or holds none.

    Args:
        footer: the footer of the file.
        wanted: the column that the user names, or None.
        table: the table's name in messages.

    Raises:
        BadManifest: if several columns may hold the images.
    """
    columns = image_columns(footer)
    if wanted is not None:
        named = find_column(wanted, footer.types)
        return named if named in columns else None
    if find_column("uri", footer.types) is not None:
        return None
    columns = stated_columns(columns, footer.features) or columns
    likely = [c for n in LIKELY_COLUMNS for c in columns if c.lower() == n]
    if len(columns) > 1 and not likely:
        raise BadManifest(
            f"{table} has several columns that may hold the images ({', '.join(columns)}); name one with "
            f"--uri-column, for example --uri-column {columns[0]}"
        )
    return likely[0] if likely else columns[0] if columns else None


def plan_columns(footer: Footer, image: str, split: str | None) -> ColumnPlan:
    """Return what becomes of the columns of a file.

    Args:
        footer: the footer of the file.
        image: the column of the images.
        split: the split that the file's name states, used where no column states it.
    """
    names: dict[str, str] = {}
    expressions, left_out, checks = list[str](), list[str](), dict[str, str]()
    roles = _role_columns(footer)
    for column, kind in footer.types.items():
        if column != image and (holds_bytes(kind) or (kind.id == "list" and holds_bytes(kind.child))):
            left_out.append(column)
        elif column != image or holds_text(kind):
            value, check = _value(column, kind, footer)
            names[column] = roles.get(column) or _own_name(column, names.values())
            expressions.append(f"{value} AS {quote_identifier(names[column])}")
            if check:
                checks[column] = check
    expressions += _image_path(footer, image, names.values())
    split_is_name = split is not None and "split" not in names.values()
    if split is not None and split_is_name:
        expressions.append(f"{quote_literal(split)} AS split")
    return ColumnPlan(", ".join(expressions), tuple(left_out), checks, split_is_name)


def _role_columns(footer: Footer) -> dict[str, str]:
    """Return which columns are the label, split and group; a single column of classes is the label, too."""
    roles = {}
    for role in ROLE_COLUMNS[1:]:
        column = find_column(role, footer.types)
        if column is not None and footer.types[column].id not in _NESTED:
            roles[column] = role
    classes = [c for c, kind in footer.types.items() if class_names(footer.features.get(c)) and kind.id in _INTEGERS]
    if "label" not in roles.values() and len(classes) == 1 and classes[0] not in roles:
        roles[classes[0]] = "label"
    return roles


def _value(column: str, kind: duckdb.sqltypes.DuckDBPyType, footer: Footer) -> tuple[str, str | None]:
    """Return SQL for a column with names in place of the numbers of classes, and for rows without a name."""
    name, feature = quote_identifier(column), footer.features.get(column)
    if (names := class_names(feature)) and kind.id in _INTEGERS:
        return _class_name(name, names), _is_unnamed(name, names)
    names = class_names(list_element(feature))
    if names and kind.id == "list" and kind.child.id in _INTEGERS:
        value = f"list_transform({name}, lambda c: {_class_name('c', names)})"
        return value, f"len(list_filter({name}, lambda c: {_is_unnamed('c', names)})) > 0"
    return name, None


def _class_name(number: str, names: list[str]) -> str:
    """Return SQL for the name of a class."""
    return f"CASE WHEN {number} >= 0 THEN [{', '.join(map(quote_literal, names))}][{number} + 1] END"


def _is_unnamed(number: str, names: list[str]) -> str:
    """Return SQL that is true for a number without a name."""
    return f"({number} < {_NO_CLASS} OR {number} >= {len(names)})"


def _image_path(footer: Footer, image: str, taken: Collection[str]) -> list[str]:
    """Return SQL for the path in the structure of an image: as ``uri``, and as a column of its own."""
    kind = footer.types[image]
    if kind.id != "struct" or _field(kind, PATH_FIELD) is None:
        return ["NULL::VARCHAR AS uri"]
    path = f"nullif({quote_identifier(image)}.{PATH_FIELD}::VARCHAR, '')"
    own = _own_name(f"{image}_path", taken)
    return [f"{path} AS uri", f"{path} AS {quote_identifier(own)}"]


def _own_name(column: str, taken: Collection[str]) -> str:
    """Return the name of a user's column in the store; one that the store uses itself gets a prefix."""
    name = stored_name(column)
    if name_problem(name):
        name = RESERVED_PREFIX + name.encode("unicode_escape").decode()
    while find_column(name, taken) is not None:
        name = RESERVED_PREFIX + name
    return name


def _field(kind: duckdb.sqltypes.DuckDBPyType, name: str) -> str | None:
    """Return the kind of a field of a structure; None without such a field."""
    fields = [child for field, child in kind.children if field == name]
    return fields[0].id if fields and isinstance(fields[0], duckdb.sqltypes.DuckDBPyType) else None
