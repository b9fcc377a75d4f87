"""Names and texts as parts of an SQL statement. DuckDB is not imported: help texts need modules that use this one."""

from __future__ import annotations

from pathlib import Path


def quote_identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str | Path) -> str:
    """Return a text or a path as an SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"
