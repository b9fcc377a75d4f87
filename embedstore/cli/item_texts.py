"""Printed tables of items: where an item is a row of a table of texts, the text is next to its uri.

The text is the value that the store has; no file is opened for it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from embedstore.cli import console
from embedstore.errors import QueryError
from embedstore.storage.queries.query_texts import values_of_items

if TYPE_CHECKING:
    from embedstore.reports.results import Hits
    from embedstore.store import Store

SHOWN_TEXT = 60  # characters of a text in a table
_ROW = re.compile(r"#(?:encoding=[^&#/]+&)?column=([^&#/]+)&row=[0-9]+$")


def text_begin(text: str) -> str:
    """Return the begin of a text on one line."""
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_TEXT else f"{text[: SHOWN_TEXT - 1]}…"


def texts_of_hits(hits: Hits) -> dict[int, str]:
    """Return the text of each hit that is a row of a table of texts."""
    texts = {hit.item: hit.columns.get(column) for hit in hits if (column := _column(hit.uri)) is not None}
    return {item: text for item, text in texts.items() if isinstance(text, str)}


def texts_of_items(store: Store, uris: Mapping[int, str]) -> dict[int, str]:
    """Return the text of each item that is a row of a table of texts.

    Args:
        store: the store.
        uris: the uris of the items, by their ids.
    """
    items = defaultdict(list)
    for item, uri in uris.items():
        if (column := _column(uri)) is not None:
            items[column].append(item)
    return {item: text for column, ids in items.items() for item, text in _values(store, column, ids).items()}


def print_items(names: Sequence[str], rows: Sequence[Sequence[Any]], texts: Mapping[int, str]) -> None:
    """Print a table with the columns ``item`` and ``uri``, and before the last one the texts, if there are any.

    Args:
        names: the names of the columns.
        rows: their values.
        texts: by the ids of items.
    """
    if texts:
        item, at = names.index("item"), names.index("uri")
        rows = [[*row[:at], text_begin(texts.get(row[item], "")), *row[at:]] for row in rows]
        names = [*names[:at], "text", *names[at:]]
    console.print_table(names, rows)


def _column(uri: str) -> str | None:
    """Return the column that the uri of a row names; None for another uri."""
    match = _ROW.search(uri)
    return unquote(match[1]) if match else None


def _values(store: Store, column: str, items: Sequence[int]) -> dict[int, str]:
    """Return the texts in a column of items; none where the store has no such column, as of images."""
    try:
        rows = store.sql(values_of_items(column, items)).rows
    except QueryError:
        return {}
    return {item: text for item, text in rows if isinstance(text, str)}
