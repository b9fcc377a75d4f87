"""Syntax trees of SQL as DuckDB's parser writes them: to check a user's text, and to write a checked tree as text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import duckdb

from embedstore.storage.sql import fetch_value

Node: TypeAlias = dict[str, Any]


def parse_select(con: duckdb.DuckDBPyConnection, sql: str) -> Node:
    """Return the tree of SELECT statements. Its ``error`` is true for any other statement and for a syntax error."""
    tree: Node = json.loads(fetch_value(con, "SELECT json_serialize_sql(?::VARCHAR)", [sql]))
    return tree


def to_sql(con: duckdb.DuckDBPyConnection, tree: Node) -> str:
    """Return the text of a tree; the inverse of :func:`parse_select`."""
    return str(fetch_value(con, "SELECT json_deserialize_sql(?)", [json.dumps(tree)]))


def iter_nodes(tree: Any) -> Iterator[Node]:
    """Yield every mapping of a tree: statements, tables and expressions, each before its children."""
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from iter_nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from iter_nodes(child)


def iter_expressions(tree: Any) -> Iterator[Node]:
    """Yield every expression of a tree, its root included."""
    return (node for node in iter_nodes(tree) if "class" in node)
