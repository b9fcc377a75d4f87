"""Numbers with a decimal comma, as spreadsheets of many countries write them.

Such a spreadsheet separates cells by semicolons, or by tabs in its "Unicode text", because the comma is taken. In these
files a column of numbers with commas is read as numbers; in a file separated by commas nothing is changed.
"""

from __future__ import annotations

from enum import Enum, auto

import duckdb

from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import first_row

DELIMITERS_OF_COMMAS = (";", "\t")
_NUMBER = r"[+-]?(0|[1-9][0-9]*)(,[0-9]+)?([eE][+-]?[0-9]+)?"
_THOUSANDS = r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+"  # 1,234 is another number in another country


class Commas(Enum):
    """What the commas in a column of text are."""

    NONE = auto()  # none, or in text that is no number
    DECIMAL = auto()
    UNCLEAR = auto()  # decimal commas, or separators of thousands


def commas_of(con: duckdb.DuckDBPyConnection, table: str, column: str) -> Commas:
    """Return what the commas in a column are, judged by all of its cells."""
    cell = f"trim({quote_identifier(column)})"
    query = (
        f"SELECT bool_and(regexp_full_match({cell}, {quote_literal(_NUMBER)})), bool_or(contains({cell}, ',')), "
        f"bool_and(NOT contains({cell}, ',') OR regexp_full_match({cell}, {quote_literal(_THOUSANDS)})) "
        f"FROM {table} WHERE {cell} <> ''"
    )
    numbers, commas, thousands = first_row(con.execute(query))
    if not numbers or not commas:
        return Commas.UNCLEAR if commas and thousands else Commas.NONE
    return Commas.UNCLEAR if thousands else Commas.DECIMAL


def replace_commas(con: duckdb.DuckDBPyConnection, table: str, column: str) -> None:
    """Write the numbers of a column with points."""
    name = quote_identifier(column)
    con.execute(f"UPDATE {table} SET {name} = ltrim(replace(trim({name}), ',', '.'), '+')")
