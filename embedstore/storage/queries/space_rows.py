"""Changes of the table ``spaces``."""

from __future__ import annotations

import duckdb

from embedstore.space import Recipe, Space
from embedstore.storage.sql import fetch_column, fetch_value, utc_now


def stored_form(con: duckdb.DuckDBPyConnection, key: str) -> tuple[int, str] | None:
    """Return the length and type of the vectors of a space, None if there is no such space."""
    row = con.execute("SELECT dim, dtype FROM spaces WHERE space = ?", [key]).fetchone()
    return row and (int(row[0]), str(row[1]))


def put_space(con: duckdb.DuckDBPyConnection, space: Space, *, name: str, dtype: str, recipe: Recipe | None) -> None:
    """Insert a space; the first one becomes the default. Of a known space only the recipe is replaced.

    Args:
        con: a transaction.
        space: what the vectors mean.
        name: the name to use, with a number after it if another space has it.
        dtype: ``float16`` or ``float32``, of the vectors on disk.
        recipe: how to load the backbone again; None for precomputed vectors.
    """
    recipe_json = recipe and recipe.to_json()
    if fetch_value(con, "SELECT count(*) FROM spaces WHERE space = ?", [space.key]):
        con.execute("UPDATE spaces SET recipe = ? WHERE space = ?", [recipe_json, space.key])
        return
    used = set(fetch_column(con, "SELECT name FROM spaces"))
    con.execute(
        "INSERT INTO spaces VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [space.key, _free_name(name, used), not used, space.dim, dtype, recipe_json, space.to_json(), utc_now()],
    )


def space_descriptions(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str, str, str | None]]:
    """Return key, name, dtype, facts and recipe of every space, the last two as JSON."""
    return con.execute(
        "SELECT space, name, dtype, facts::VARCHAR, recipe::VARCHAR FROM spaces ORDER BY space"
    ).fetchall()


def set_default_space(con: duckdb.DuckDBPyConnection, key: str) -> None:
    """Make a space the one that is used when none is named."""
    con.execute("UPDATE spaces SET current = (space = ?)", [key])


def rename_space(con: duckdb.DuckDBPyConnection, key: str, name: str) -> None:
    """Give a space another name."""
    con.execute("UPDATE spaces SET name = ? WHERE space = ?", [name, key])


def heads_of_space(con: duckdb.DuckDBPyConnection, key: str) -> list[str]:
    """Return the names of the heads that were trained in a space."""
    return fetch_column(con, "SELECT head FROM heads WHERE space = ? ORDER BY head", [key])


def delete_space(con: duckdb.DuckDBPyConnection, key: str) -> int:
    """Delete a space with its vectors, vector files and failures, and return the number of its vectors."""
    vectors = fetch_value(con, "SELECT count(*) FROM vectors WHERE space = ?", [key])
    for table in ("vectors", "shards", "failures", "spaces"):
        con.execute(f"DELETE FROM {table} WHERE space = ?", [key])
    return int(vectors)


def _free_name(name: str, used: set[str]) -> str:
    """Return ``name``, or the first of ``name-2``, ``name-3`` … that is free."""
    free, n = name, 1
    while free in used:
        n += 1
        free = f"{name}-{n}"
    return free
