"""A condition as SQL of PostgreSQL, whose comparisons with NULL are those of DuckDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedstore.storage.portable_filter import RANGES, AllOf, Comparison, Condition, Operator


def condition_sql(condition: Condition, quote: Callable[[str], str]) -> tuple[str, list[Any]]:
    """Return SQL with places for parameters, and the parameters.

    Args:
        condition: the condition.
        quote: quotes the name of a column.
    """
    if isinstance(condition, Comparison):
        return _comparison(condition, quote(condition.column).replace("%", "%%"))
    parts = [condition_sql(part, quote) for part in condition.parts]
    word = " AND " if isinstance(condition, AllOf) else " OR "
    return f"({word.join(sql for sql, _ in parts)})", [value for _, values in parts for value in values]


def _comparison(found: Comparison, column: str) -> tuple[str, list[Any]]:
    """Return a comparison; texts are ordered by their bytes, as in DuckDB."""
    if found.operator in (Operator.IS_NULL, Operator.IS_NOT_NULL):
        return f"({column} {found.operator})", []
    if found.operator in (Operator.IN, Operator.NOT_IN):
        if not found.values:
            return "false" if found.operator is Operator.IN else "true", []
        places = ", ".join(["%s"] * len(found.values))
        return f"({column} {found.operator} ({places}))", list(found.values)
    (value,) = found.values
    by_bytes = ' COLLATE "C"' if isinstance(value, str) and found.operator in RANGES else ""
    return f"({column}{by_bytes} {found.operator} %s)", [value]
