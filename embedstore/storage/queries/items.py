"""Queries over items: where they are, and which of them have vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embedstore.storage.storage import Storage


ItemFile = tuple[str, bytes | None]  # uri, and the raw path where the uri is not valid UTF-8


def count_items(storage: Storage) -> int:
    """Return how many items there are."""
    return int(storage.sql("SELECT count(*) FROM items")[1][0][0])


def item_uris(storage: Storage, items: Sequence[int]) -> dict[int, str]:
    """Return the uri of each item."""
    if not items:
        return {}
    rows = storage.sql("SELECT item, uri FROM items WHERE list_contains(?, item)", [list(items)])[1]
    return dict(rows)


def item_files(storage: Storage, items: Sequence[int]) -> dict[int, ItemFile]:
    """Return uri and raw path of each item, to read its file again."""
    if not items:
        return {}
    rows = storage.sql("SELECT item, uri, path FROM items WHERE list_contains(?, item)", [list(items)])[1]
    return {item: (uri, path) for item, uri, path in rows}


def embedded_files(storage: Storage, space: str, limit: int) -> list[ItemFile]:
    """Return the files of the first present items that have a vector in a space."""
    query = (
        "SELECT i.uri, i.path FROM items i JOIN vectors v ON v.content = i.content "
        "WHERE v.space = ? AND i.present ORDER BY i.item LIMIT ?"
    )
    return [(uri, path) for uri, path in storage.sql(query, [space, limit])[1]]


def content_files(storage: Storage) -> list[tuple[str, bytes | None, str, int, int]]:
    """Return uri, raw path, content, size and mtime of every present item whose content came from a file."""
    query = """
        SELECT i.uri, i.path, i.content::VARCHAR, i.size, i.mtime_ns FROM items i JOIN contents c USING (content)
        WHERE i.present AND c.bytes IS DISTINCT FROM 0 ORDER BY i.item
    """
    return [(u, p, c.replace("-", ""), s, m) for u, p, c, s, m in storage.sql(query)[1]]


def failures(storage: Storage) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Return column names and rows of the images that could not be embedded."""
    return storage.sql("SELECT uri, reason, detail, size, failed FROM failures ORDER BY uri")


def failed_files(storage: Storage) -> list[ItemFile]:
    """Return uri and raw path of the images that could not be embedded, in the order of :func:`failures`."""
    return [(uri, path) for uri, path in storage.sql("SELECT uri, path FROM failures ORDER BY uri")[1]]
