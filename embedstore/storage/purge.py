"""Purge: remove contents with every item that has one of them, and what else the catalog knows of them.

After the next ``compact`` no file of the store holds their vectors, digests, uris or texts. Texts are removed from the
table ``runs`` too, where an edit or a filter may have named them. Backups and exports keep theirs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.storage import disk_errors
from embedstore.storage.item_changes import ItemSelection, delete_items, selected_items
from embedstore.storage.layout import Layout
from embedstore.storage.queries import computed_columns
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import column_types, content_hex, fetch_column, fetch_value
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer

_SHEET = "augmentation.png"  # of `embedstore.finetuning`
PURGED = "(purged)"  # in place of a text
MAX_TEXTS = 5000  # that are looked for one by one; if there are more, the texts of all runs are removed
_MIN_NUMBER = 6  # digits of a value that is not text: shorter ones are in every report by chance
_EDITING = ("edit", "rename", "delete", "purge")
_EDIT_TEXTS = ("set", "where", "old", "new", "table")


@dataclass(frozen=True)
class PurgedTexts:
    """What is known of purged items in words.

    Attributes:
        items: their ids.
        texts: their uris, digests, and values that no other item has.
    """

    items: frozenset[int]
    texts: frozenset[str]

    def matcher(self) -> Callable[[str], str]:
        """Return a function that replaces the texts where they stand as whole words."""
        if len(self.texts) > MAX_TEXTS:
            return lambda _: PURGED
        if not self.texts:
            return lambda text: text
        longest_first = sorted(self.texts, key=len, reverse=True)
        pattern = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)")
        return lambda text: pattern.sub(PURGED, text)


@dataclass(frozen=True)
class PurgePlan:
    """What a purge will remove, for what is stored outside of the catalog.

    Attributes:
        texts: uris, digests, and values that no other item has.
        rows: numbers of the vector file and the row of each vector, int64 ``(n,)`` each, by key of the space.
    """

    texts: frozenset[str]
    rows: Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]


def plan_purge(storage: Storage, selection: ItemSelection) -> PurgePlan:
    """Return what a purge will remove.

    Raises:
        QueryError: if an id does not exist.
        BadFilter: if the filter is not valid.
        UnknownColumn: if the filter names a column that the items do not have.
    """
    with storage.catalog.read() as con, selected_items(con, selection) as (table, _):
        texts = _purged_texts(con, table).texts
        columns = con.execute(
            f'SELECT space, shard, "row"::BIGINT AS r FROM vectors WHERE content IN (SELECT content FROM {table})'
        ).fetchnumpy()
    spaces, shards, rows = (np.asarray(columns[name]) for name in ("space", "shard", "r"))
    return PurgePlan(
        texts, {str(s): (shards[spaces == s].astype(np.int64), rows[spaces == s].astype(np.int64)) for s in set(spaces)}
    )


def purge(writer: Writer, selection: ItemSelection) -> dict[str, int]:
    """Remove the contents of items, every item that has one of them, and what else the catalog knows of them.

    Args:
        writer: the writer of the store.
        selection: the items.

    Returns:
        ``{"items", "contents", "vectors", "failures", "runs"}``: how many were removed, and how many runs lost texts.
        ``compact`` removes the bytes from the disk.

    Raises:
        QueryError: if an id does not exist.
        BadFilter: if the filter is not valid.
        UnknownColumn: if the filter names a column that the items do not have.
    """
    with writer.transaction() as con, selected_items(con, selection) as (table, _):
        known = _purged_texts(con, table)
        contents, items = f"SELECT content FROM {table}", _items(table)
        counts = {
            "items": _count(con, f"FROM items WHERE item IN ({items})"),
            "contents": _count(con, f"FROM (SELECT DISTINCT content FROM {table} WHERE content IS NOT NULL)"),
            "vectors": _count(con, f"FROM vectors WHERE content IN ({contents})"),
            "failures": _count(con, f"FROM failures WHERE uri IN (SELECT uri FROM items WHERE item IN ({items}))"),
        }
        con.execute(f"DELETE FROM failures WHERE uri IN (SELECT uri FROM items WHERE item IN ({items}))")
        con.execute(f"DELETE FROM vectors WHERE content IN ({contents})")
        con.execute(f"DELETE FROM contents WHERE content IN ({contents})")
        notices = computed_columns.stale_notes(con, selection.where)
        notices += delete_items(con, items)
        runs = _purge_runs(con, known)
    writer.notify(notices)
    return {**counts, "runs": runs}


def delete_augmentation_sheets(layout: Layout) -> int:
    """Delete the pictures of training images in checkpoints and in training runs to resume; return how many.

    Which images they show is not recorded.

    Raises:
        StoreIOError: if the disk fails.
    """
    sheets = [Path(folder, _SHEET) for folder, _, names in os.walk(layout.root) if _SHEET in names]
    with disk_errors.disk_errors(f"delete pictures of training images from {layout.root}"):
        for sheet in sheets:
            sheet.unlink(missing_ok=True)
    return len(sheets)


def _items(table: str) -> str:
    """Return a query for the selected items and those with the same contents."""
    return f"SELECT item FROM {table} UNION SELECT item FROM items WHERE content IN (SELECT content FROM {table})"


def _count(con: duckdb.DuckDBPyConnection, source: str) -> int:
    """Return the number of rows."""
    return int(fetch_value(con, f"SELECT count(*) {source}"))


def _purged_texts(con: duckdb.DuckDBPyConnection, table: str) -> PurgedTexts:
    """Return what the catalog knows in words of the items that will be purged.

    Args:
        con: the open catalog.
        table: the selected items.
    """
    purged = f"item IN ({_items(table)})"
    items = fetch_column(con, f"SELECT item FROM items WHERE {purged}")
    digests = [content_hex(c) for c in fetch_column(con, f"SELECT DISTINCT content::VARCHAR FROM {table}") if c]
    texts = {*digests, *(f"{d[:8]}-{d[8:12]}-{d[12:16]}-{d[16:20]}-{d[20:]}" for d in digests)}
    for column, kind in column_types(con, "items").items():
        if column not in ("item", "content", "split", "present", "added", "size", "path"):
            texts.update(_own_values(con, column, kind, purged))
    return PurgedTexts(frozenset(items), frozenset(_with_former_uris(con, texts)))


def _own_values(con: duckdb.DuckDBPyConnection, column: str, kind: str, purged: str) -> list[str]:
    """Return the values of a column that only purged items have, as text."""
    name = quote_identifier(column)
    if kind.endswith("[]"):
        name = f"unnest({name})"
    texts = f"SELECT DISTINCT trim(({name})::VARCHAR) AS t FROM items WHERE"
    least = 1 if kind.startswith("VARCHAR") else _MIN_NUMBER
    return fetch_column(
        con,
        f"SELECT t FROM ({texts} {purged}) WHERE length(t) >= {least} AND t NOT IN "
        f"(SELECT t FROM ({texts} NOT {purged}) WHERE t IS NOT NULL)",
    )


def _with_former_uris(con: duckdb.DuckDBPyConnection, texts: Iterable[str]) -> set[str]:
    """Add the uris that renamed items had before."""
    known = set(texts)
    rows = con.execute("SELECT settings FROM runs WHERE verb = 'rename' ORDER BY run DESC").fetchall()
    for settings in (json.loads(text) for (text,) in rows):
        old, new = settings.get("old"), settings.get("new")
        if not (isinstance(old, str) and isinstance(new, str)):
            continue
        if new.endswith("/"):
            known.update([old + text[len(new) :] for text in known if text.startswith(new)])
        elif new in known:
            known.add(old)
    return known


def _purge_runs(con: duckdb.DuckDBPyConnection, known: PurgedTexts) -> int:
    """Remove the texts from the table ``runs``, and return how many of its rows changed."""
    replace = known.matcher()
    changed = 0
    rows = con.execute("SELECT run, verb, settings, result FROM runs").fetchall()
    for run, verb, settings_text, result_text in rows:
        settings, result = json.loads(settings_text or "null"), json.loads(result_text or "null")
        new = _without_texts(_without_edit(verb, settings, known.items), replace), _without_texts(result, replace)
        if new != (settings, result):
            changed += 1
            con.execute(
                "UPDATE runs SET settings = ?, result = ? WHERE run = ?", [json.dumps(new[0]), json.dumps(new[1]), run]
            )
    return changed


def _without_edit(verb: str, settings: Any, items: Collection[int]) -> Any:
    """Return the settings of an edit without its texts, unless it was an edit of other items.

    An edit holds what a column of an item held before or after it. Which items a filter matched is not recorded.
    """
    if verb not in _EDITING or not isinstance(settings, dict):
        return settings
    edited = settings.get("items")
    if isinstance(edited, list) and not {i for i in edited if isinstance(i, int)} & set(items):
        return settings
    return {name: _emptied(value) if name in _EDIT_TEXTS else value for name, value in settings.items()}


def _emptied(value: Any) -> Any:
    """Return a value without its texts; the columns that an edit set keep their names."""
    if isinstance(value, dict):
        return dict.fromkeys(value, PURGED)
    return PURGED if isinstance(value, str) else value


def _without_texts(value: Any, replace: Callable[[str], str]) -> Any:
    """Return a JSON value with all its texts, names included, replaced."""
    if isinstance(value, str):
        return replace(value)
    if isinstance(value, list):
        return [_without_texts(v, replace) for v in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for name, inner in value.items():
        new = replace(name)
        while new != name and new in out:
            new += "'"
        out[new] = _without_texts(inner, replace)
    return out
