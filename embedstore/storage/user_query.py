"""Queries of a user: one statement that reads the tables of the store, and nothing else.

Two things hold independently. DuckDB's own parser must read the text as one SELECT (``WITH``, ``FROM``, ``VALUES``,
``DESCRIBE``, ``SUMMARIZE`` and ``SHOW`` are SELECTs to it) or an EXPLAIN of one, without changing statements inside it
and without functions that read files or settings. And the query runs on a connection of its own, where the catalog is
attached read-only, files and the network are switched off, and no setting can be changed; it is closed afterwards, so
nothing of a query reaches the next one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import duckdb

from embedstore.errors import QueryError, QueryTooLarge, UnknownColumn
from embedstore.storage.catalog import Catalog
from embedstore.storage.column_names import PREDICTIONS, find_column
from embedstore.storage.interrupt import interrupt_after
from embedstore.storage.predicted_columns import PredictingHeads, predicting_heads, quote_hint
from embedstore.storage.python_values import exact_query
from embedstore.storage.query_limits import QueryLimits, python_bytes, size_text
from embedstore.storage.sql import column_types, error_message
from embedstore.storage.syntax_tree import Node, iter_nodes, parse_select, to_sql

Rows = list[tuple[Any, ...]]

_FETCH_ROWS = 2048  # DuckDB's vectors have as many
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"}
_TABLE_FUNCTIONS = set(
    "range generate_series unnest json_each json_tree repeat repeat_row generate_subscripts histogram histogram_values "
    "duckdb_tables duckdb_columns duckdb_types duckdb_functions pragma_table_info".split()
)
_REFUSED_FUNCTIONS = set("getenv current_setting getvariable write_log nextval currval setseed file_exists".split())
_REFUSED_TABLES = {"databases", "duckdb_databases", "duckdb_settings", "pg_settings"}
_STATEMENTS = "SELECT, WITH, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN"
_COMMENTS = r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*"
_EXPLAIN = re.compile(
    rf"{_COMMENTS}EXPLAIN\b(?:\s*\((?:\s*(?:ANALYZE|FORMAT)\b[^()]*)\)|\s+ANALYZE\b)?", re.IGNORECASE | re.DOTALL
)


def run_query(catalog: Catalog, query: str, parameters: Sequence[Any], limits: QueryLimits) -> tuple[list[str], Rows]:
    """Run a query, and return column names and rows.

    Args:
        catalog: the catalog to read.
        query: one statement.
        parameters: values for its ``?``.
        limits: the limits of time and memory.

    Raises:
        QueryError: if the query is not one statement that reads the tables, or DuckDB rejects it.
        UnknownColumn: if it names a prediction that does not exist.
        QueryTimeout: if it takes longer than its limit.
        QueryTooLarge: if it takes more memory than its limit.
        StoreBusy: if another process has not released the catalog within 30 s.
        StoreDamaged: if the catalog is corrupt.
    """
    too_slow = (
        f"the query took more than {limits.seconds:g} s; raise the limit with --timeout SECONDS (in Python timeout=), "
        "or read fewer rows"
    )
    with catalog.read_restricted(limits.memory_bytes) as con, interrupt_after(con, limits.seconds, too_slow):
        try:
            result = con.execute(_exact(con, compile_query(con, query), parameters), list(parameters))
            names = [d[0] for d in result.description or []]
            return names, _fetch(result, limits)
        except (QueryError, duckdb.InterruptException):
            raise
        except (duckdb.OutOfMemoryException, MemoryError) as e:
            raise _too_large(limits) from e
        except (duckdb.Error, ValueError, OverflowError, TypeError) as e:
            raise QueryError(" ".join(str(e).split("\n\nLINE", 1)[0].split())) from e


def compile_query(con: duckdb.DuckDBPyConnection, query: str) -> str:
    """Return a checked query as SQL for the attached catalog.

    Args:
        con: the open catalog.
        query: one statement.

    Raises:
        QueryError: if it is anything but one statement that reads the tables of the store.
        UnknownColumn: if it names a prediction that does not exist.
    """
    _require_one_statement(con, query)
    explain = _EXPLAIN.match(query)
    prefix, body = (explain[0], query[explain.end() :]) if explain else ("", query)
    tree = parse_select(con, body)
    if tree["error"] or len(tree["statements"]) != 1:
        raise _refused(query)
    for node in iter_nodes(tree):
        _check(node, query)
    if PREDICTIONS not in body.lower():
        return query
    _PredictionLookups(con, predicting_heads(con), find_column(PREDICTIONS, column_types(con, "items"))).replace(
        tree, []
    )
    return f"{prefix} {to_sql(con, tree)}"


def _exact(con: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[Any]) -> str:
    """Return a checked query whose values lose nothing as Python objects."""
    if _EXPLAIN.match(query):
        return query
    described = con.execute(f"DESCRIBE {query}", list(parameters)).fetchall()
    return exact_query(query, [(name, kind) for name, kind, *_ in described])


def _fetch(result: duckdb.DuckDBPyConnection, limits: QueryLimits) -> Rows:
    """Return all rows of a result, as long as they fit."""
    rows: Rows = []
    size = 0
    while block := result.fetchmany(_FETCH_ROWS):
        rows += block
        size += sum(map(python_bytes, block))
        if size > limits.memory_bytes:
            raise _too_large(limits)
    return rows


def _too_large(limits: QueryLimits) -> QueryTooLarge:
    """Return the error of a query that takes too much memory."""
    return QueryTooLarge(
        f"the query takes more than {size_text(limits.memory_bytes)} of memory; raise the limit with --memory SIZE "
        "(in Python memory=), or read fewer rows, e.g. with LIMIT"
    )


def _require_one_statement(con: duckdb.DuckDBPyConnection, query: str) -> None:
    """Raise if a text has a syntax error or another number of statements than one."""
    try:
        statements = con.extract_statements(query)
    except duckdb.ParserException as e:
        raise QueryError(f"cannot read the query: {error_message(e)}{quote_hint(query)}") from e
    except (duckdb.Error, ValueError) as e:  # a kind of statement that DuckDB's Python package does not know yet
        raise _refused(query) from e
    if len(statements) != 1:
        raise QueryError(f"a query is one statement, not {len(statements)}: {_shorten(query)}")
    if statements[0].type is duckdb.StatementType.MULTI:
        raise QueryError("PIVOT needs the values that become columns, e.g. PIVOT items ON label IN ('cat', 'dog')")


def _refused(query: str) -> QueryError:
    """Return the error of a statement that does more than read."""
    return QueryError(
        f"a query is one {_STATEMENTS} statement and changes nothing, unlike {_shorten(query)}; change items with "
        "`embedstore edit STORE TABLE`, and write files with `embedstore export STORE FOLDER`"
    )


def _shorten(query: str) -> str:
    """Return the beginning of a query for a message."""
    text = " ".join(query.split())
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _check(node: Node, query: str) -> None:
    """Raise if a part of a statement changes something, or reads anything but the tables of the store."""
    kind = str(node.get("type", ""))
    if kind.endswith("_NODE") and kind not in _READING_NODES:
        raise _refused(query)
    if kind == "TABLE_FUNCTION" and (name := node["function"]["function_name"].lower()) not in _TABLE_FUNCTIONS:
        raise QueryError(f"a query may not read {name}(): it reads the tables of the store only")
    if node.get("class") == "FUNCTION" and (name := node["function_name"].lower()) in _REFUSED_FUNCTIONS:
        raise QueryError(f"a query may not call {name}(): it reads the tables of the store, no files and no settings")
    if kind in ("BASE_TABLE", "SHOW_REF") and str(node["table_name"]).strip('"').lower() in _REFUSED_TABLES:
        raise QueryError(f"a query may not read {node['table_name']}: it reads the tables of the store only")


class _PredictionLookups:
    """Replaces ``pred.NAME`` by a lookup, in every SELECT whose tables include the items.

    Args:
        con: the open catalog.
        heads: the heads that may be named.
        own_column: a column ``pred`` of the user's, which an old store may have: it is ``items.pred``.
    """

    def __init__(self, con: duckdb.DuckDBPyConnection, heads: PredictingHeads, own_column: str | None) -> None:
        self._con = con
        self._heads = heads
        self._own_column = own_column

    def replace(self, tree: Any, scopes: list[list[tuple[str, bool]]]) -> None:
        """Replace the names in a tree.

        Args:
            tree: a part of a statement.
            scopes: ``(name, whether it is the table of items)`` of the tables of each enclosing SELECT, outermost
                first.
        """
        if isinstance(tree, list):
            for child in tree:
                self.replace(child, scopes)
            return
        if not isinstance(tree, dict):
            return
        if tree.get("class") == "COLUMN_REF":
            self._replace_column(tree, scopes)
            return
        if tree.get("type") == "SELECT_NODE":
            scopes = [*scopes, list(_tables(tree["from_table"]))]
            for column in tree["select_list"]:
                self._keep_name(column, scopes)
        for child in tree.values():
            self.replace(child, scopes)

    def _keep_name(self, column: Node, scopes: list[list[tuple[str, bool]]]) -> None:
        """Name a column of the result as if it were a column of the items."""
        if column.get("class") == "COLUMN_REF" and (parts := self._parts(column["column_names"], scopes)):
            column["alias"] = column["alias"] or self._heads.parse(parts[1], own_column=self._own_column).name

    def _replace_column(self, node: Node, scopes: list[list[tuple[str, bool]]]) -> None:
        """Replace one name if it is a prediction."""
        parts = self._parts(node["column_names"], scopes)
        if parts is None:
            return
        alias = node["alias"]
        lookup = self._heads.lookup(self._con, self._heads.parse(parts[1], own_column=self._own_column), parts[0])
        node.clear()
        node.update(lookup, alias=alias)

    def _parts(
        self, names: Sequence[str], scopes: Sequence[Collection[tuple[str, bool]]]
    ) -> tuple[str, Sequence[str]] | None:
        """Return the name of the items' table and what follows ``pred``, or None for an ordinary column.

        Raises:
            UnknownColumn: if no enclosing SELECT reads the items, or one reads them twice.
        """
        for scope in reversed(scopes if self._own_column is None else []):
            aliases = {name.lower(): name for name, is_items in scope if is_items}
            if len(names) > 2 and names[0].lower() in aliases and names[1].lower() == PREDICTIONS:
                return aliases[names[0].lower()], names[2:]
        if (
            len(names) < 2
            or names[0].lower() != PREDICTIONS
            or any(name.lower() == PREDICTIONS for s in scopes for name, _ in s)
        ):
            return None
        for scope in reversed(scopes):
            found = [name for name, is_items in scope if is_items]
            if len(found) > 1:
                raise UnknownColumn(
                    f"{'.'.join(names)} may be of {' or '.join(found)}; write {found[0]}.{'.'.join(names)}"
                )
            if found:
                return found[0], names[1:]
        raise UnknownColumn(f"{'.'.join(names)} needs the table items in the same SELECT, e.g. FROM items")


def _tables(table: Any) -> Iterator[tuple[str, bool]]:
    """Yield the name of each table of a FROM clause, and whether it is the table of items."""
    if not isinstance(table, dict):
        return
    if table.get("type") == "JOIN":
        yield from _tables(table["left"])
        yield from _tables(table["right"])
    elif "alias" in table:
        name = table["alias"] or table.get("table_name", "")
        yield name, table["type"] == "BASE_TABLE" and table["table_name"].lower() == "items"
