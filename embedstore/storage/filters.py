"""Filters: one boolean SQL expression over the items, parsed by DuckDB and checked against a list of what is allowed.

The user's text is never run: its syntax tree may contain only comparisons, boolean logic, arithmetic, casts and the
functions listed here, and the SQL made from the checked tree is what runs. Subqueries are not allowed, so a filter
reads no other table or file.

A column is ``NAME`` or ``items.NAME``. In the SQL that runs every column is qualified, so that no name means anything
else. Besides the items' columns a filter may name predictions: ``pred.NAME`` is the class that a head predicted and
``pred.NAME.score`` its score, NULL where the head has no prediction for the item's current content. For a head that
predicts sets of classes (several labels per item, or conformal sets) the first is a list, the most likely class first
and empty if there is none, and the second the highest score. Each becomes one fixed lookup in the table ``predictions``
after the check.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from embedstore.errors import BadFilter, UnknownColumn, did_you_mean
from embedstore.storage import connection
from embedstore.storage.column_names import ITEMS, PREDICTIONS, find_item_column
from embedstore.storage.sql import column_types, error_message, fetch_column, fetch_value, quote_literal

_CLASSES = {
    "CONSTANT",
    "COLUMN_REF",
    "COMPARISON",
    "CONJUNCTION",
    "OPERATOR",
    "FUNCTION",
    "CAST",
    "TYPE",
    "BETWEEN",
    "CASE",
}
_FUNCTIONS = set(
    "+ - * / // % ** ^ || ~~ !~~ ~~* !~~* ~~~ abs round floor ceil ceiling sqrt ln log log10 exp power pow sign mod "
    "greatest least coalesce nullif ifnull lower upper lcase ucase length strlen trim ltrim rtrim substring substr "
    "left right contains starts_with ends_with prefix suffix replace strip_accents reverse split_part concat "
    "like_escape not_like_escape ilike_escape not_ilike_escape regexp_matches regexp_full_match regexp_extract "
    "levenshtein jaccard "
    "year month day hour minute second quarter week dayofweek dayofyear date_part datepart date_diff date_trunc "
    "epoch strftime strptime make_date to_days to_months to_years "
    "list_contains list_has array_contains len isnan isinf isfinite hash list_value parse_filename parse_dirname "
    "struct_extract array_extract list_extract".split()
)

_TYPES = set(
    "boolean bool tinyint smallint integer int int1 int2 int4 int8 bigint long hugeint utinyint usmallint uinteger "
    "ubigint float real double decimal numeric varchar text string char bpchar date time timestamp datetime interval "
    "timestamptz timestamp_s timestamp_ms timestamp_ns uuid blob list".split()
) | {"timestamp with time zone", "double precision", "time with time zone"}


def compile_filter(con: duckdb.DuckDBPyConnection, where: str | None, *, known_heads: Collection[str] = ()) -> str:
    """Return a filter as SQL for ``FROM items WHERE`` in the attached catalog; ``true`` for None.

    Args:
        con: the open catalog.
        where: the filter.
        known_heads: heads that the filter may name although they have no predictions yet.

    Raises:
        BadFilter: if the filter is not one boolean expression, or contains something that is not allowed.
        UnknownColumn: if the filter names a column that the items do not have.
    """
    if where is None:
        return "true"
    columns = column_types(con, "items")
    if PREDICTIONS not in where.lower():
        return compile_expression(where, columns, known_heads)
    predicted = fetch_column(con, "SELECT DISTINCT head FROM predictions")
    set_valued = fetch_column(con, "SELECT head FROM heads WHERE (facts->>'sets')::BOOLEAN")
    return compile_expression(where, columns, {*predicted, *known_heads}, set_valued)


# What an expression raises whose values do not fit.
VALUE_ERRORS = (duckdb.DataError, duckdb.BinderException, duckdb.InvalidInputException)


@contextmanager
def filter_errors(where: str | None) -> Iterator[None]:
    """Report an error of a query that runs a filter as an error of the filter.

    Args:
        where: the filter; None leaves errors as they are.

    Raises:
        BadFilter: if the filter does not fit the values, such as a comparison of text with a number.
    """
    try:
        yield
    except VALUE_ERRORS as e:
        if where is None:
            raise
        hint = "; for a head that predicts sets use list_contains(pred.NAME, 'cat')" if "[]" in str(e) else ""
        raise BadFilter(f"the filter {where!r} does not fit the items: {error_message(e)}{hint}") from e


def compile_expression(
    expression: str, columns: Collection[str], known_heads: Collection[str] = (), set_valued_heads: Collection[str] = ()
) -> str:
    """Return the expression as DuckDB writes it from its checked syntax tree.

    Args:
        expression: e.g. ``"split = 'val' and year >= 2020"``.
        columns: the items' columns.
        known_heads: names that may follow ``pred.``.
        set_valued_heads: those of them that predict sets of classes.

    Returns:
        SQL text of a boolean expression.

    Raises:
        BadFilter: if it is not one boolean expression, or contains something that is not allowed.
        UnknownColumn: if it names a column that the items do not have; lists similar names.
    """
    with connection.connect() as con:
        tree = _parse(con, expression)
        for node in list(_nodes(tree["statements"][0]["node"]["where_clause"])):
            if (prediction := _prediction(node, columns, known_heads)) is None:
                _check(node, expression, columns)
            else:
                lookup = _lookup(con, *prediction, set_valued=prediction[0] in set_valued_heads)
                node.clear()
                node.update(lookup)
        sql = str(fetch_value(con, "SELECT json_deserialize_sql(?)", [json.dumps(tree)]))
    return sql.split(" WHERE ", 1)[1]


def _parse(con: duckdb.DuckDBPyConnection, expression: str) -> dict[str, Any]:
    """Return the tree of ``SELECT 1 FROM items WHERE (expression)``; raise if the text is anything else."""
    if not expression.strip():
        raise BadFilter("the filter is empty; omit it, or write e.g. \"split = 'val'\"")
    wrapped = f"SELECT 1 FROM items WHERE ({expression}\n)"
    try:
        statements = duckdb.extract_statements(wrapped)
    except duckdb.Error as e:
        raise BadFilter(f"cannot read the filter {expression!r}: {error_message(e)}") from e
    tree = _serialize(con, wrapped)
    if tree["error"] or len(statements) != 1 or len(tree["statements"]) != 1:
        raise BadFilter(f"a filter is one boolean expression such as \"split = 'val'\", not {expression!r}")
    node = tree["statements"][0]["node"]
    plain = node["type"] == "SELECT_NODE" and node["from_table"]["type"] == "BASE_TABLE" and not node["modifiers"]
    rest = ("group_expressions", "group_sets", "having", "qualify", "sample")
    if not plain or node["from_table"]["table_name"] != "items" or any(node.get(r) for r in rest):
        raise BadFilter(f"a filter is one boolean expression such as \"split = 'val'\", not {expression!r}")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Yield every expression node of a tree, its root included."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _check(node: dict[str, Any], expression: str, columns: Collection[str]) -> None:
    """Raise if a node is not allowed in a filter."""
    kind = node["class"]
    if kind not in _CLASSES:
        raise BadFilter(f"a filter may not contain a {kind.lower()} ({expression!r}); use comparisons of columns")
    if kind == "FUNCTION" and node["function_name"].lower() not in _FUNCTIONS:
        raise BadFilter(
            f"a filter may not call {node['function_name']}(){did_you_mean(node['function_name'].lower(), _FUNCTIONS)}"
        )
    if kind == "TYPE" and node["type_name"].lower() not in _TYPES:
        raise BadFilter(
            f"a filter cannot use the type {node['type_name']!r}{did_you_mean(node['type_name'].lower(), _TYPES)}"
        )
    if kind == "COLUMN_REF":
        node["column_names"] = _qualified(node["column_names"], columns)


def _qualified(names: list[str], columns: Collection[str]) -> list[str]:
    """Return ``label`` and ``items.label`` as ``items.label``, and a field of a struct as ``items.meta.x``.

    Raises:
        UnknownColumn: if the items lack the column.
    """
    qualified = len(names) > 1 and names[0].lower() == ITEMS
    for rest in [names[1:], names] if qualified else [names]:  # ``items`` may be a column in an old store
        if (column := find_item_column(rest[0], columns)) is not None:
            return [ITEMS, column, *rest[1:]]
    name, lower = names[int(qualified)], {c.lower() for c in columns}
    raise UnknownColumn(
        f"the items have no column {name!r}{did_you_mean(name.lower(), lower)}; they have {', '.join(sorted(columns))}"
    )


def _prediction(node: dict[str, Any], columns: Collection[str], heads: Collection[str]) -> tuple[str, str] | None:
    """Return ``(head, "label" or "score")`` for the node ``pred.NAME`` or ``pred.NAME.score``, else None.

    A column ``pred`` of the user's, which old stores may have, is ``items.pred``.
    """
    names = node["column_names"] if node["class"] == "COLUMN_REF" else []
    if len(names) < 2 or names[0].lower() != PREDICTIONS:
        return None
    head = next((h for h in heads if h.lower() == names[1].lower()), None)
    if head is None:
        own = (
            f"; the column {names[0]!r} of the items is {ITEMS}.{names[0]}"
            if find_item_column(names[0], columns)
            else ""
        )
        raise UnknownColumn(
            f"no head {names[1]!r} has predicted anything{did_you_mean(names[1], heads)}; create pred.HEAD with "
            f"`embedstore predict STORE HEAD`{'; there are ' + ', '.join(sorted(heads)) if heads else ''}{own}"
        )
    field = names[2].lower() if len(names) == 3 else "label"
    if len(names) > 3 or field not in ("label", "score"):
        raise UnknownColumn(f"pred.{head} has .label and .score, not {'.'.join(names[2:])!r}")
    return head, field


def _lookup(con: duckdb.DuckDBPyConnection, head: str, field: str, *, set_valued: bool) -> dict[str, Any]:
    """Return the tree of a scalar subquery over the predictions of the filtered row of ``items``."""
    labels = "coalesce(list(label ORDER BY score DESC, label) FILTER (WHERE label IS NOT NULL), [])"
    value = {"label": labels, "score": "max(score)"}[field] if set_valued else field
    sql = (
        f"SELECT (SELECT p.value FROM (SELECT item AS of_item, content AS of_content, {value} AS value "
        f"FROM predictions WHERE head = {quote_literal(head)} {'GROUP BY item, content' if set_valued else ''}) AS p "
        "WHERE p.of_item = items.item AND p.of_content = items.content)"
    )
    node: dict[str, Any] = _serialize(con, sql)["statements"][0]["node"]["select_list"][0]
    return node


def _serialize(con: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any]:
    """Return the syntax tree of a statement."""
    tree: dict[str, Any] = json.loads(fetch_value(con, "SELECT json_serialize_sql(?::VARCHAR)", [sql]))
    return tree
