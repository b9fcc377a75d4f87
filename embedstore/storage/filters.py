"""Filters: one boolean SQL expression over the items, parsed by DuckDB and checked against a list of what is allowed.

The user's text is never run: its syntax tree may contain only comparisons, boolean logic, arithmetic, casts and the
functions listed here, and the SQL made from the checked tree is what runs. Subqueries are not allowed, so a filter
reads no other table or file.

A column is ``NAME`` or ``items.NAME``. In the SQL that runs every column is qualified, so that no name means anything
else. Besides the items' columns a filter may name predictions: ``pred.NAME`` and ``pred.NAME.score``.
See :mod:`embedstore.storage.predicted_columns`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager

import duckdb

from embedstore.errors import BadFilter, UnknownColumn, did_you_mean
from embedstore.storage import connection
from embedstore.storage.column_names import ITEMS, PREDICTIONS, find_column, find_item_column
from embedstore.storage.interrupt import interrupt_after
from embedstore.storage.predicted_columns import PredictedColumn, PredictingHeads, predicting_heads, quote_hint
from embedstore.storage.query_limits import FILTER_VARIABLE, filter_seconds
from embedstore.storage.quoting import quote_literal
from embedstore.storage.sql import column_types, error_message
from embedstore.storage.syntax_tree import Node, iter_expressions, parse_select, to_sql
from embedstore.text_form import is_unicode

_WRAPPER = "SELECT 1 FROM items WHERE ("  # what stands before a filter when DuckDB parses it
_POINTER = re.compile(r"(LINE (\d+): )(.*)\n( *)\^")

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
    "left right contains starts_with ends_with string_split prefix suffix replace strip_accents reverse split_part "
    "concat like_escape not_like_escape ilike_escape not_ilike_escape regexp_matches regexp_full_match regexp_extract "
    "levenshtein jaccard "
    "year month day hour minute second quarter week dayofweek dayofyear date_part datepart date_diff date_trunc "
    "epoch strftime strptime make_date to_days to_months to_years "
    "list_contains list_has array_contains len isnan isinf isfinite hash list_value parse_filename parse_dirname "
    "struct_extract array_extract list_extract".split()
)

FUNCTION_NAMES = sorted(f for f in _FUNCTIONS if f.replace("_", "").isalnum())  # what completion offers

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
        return compile_expression(where, columns)
    return compile_expression(where, columns, predicting_heads(con, known_heads))


# What an expression raises whose values do not fit.
VALUE_ERRORS = (duckdb.DataError, duckdb.BinderException, duckdb.InvalidInputException)


@contextmanager
def filter_errors(con: duckdb.DuckDBPyConnection, where: str | None) -> Iterator[None]:
    """Limit the time of a query that runs a filter, and report its errors as errors of the filter.

    Args:
        con: the connection that runs the query.
        where: the filter; None leaves the query as it is.

    Raises:
        BadFilter: if the filter does not fit the values, such as a comparison of text with a number.
        QueryTimeout: if the query takes too long.
    """
    if where is None:
        yield
        return
    try:
        with time_limit(con, where):
            yield
    except VALUE_ERRORS as e:
        hint = "; for a head that predicts sets use list_contains(pred.NAME, 'cat')" if "[]" in str(e) else ""
        raise BadFilter(f"the filter {where!r} does not fit the items: {error_message(e)}{hint}") from e


def time_limit(con: duckdb.DuckDBPyConnection, expression: str) -> AbstractContextManager[None]:
    """Limit the time of a query that runs a filter or another expression of a user.

    Args:
        con: the connection that runs the query.
        expression: what the user wrote, for the message.

    Raises:
        QueryTimeout: on exit, if the query was interrupted.
        BadOption: if the environment variable that sets the limit is not a positive number.
    """
    seconds = filter_seconds()
    too_slow = (
        f"{expression!r} took more than {seconds:g} s; simplify it, or raise the limit with the environment variable "
        f"{FILTER_VARIABLE}=SECONDS"
    )
    return interrupt_after(con, seconds, too_slow)


def compile_expression(expression: str, columns: Collection[str], heads: PredictingHeads = PredictingHeads()) -> str:
    """Return the expression as DuckDB writes it from its checked syntax tree.

    Args:
        expression: e.g. ``"split = 'val' and year >= 2020"``.
        columns: the items' columns.
        heads: what may follow ``pred.``.

    Returns:
        SQL text of a boolean expression.

    Raises:
        BadFilter: if it is not one boolean expression, or contains something that is not allowed.
        UnknownColumn: if it names a column that the items do not have; lists similar names.
    """
    con = connection.parser()
    tree = _parse(con, expression)
    for node in list(iter_expressions(tree["statements"][0]["node"]["where_clause"])):
        try:
            column = _prediction(node, columns, heads)
            if column is None:
                _check(node, expression, columns)
                continue
        except (BadFilter, UnknownColumn) as e:
            e.position = _character(expression, node.get("query_location"))
            raise
        lookup = heads.lookup(con, column)
        node.clear()
        node.update(lookup)
    return to_sql(con, tree).split(" WHERE ", 1)[1]


def named_columns(expression: str, columns: Collection[str]) -> set[str]:
    """Return the columns of the items that an expression names.

    Args:
        expression: as in :func:`compile_expression`, which accepted it.
        columns: the items' columns.
    """
    tree = _parse(connection.parser(), expression)
    nodes = iter_expressions(tree["statements"][0]["node"]["where_clause"])
    parts = [node["column_names"] for node in nodes if node["class"] == "COLUMN_REF"]
    names = [p[1] if len(p) > 1 and p[0].lower() == ITEMS else p[0] for p in parts]
    return {column for name in names if (column := find_item_column(name, columns)) is not None}


def _parse(con: duckdb.DuckDBPyConnection, expression: str) -> Node:
    """Return the tree of ``SELECT 1 FROM items WHERE (expression)``; raise if the text is anything else."""
    if not expression.strip():
        raise BadFilter("the filter is empty; omit it, or write e.g. \"split = 'val'\"")
    if not is_unicode(expression):
        raise BadFilter(f"the filter {expression!r} is not Unicode text")
    wrapped = f"{_WRAPPER}{expression}\n)"
    try:
        statements = duckdb.extract_statements(wrapped)
    except duckdb.Error as e:
        bad = BadFilter(f"cannot read the filter {expression!r}: {error_message(e)}{quote_hint(expression)}")
        bad.position = _syntax_position(expression, str(e))
        raise bad from e
    tree = parse_select(con, wrapped)
    if tree["error"] or len(statements) != 1 or len(tree["statements"]) != 1:
        raise BadFilter(f"a filter is one boolean expression such as \"split = 'val'\", not {expression!r}")
    try:
        duckdb.extract_statements(f"SELECT 1 FROM items WHERE {expression}\n")
    except duckdb.Error:
        raise BadFilter(f"the parentheses of the filter {expression!r} do not match") from None
    node = tree["statements"][0]["node"]
    plain = node["type"] == "SELECT_NODE" and node["from_table"]["type"] == "BASE_TABLE" and not node["modifiers"]
    rest = ("group_expressions", "group_sets", "having", "qualify", "sample")
    if not plain or node["from_table"]["table_name"] != "items" or any(node.get(r) for r in rest):
        raise BadFilter(f"a filter is one boolean expression such as \"split = 'val'\", not {expression!r}")
    return tree


def _syntax_position(expression: str, message: str) -> int | None:
    """Return where in a filter DuckDB's message points, in characters; None where it shows a part of a long line."""
    pointer, lines = _POINTER.search(message), f"{_WRAPPER}{expression}\n)".split("\n")
    if pointer is None or not 1 <= int(pointer[2]) <= len(lines) or lines[int(pointer[2]) - 1] != pointer[3]:
        return None
    before = sum(len(line) + 1 for line in lines[: int(pointer[2]) - 1])
    return max(0, min(len(expression), before + len(pointer[4]) - len(pointer[1]) - len(_WRAPPER)))


def _character(expression: str, location: object) -> int | None:
    """Return the place in a filter of a byte of the query that wraps it; None where that is not known."""
    if not isinstance(location, int):
        return None
    text = expression.encode()
    byte = location - len(_WRAPPER)
    return len(text[:byte].decode(errors="ignore")) if 0 <= byte <= len(text) else None


def _check(node: Node, expression: str, columns: Collection[str]) -> None:
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
        f"the items have no column {name!r}{did_you_mean(name.lower(), lower)}; text stands in single quotes "
        f"({quote_literal(name)}); the columns are {', '.join(sorted(columns))}"
    )


def _prediction(node: Node, columns: Collection[str], heads: PredictingHeads) -> PredictedColumn | None:
    """Return the predicted column that a node names, None if it names none.

    A column ``pred`` of the user's, which old stores may have, is ``items.pred``.
    """
    if node["class"] != "COLUMN_REF":
        return None
    names, own = node["column_names"], find_column(PREDICTIONS, columns)
    if own is None and names[:1] == [ITEMS]:
        names = names[1:]
    if len(names) < 2 or names[0].lower() != PREDICTIONS:
        return None
    return heads.parse(names[1:], own_column=own)
