"""The present items as a source of files, staged on the catalog's private connection."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from embedstore.modality import Modality
from embedstore.storage.queries.modalities import of_modality
from embedstore.storage.sql import decode_path, fetch_value, object_array

_FROM_FILES = "JOIN contents c ON c.content = i.content WHERE i.present AND c.bytes IS DISTINCT FROM 0"
_OF_CONTENTS = "WHERE i.present AND i.content IN (SELECT content::UUID FROM rows)"


def stage_present_items(
    con: duckdb.DuckDBPyConnection, contents: Sequence[str] | None = None, *, modality: Modality = Modality.IMAGE
) -> int:
    """Stage the present items of a modality whose content came from a file, or those that have one of ``contents``.

    Returns:
        How many there are.
    """
    rows = {"content": object_array(contents or [])}  # noqa: F841 - read by SQL
    chosen = f"{_FROM_FILES} AND {of_modality('i.content', modality)}" if contents is None else _OF_CONTENTS
    con.execute(
        "CREATE OR REPLACE TABLE memory.main.source_items AS "
        "SELECT row_number() OVER (ORDER BY i.item) - 1 AS n, i.uri, i.path, i.label, i.split, i.group_id "
        f"FROM items i {chosen}"
    )
    return int(fetch_value(con, "SELECT count(*) FROM memory.main.source_items"))


def staged_items(
    con: duckdb.DuckDBPyConnection, first: int, count: int
) -> list[tuple[str, str | None, str | None, str | None]]:
    """Return path, label, split and group of the staged items with numbers from ``first``."""
    rows = con.execute(
        "SELECT uri, path, label, split, group_id FROM memory.main.source_items WHERE n >= ? AND n < ? ORDER BY n",
        [first, first + count],
    ).fetchall()
    return [(decode_path(uri, raw), *facts) for uri, raw, *facts in rows]


def drop_staged_items(con: duckdb.DuckDBPyConnection) -> None:
    """Free the memory of the staged items."""
    con.execute("DROP TABLE IF EXISTS memory.main.source_items")
