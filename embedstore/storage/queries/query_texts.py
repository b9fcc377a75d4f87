"""The texts of queries that other rooms run through the public verb :meth:`embedstore.Store.sql`."""

from __future__ import annotations

from collections.abc import Iterable

from embedstore.storage.quoting import quote_identifier

ALL_ITEMS = "FROM items ORDER BY item"
RECENT_FAILURES = "SELECT uri, reason, detail FROM failures ORDER BY failed DESC, uri LIMIT 10"
LABEL_SIZES = "SELECT count(*) FROM items WHERE present AND label IS NOT NULL GROUP BY label"
# a held-out item where there is one
EXAMPLE_URI = "SELECT uri FROM items WHERE present ORDER BY split = 'val' DESC NULLS LAST, label, item LIMIT 1"


def values_of_items(column: str, items: Iterable[int]) -> str:
    """Return the query for the values of a column of some items, each with the id of its item."""
    ids = ", ".join(map(str, items))
    return f"SELECT item, {quote_identifier(column)} FROM items WHERE item IN ({ids})"
