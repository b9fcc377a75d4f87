"""Labels and places of vectors of the items of a space."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage.column_names import find_item_column
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import column_types, object_array
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


@dataclass(frozen=True)
class FeatureColumns:
    """Present items, ascending, as columns.

    Attributes:
        item: int64 ``(N,)``.
        label: objects ``(N,)``, None where an item has no label.
        split: objects ``(N,)``, text or None.
        group: objects ``(N,)``, text or None.
        own_group: objects ``(N,)``, the same without the groups that photos share with their crops.
        content: objects ``(N,)``, text.
        shard: int64 ``(N,)``, -1 without a vector in the space.
        row: int64 ``(N,)``, the place of the vector in its file, -1 without one.
        weight: float64 ``(N,)``, NaN without a weight.
    """

    item: NDArray[np.int64]
    label: NDArray[np.object_]
    split: NDArray[np.object_]
    group: NDArray[np.object_]
    own_group: NDArray[np.object_]
    content: NDArray[np.object_]
    shard: NDArray[np.int64]
    row: NDArray[np.int64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: NDArray[np.bool_]) -> FeatureColumns:
        """Return a selection of the items."""
        return FeatureColumns(*(getattr(self, f.name)[rows] for f in fields(self)))


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


def feature_columns(
    con: duckdb.DuckDBPyConnection, label: LabelColumn, *, space: str, condition: str, weight: str = "NULL::DOUBLE"
) -> FeatureColumns:
    """Return the present items that match a condition, ascending.

    Args:
        con: a reader's connection.
        label: the column of the labels.
        space: the key of the space.
        condition: SQL over ``items``.
        weight: SQL for the weight of an item.
    """
    columns = con.execute(
        "SELECT i.item::BIGINT AS item, i.y, i.split, i.group_id, i.own_group, i.content::VARCHAR AS content, "
        'coalesce(v.shard::BIGINT, -1) AS shard, coalesce(v."row"::BIGINT, -1) AS "row", '
        "coalesce(i.weight::DOUBLE, 'NaN'::DOUBLE) AS weight "
        f"FROM (SELECT item, {label.value} AS y, {weight} AS weight, split, items.group_id AS own_group, "
        f"{_GROUP} AS group_id, content FROM items "
        f"WHERE present AND ({condition})) i "
        "LEFT JOIN (SELECT * FROM vectors WHERE space = ?) v ON v.content = i.content ORDER BY i.item",
        [space],
    ).fetchnumpy()
    item, shard, row, weights = (np.asarray(columns[name]) for name in ("item", "shard", "row", "weight"))
    names = ("y", "split", "group_id", "own_group", "content")
    y, split, group, own_group, content = (_objects(columns[name]) for name in names)
    return FeatureColumns(item, y, split, group, own_group, content, shard, row, weights)


def _objects(column: NDArray[Any]) -> NDArray[np.object_]:
    """Return a column of DuckDB as objects: None where it is NULL, a list where it has a list."""
    return object_array([v.tolist() if isinstance(v, np.ndarray) else v for v in column.tolist()])


def matching_items(con: duckdb.DuckDBPyConnection, condition: str) -> list[int]:
    """Return the present items that match a condition, ascending.

    Args:
        con: a reader's connection.
        condition: SQL over ``items``.
    """
    rows = con.execute(f"SELECT item FROM items WHERE present AND ({condition}) ORDER BY item").fetchall()
    return [int(item) for (item,) in rows]
