"""A user's filter: one boolean SQL expression over the items, judged by DuckDB's own parser.

The text is parsed, never run: its syntax tree may hold only comparisons, boolean logic, arithmetic, casts and the
functions listed here; the SQL made from the checked tree is what runs. No subquery, so no other table or file.

Beside the items' columns a filter may name what a head predicted: ``pred.NAME`` is its class and ``pred.NAME.score``
how sure it was, NULL where it has said nothing of the item as it is now. Of a head that answers with sets of classes
(several labels an item, or conformal sets) the first is a list, the likeliest first and empty where it gives none, and
the second its highest score. Each becomes one fixed look-up in the table ``predictions`` after the check.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from embedstore.errors import BadFilter, UnknownColumn, did_you_mean
from embedstore.storage import connection
from embedstore.storage.sql import error_message, quote_literal

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
    """A filter as SQL to stand after ``FROM items WHERE`` in the attached catalog; ``true`` for None.

    Args:
        con: the catalog. where: the filter. heads: that may be named though they have predicted nothing yet.

    Raises:
        BadFilter, UnknownColumn: as :func:`checked`.
    """
    if where is None:
        return "true"
    columns = [r[0] for r in con.execute("DESCRIBE items").fetchall()]
    if "pred" not in where.lower():
        return compile_expression(where, columns, known_heads)
    said = [r[0] for r in con.execute("SELECT DISTINCT head FROM predictions").fetchall()]
    sets = [r[0] for r in con.execute("SELECT head FROM heads WHERE (facts->>'sets')::BOOLEAN").fetchall()]
    return compile_expression(where, columns, {*said, *known_heads}, sets)


VALUE_ERRORS = (
    duckdb.DataError,
    duckdb.BinderException,
    duckdb.InvalidInputException,
)  # of an expression and its values


@contextmanager
def filter_errors(where: str | None) -> Iterator[None]:
    """Around the question that runs a filter over the items, whose values it may not fit.

    Raises:
        BadFilter: it does not fit them, such as a comparison of text with a number.
    """
    try:
        yield
    except VALUE_ERRORS as e:
        if where is None:
            raise
        sets = "; of a head that answers with sets ask list_contains(pred.NAME, 'cat')" if "[]" in str(e) else ""
        raise BadFilter(f"the filter {where!r} does not fit the items: {error_message(e)}{sets}") from e


def compile_expression(
    expression: str, columns: Collection[str], known_heads: Collection[str] = (), set_valued_heads: Collection[str] = ()
) -> str:
    """The expression, rewritten by DuckDB from its checked syntax tree.

    Args:
        expression: e.g. ``"split = 'val' and year >= 2020"``.
        columns: the items' columns. heads: names that may stand after ``pred.``. sets: those among them that answer
            with sets of classes.

    Returns:
        SQL text of a boolean expression.

    Raises:
        BadFilter: not one boolean expression, or something a filter may not do.
        UnknownColumn: a column the items lack; names the near ones.
    """
    with connection.connect() as con:
        tree = _parse(con, expression)
        for node in list(_nodes(tree["statements"][0]["node"]["where_clause"])):
            if (said := _prediction(node, columns, known_heads)) is None:
                _check(node, expression, columns)
            else:
                _become(node, _lookup(con, *said, many=said[0] in set_valued_heads))
        sql = str(con.execute("SELECT json_deserialize_sql(?)", [json.dumps(tree)]).fetchall()[0][0])
    return sql.split(" WHERE ", 1)[1]


def _parse(con: duckdb.DuckDBPyConnection, expression: str) -> dict[str, Any]:
    """The tree of ``SELECT 1 FROM items WHERE (expression)``, and nothing beside it."""
    if not expression.strip():
        raise BadFilter("the filter is empty; leave it out, or say e.g. \"split = 'val'\"")
    wrapped = f"SELECT 1 FROM items WHERE ({expression}\n)"
    try:
        statements = duckdb.extract_statements(wrapped)
    except duckdb.Error as e:
        raise BadFilter(f"cannot read the filter {expression!r}: {error_message(e)}") from e
    text = con.execute("SELECT json_serialize_sql(?::VARCHAR)", [wrapped]).fetchall()[0][0]
    tree: dict[str, Any] = json.loads(text)
    if tree["error"] or len(statements) != 1 or len(tree["statements"]) != 1:
        raise BadFilter(f"a filter is one boolean expression such as \"split = 'val'\", not {expression!r}")
    node = tree["statements"][0]["node"]
    plain = node["type"] == "SELECT_NODE" and node["from_table"]["type"] == "BASE_TABLE" and not node["modifiers"]
    rest = ("group_expressions", "group_sets", "having", "qualify", "sample")
    if not plain or node["from_table"]["table_name"] != "items" or any(node.get(r) for r in rest):
        raise BadFilter(f"a filter is one boolean expression such as \"split = 'val'\", not {expression!r}")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every expression node below and including this one."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _check(node: dict[str, Any], expression: str, columns: Collection[str]) -> None:
    """Refuse a node that is not on the list."""
    kind = node["class"]
    if kind not in _CLASSES:
        raise BadFilter(f"a filter may not contain a {kind.lower()} ({expression!r}); use comparisons of columns")
    if kind == "FUNCTION" and node["function_name"].lower() not in _FUNCTIONS:
        raise BadFilter(
            f"a filter may not call {node['function_name']}(){did_you_mean(node['function_name'].lower(), _FUNCTIONS)}"
        )
    if kind == "TYPE" and node["type_name"].lower() not in _TYPES:
        raise BadFilter(
            f"a filter knows no type {node['type_name']!r}{did_you_mean(node['type_name'].lower(), _TYPES)}"
        )
    if kind == "COLUMN_REF":
        _check_column(node["column_names"], columns)


def _check_column(names: list[str], columns: Collection[str]) -> None:
    """Refuse a column that the items lack (``items.label`` is ``label``; ``meta.x`` is a struct's field)."""
    name = names[1] if len(names) > 1 and names[0].lower() == "items" else names[0]
    lower = {c.lower() for c in columns}
    if name.lower() not in lower:
        raise UnknownColumn(
            f"the items have no column {name!r}{did_you_mean(name.lower(), lower)}; they have "
            f"{', '.join(sorted(columns))}"
        )


def _prediction(node: dict[str, Any], columns: Collection[str], heads: Collection[str]) -> tuple[str, str] | None:
    """``(head, label or score)`` where the node is ``pred.NAME`` or ``pred.NAME.score``, else None."""
    names = node["column_names"] if node["class"] == "COLUMN_REF" else []
    names = names[1:] if names[:1] == ["items"] else names
    if len(names) < 2 or names[0].lower() != "pred" or "pred" in {c.lower() for c in columns}:
        return None
    found = next((h for h in heads if h.lower() == names[1].lower()), None)
    if found is None:
        raise UnknownColumn(
            f"no head {names[1]!r} has predicted anything{did_you_mean(names[1], heads)}; make pred.HEAD with "
            f"`embedstore predict STORE HEAD`{'; there are ' + ', '.join(sorted(heads)) if heads else ''}"
        )
    what = names[2].lower() if len(names) == 3 else "label"
    if len(names) > 3 or what not in ("label", "score"):
        raise UnknownColumn(f"pred.{found} has .label and .score, not {'.'.join(names[2:])!r}")
    return found, what


def _lookup(con: duckdb.DuckDBPyConnection, head: str, what: str, *, many: bool) -> dict[str, Any]:
    """The tree of a scalar subquery; ``item`` and ``content`` in it are those of the row that is filtered."""
    label = "coalesce(list(label ORDER BY score DESC, label) FILTER (WHERE label IS NOT NULL), [])"
    said = {"label": label, "score": "max(score)"}[what] if many else what
    sql = (
        f"SELECT (SELECT p.said FROM (SELECT item AS of_item, content AS of_content, {said} AS said FROM predictions "
        f"WHERE head = {quote_literal(head)} {'GROUP BY item, content' if many else ''}) AS p "
        "WHERE p.of_item = item AND p.of_content = content)"
    )
    tree = json.loads(con.execute("SELECT json_serialize_sql(?::VARCHAR)", [sql]).fetchall()[0][0])
    found: dict[str, Any] = tree["statements"][0]["node"]["select_list"][0]
    return found


def _become(node: dict[str, Any], other: dict[str, Any]) -> None:
    """Put another tree in a node's place."""
    node.clear()
    node.update(other)
