"""The texts of one column, which a lexical index is made of."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb

from embedstore.storage.quoting import quote_identifier

_FETCH_ROWS = 4096  # texts in memory at a time: one may be a whole document


def texts_fingerprint(con: duckdb.DuckDBPyConnection, column: str) -> str:
    """Return what changes whenever a text of the present items, or the set of these items, changes.

    Args:
        con: the open catalog.
        column: a column of the items, as the catalog spells it.
    """
    name = quote_identifier(column)
    row = con.execute(
        f"SELECT count(*), coalesce(bit_xor(hash(item, {name}::VARCHAR)), 0) FROM items "
        f"WHERE present AND {name} IS NOT NULL"
    ).fetchone()
    count, digest = row or (0, 0)
    return f"{count}-{digest:016x}"


def read_texts(con: duckdb.DuckDBPyConnection, column: str) -> Iterator[tuple[int, str]]:
    """Yield the id and the text of every present item that has one, by ascending id.

    Args:
        con: the open catalog; no other statement may run on it meanwhile.
        column: a column of the items, as the catalog spells it.
    """
    name = quote_identifier(column)
    cursor = con.execute(f"SELECT item, {name}::VARCHAR FROM items WHERE present AND {name} IS NOT NULL ORDER BY item")
    while rows := cursor.fetchmany(_FETCH_ROWS):
        yield from rows
