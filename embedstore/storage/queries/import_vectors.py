"""What an import of precomputed vectors asks about items that exist."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from embedstore.storage.sql import content_hex, object_array


def items_by_uri(
    con: duckdb.DuckDBPyConnection, space: str, uris: Sequence[str]
) -> list[tuple[str, int, str, int | None, int | None]]:
    """Return uri, item, content, and shard and row of the content's vector in the space, for the uris that exist."""
    wanted = {"uri": object_array(uris)}  # noqa: F841 - read by SQL
    rows = con.execute(
        'SELECT i.uri, i.item, i.content::VARCHAR, v.shard, v."row" FROM items i '
        "LEFT JOIN vectors v ON v.content = i.content AND v.space = ? "
        "WHERE i.uri IN (SELECT uri FROM wanted)",
        [space],
    ).fetchall()
    return [(uri, item, content_hex(content), shard, row) for uri, item, content, shard, row in rows]


def contents_with_vectors(con: duckdb.DuckDBPyConnection, space: str, digests: Sequence[str]) -> set[str]:
    """Return which of the contents have a vector in the space."""
    wanted = {"content": object_array(digests)}  # noqa: F841 - read by SQL
    rows = con.execute(
        "SELECT content::VARCHAR FROM vectors WHERE space = ? AND content IN (SELECT content::UUID FROM wanted)",
        [space],
    ).fetchall()
    return {content_hex(content) for (content,) in rows}
