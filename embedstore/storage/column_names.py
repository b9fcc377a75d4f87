"""Names of columns: which are the store's, which are the user's, and how they are kept apart where they meet.

The rules (docs/column-names.md):

- The table ``items`` holds the store's columns (:data:`ITEM_COLUMNS`) and the user's. A new column of the user's has a
  name of its own: :func:`name_problem` says why not, and :func:`first_double` finds two names that are one.
- Names are compared without case, outer white space and invisible characters, and in one Unicode form
  (:func:`find_column`). DuckDB ignores the case of ASCII letters only.
- A table that shows the user's columns next to columns of its own (hits, exports) calls a column of the user's
  ``items.NAME`` if it has such a column itself (:func:`shown_names`). Filters and SQL understand that name.
- Names that begin with ``embedstore_`` belong to the queries and scratch tables of this package.

Stores from before these rules may hold any name. What reads them uses the same functions and refuses nothing.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_KEPT_FORMS = 1024  # of names: each node of a filter is compared with every column

ITEM_COLUMNS = (
    "item", "uri", "content", "label", "split", "group_id", "size", "mtime_ns", "present", "added", "path"
)  # fmt: skip
FILE_COLUMNS = ("item", "content", "size", "mtime_ns", "present", "added")  # of an export, where the uri says the path
EDITABLE_COLUMNS = ("label", "split", "group_id")  # the others describe the file
ROLE_COLUMNS = ("uri", "label", "split", "group")  # of a user's table, which the store keeps as its own
STORED_ROLES = {"group": "group_id"}  # the roles whose column of the items has another name
ITEMS, PREDICTIONS = "items", "pred"  # what a qualified name begins with: items.NAME, pred.HEAD
INTERNAL_PREFIX = "embedstore_"

_RESERVED = frozenset(
    [
        *ITEM_COLUMNS,
        *ROLE_COLUMNS,
        *(ITEMS, PREDICTIONS),
        "rowid",  # DuckDB's own number of a row
        *("mtime", "source"),  # for facts about files that a later version may store
    ]
)


def stored_name(name: str) -> str:
    """Return the form in which the name of a new column is stored: without outer white space, NFC."""
    return unicodedata.normalize("NFC", name.strip())


def find_column(name: str, columns: Iterable[str]) -> str | None:
    """Return the column that a name means, or None.

    A column of exactly that name wins, then one that DuckDB finds by it (it ignores the case of ASCII letters), then
    one that a person cannot tell apart from it.
    """
    known = list(columns)
    for form in (str, _duckdb_form, _plain_form):
        wanted = form(name)
        for column in known:
            if form(column) == wanted:
                return column
    return None


def find_item_column(name: str, columns: Iterable[str]) -> str | None:
    """Return the column of the items that a name means, or None; ``group`` of a user's table is ``group_id``."""
    known = list(columns)
    return find_column(name, known) or (find_column("group_id", known) if _plain_form(name) == "group" else None)


def first_double(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two names that a person cannot tell apart, or None."""
    seen: dict[str, str] = {}
    for name in names:
        form = _plain_form(name)
        if form in seen:
            return seen[form], name
        seen[form] = name
    return None


def name_problem(name: str) -> str | None:
    """Return why a name cannot be that of a new column of the user's, or None.

    Returns:
        A phrase that says what kind of name it is, and the cure.
    """
    looks_like = _look(name)
    rename = f"rename it, for example to {'my_' + stored_name(name)!r}"
    if not looks_like:
        return "a name without a visible letter; rename it"
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in stored_name(name)):
        return "a name with a control character; rename it"
    if looks_like in _RESERVED or looks_like.startswith(INTERNAL_PREFIX):
        return f"a name that the store uses itself; {rename}"
    for prefix in (ITEMS, PREDICTIONS):
        if looks_like.startswith(f"{prefix}."):
            return f"a name that begins with {prefix}., which the store uses itself; rename it"
    return None


def shown_names(columns: Iterable[str], ours: Iterable[str]) -> dict[str, str]:
    """Return the name under which a table with columns of its own shows each of the user's columns.

    Args:
        columns: the user's columns.
        ours: the table's own columns, which keep their names.

    Returns:
        By column its own name, or ``items.NAME`` if the table has such a column itself.
    """
    users, own = list(columns), {_look(name) for name in ours}
    taken = {_duckdb_form(name) for name in users if _look(name) not in own}
    shown = {}
    for column in users:
        name = column
        if _look(column) in own:
            name = f"{ITEMS}.{column}"
            while _duckdb_form(name) in taken:
                name = f"{ITEMS}.{name}"
            taken.add(_duckdb_form(name))
        shown[column] = name
    return shown


def unique_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of a query's columns, each once: a second ``label`` becomes ``label_1``, as in DuckDB."""
    given = list(names)
    taken, unique = {_duckdb_form(name) for name in given}, list[str]()
    seen: set[str] = set()
    for name in given:
        fresh, number = name, 0
        while _duckdb_form(fresh) in (taken if number else seen):
            number += 1
            fresh = f"{name}_{number}"
        seen.add(_duckdb_form(fresh))
        taken.add(_duckdb_form(fresh))
        unique.append(fresh)
    return tuple(unique)


@lru_cache(_KEPT_FORMS)
def _duckdb_form(name: str) -> str:
    """Return a name as DuckDB compares it."""
    return "".join(c.lower() if c.isascii() else c for c in name)


@lru_cache(_KEPT_FORMS)
def _plain_form(name: str) -> str:
    """Return a name without case, outer white space and invisible characters, in NFC."""
    visible = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return unicodedata.normalize("NFC", visible.strip().lower())


def _look(name: str) -> str:
    """Return a name with letters of other widths and styles as plain ones: what it looks like."""
    return unicodedata.normalize("NFKC", _plain_form(name)).casefold().strip()
