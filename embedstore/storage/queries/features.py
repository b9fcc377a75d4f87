"""Labels and places of vectors of the items of a space."""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb

from embedstore.storage.column_names import find_item_column
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import column_types
from embedstore.text_form import ABSENT_PATTERN


class LabelColumn(NamedTuple):
    """A column of the items as labels.

    Attributes:
        value: SQL for the label of an item; what is absent is NULL (see :func:`embedstore.text_form.is_absent`).
        is_list: whether an item has a list of labels.
    """

    value: str
    is_list: bool


# A photo without a group is in the group of its own crops, which have its uri as their group.
_GROUP = (
    "coalesce(group_id, CASE WHEN uri IN (SELECT o.group_id FROM items o WHERE o.group_id IS NOT NULL) THEN uri END)"
)


class FeatureRow(NamedTuple):
    """One present item; ``shard`` and ``row`` are None without a vector in the space."""

    item: int
    label: Any
    split: str | None
    group: str | None
    content: str
    shard: int | None
    row: int | None
    weight: float | None


def label_column(con: duckdb.DuckDBPyConnection, name: str) -> LabelColumn | None:
    """Return the column of a name, whatever its case, or None if the items have none."""
    types = column_types(con, "items")
    if (column := find_item_column(name, types)) is None:
        return None
    if types[column].endswith("[]"):
        return LabelColumn(quote_identifier(column), is_list=True)
    return LabelColumn(text_or_null(column), is_list=False)


def text_or_null(name: str) -> str:
    """Return SQL for a column as text, NULL where it has no value."""
    return f"CASE WHEN {absent_condition(name)} THEN NULL ELSE {quote_identifier(name)}::VARCHAR END"


def absent_condition(name: str) -> str:
    """Return SQL that is true where a column has no value: NULL, NaN, blank text, or a word for one of these."""
    text = f"{quote_identifier(name)}::VARCHAR"
    return f"({text} IS NULL OR regexp_full_match({text}, {quote_literal(ABSENT_PATTERN)}))"


def number_value(name: str) -> str:
    """Return SQL for a column as a number, NULL where it has no value or another one."""
    return f"TRY_CAST({quote_identifier(name)}::VARCHAR AS DOUBLE)"


def feature_rows(
    con: duckdb.DuckDBPyConnection, label: LabelColumn, *, space: str, condition: str, weight: str = "NULL::DOUBLE"
) -> list[FeatureRow]:
    """Return the present items that match a condition, ascending.

    Args:
        con: a reader's connection.
        label: the column of the labels.
        space: the key of the space.
        condition: SQL over ``items``.
        weight: SQL for the weight of an item.
    """
    rows = con.execute(
        'SELECT i.item, i.y, i.split, i.group_id, i.content::VARCHAR, v.shard, v."row"::BIGINT, i.weight '
        f"FROM (SELECT item, {label.value} AS y, {weight} AS weight, split, {_GROUP} AS group_id, content FROM items "
        f"WHERE present AND ({condition})) i "
        "LEFT JOIN (SELECT * FROM vectors WHERE space = ?) v ON v.content = i.content ORDER BY i.item",
        [space],
    ).fetchall()
    return [FeatureRow._make(row) for row in rows]


def matching_items(con: duckdb.DuckDBPyConnection, condition: str) -> list[int]:
    """Return the present items that match a condition, ascending.

    Args:
        con: a reader's connection.
        condition: SQL over ``items``.
    """
    rows = con.execute(f"SELECT item FROM items WHERE present AND ({condition}) ORDER BY item").fetchall()
    return [int(item) for (item,) in rows]
