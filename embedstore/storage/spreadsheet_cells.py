"""Cells of CSV files that a spreadsheet would run as a formula, written so that it shows them as text.

A spreadsheet runs a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break (OWASP, "CSV Injection";
the full-width forms are formulas too where they are typed). Such text gets an apostrophe in front; text that has
apostrophes before such a character already gets one more, so that taking one away gives back every text. Numbers stay
numbers.
"""

from __future__ import annotations

import re
from typing import Any

from embedstore.storage.quoting import quote_literal

_FORMULA = "[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]"
_PROTECTED = re.compile(f"'*{_FORMULA}")
_NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def protect_cell(value: Any) -> Any:
    """Return a value as the cell of a CSV file; only text changes."""
    if not isinstance(value, str) or not _PROTECTED.match(value) or _NUMBER.fullmatch(value):
        return value
    return "'" + value


def restore_cell(text: str) -> str:
    """Return the text of a cell; the inverse of :func:`protect_cell`."""
    return text[1:] if text.startswith("'") and _PROTECTED.match(text) else text


def restore_sql(column: str) -> str:
    """Return :func:`restore_cell` of a text column as an SQL expression.

    Args:
        column: the column, quoted.
    """
    pattern = quote_literal(f"^'+{_FORMULA}")
    return f"CASE WHEN regexp_matches({column}, {pattern}) THEN {column}[2:] ELSE {column} END"
