"""Vectors that were imported for items before the images of these items were read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import duckdb

from embedstore.storage.sql import fetch_value, object_array


class ImportedVector(NamedTuple):
    """One vector of a content without a file, and the content that its item is about to have."""

    space: str
    shard: int
    row: int
    content: str


def vectors_to_carry(con: duckdb.DuckDBPyConnection, items: Sequence[tuple[int, str]]) -> list[ImportedVector]:
    """Return the imported vectors of items whose image was read for the first time.

    Args:
        con: an open catalog.
        items: ``(item, content of its file)``.

    Returns:
        One vector per space and new content, for the contents that have none in the space.
    """
    if not fetch_value(con, "SELECT EXISTS (FROM contents WHERE bytes = 0)"):
        return []
    rows = {"item": object_array([i for i, _ in items]), "content": object_array([c for _, c in items])}  # noqa: F841 - read by SQL
    found = con.execute(
        'SELECT v.space, v.shard, v."row"::BIGINT, r.content FROM rows r JOIN items i ON i.item = r.item::BIGINT '
        "JOIN contents c ON c.content = i.content AND c.bytes = 0 JOIN vectors v ON v.content = i.content "
        "WHERE i.content <> r.content::UUID AND NOT EXISTS "
        "(FROM vectors w WHERE w.space = v.space AND w.content = r.content::UUID) "
        "QUALIFY row_number() OVER (PARTITION BY v.space, r.content ORDER BY i.item) = 1 ORDER BY 1, 2, 3"
    )
    return [ImportedVector._make(row) for row in found.fetchall()]
