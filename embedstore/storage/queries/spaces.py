"""Queries over spaces: what they hold and how fast they were filled."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedstore.storage.storage import Storage


def spaces_with_vectors(storage: Storage) -> set[str]:
    """Return the keys of the spaces that hold vectors."""
    return {key for (key,) in storage.sql("SELECT DISTINCT space FROM shards")[1]}


def contents_without_vector(storage: Storage, space: str) -> int:
    """Return how many contents of present items have no vector in a space."""
    query = (
        "SELECT count(DISTINCT content) FROM items WHERE present AND content IS NOT NULL "
        "AND content NOT IN (SELECT content FROM vectors WHERE space = ?)"
    )
    return int(storage.sql(query, [space])[1][0][0])


def embedding_speed(storage: Storage, space: str) -> float | None:
    """Return the images per second of the largest embedding run of a space, None if there was none."""
    query = (
        "SELECT (result->>'images_per_second')::DOUBLE FROM runs WHERE verb = 'embed' AND space = ? "
        "AND (result->>'embedded')::BIGINT > 0 ORDER BY (result->>'embedded')::BIGINT DESC, run DESC LIMIT 1"
    )
    rows = storage.sql(query, [space])[1]
    return rows[0][0] if rows else None
