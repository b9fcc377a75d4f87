"""Queries about the images that fine-tuning reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from embedstore.storage.sql import content_hex, decode_path

if TYPE_CHECKING:
    from embedstore.storage.storage import Storage


def image_files(storage: Storage, items: list[int] | None = None) -> dict[int, tuple[str, str]]:
    """Return path and content hash (32 hexadecimal digits) of the items with a content, by item.

    Args:
        storage: the store.
        items: ids to look up; None for every item.
    """
    query = "SELECT item, uri, path, content::VARCHAR FROM items WHERE content IS NOT NULL"
    rows = storage.sql(query)[1] if items is None else storage.sql(f"{query} AND list_contains(?, item)", [items])[1]
    return {item: (decode_path(uri, path), content_hex(content)) for item, uri, path, content in rows}


def count_image_contents(storage: Storage) -> int:
    """Return the number of contents of the present items that came from an image file."""
    query = "SELECT count(DISTINCT content) FROM items JOIN contents USING (content) WHERE present AND bytes > 0"
    return int(storage.sql(query)[1][0][0])
