"""The spaces of a store: the records of the table ``spaces``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from embedstore.errors import BadBackbone, SpaceNotFound, StoreDamaged, did_you_mean
from embedstore.space import Recipe, Space
from embedstore.storage.catalog import Catalog, CatalogStamp
from embedstore.storage.shard import DTYPES


@dataclass(frozen=True)
class SpaceRecord:
    """One space of a store: a :class:`RecipeSpace` or a :class:`PrecomputedSpace`.

    Attributes:
        name: the name that a person uses.
        space: what the vectors mean.
        dtype: ``float16`` or ``float32``, of the vectors on disk.
        is_default: whether this space is used when none is named.
        created: when the space was registered, UTC.
    """

    name: str
    space: Space
    dtype: str
    is_default: bool
    created: datetime

    @property
    def key(self) -> str:
        """The key of the space."""
        return self.space.key

    @property
    def bytes_per_vector(self) -> int:
        """The bytes of one vector on disk."""
        return self.space.dim * np.dtype(DTYPES[self.dtype]).itemsize

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "name": self.name,
            "key": self.key,
            "dim": self.space.dim,
            "dtype": self.dtype,
            "is_default": self.is_default,
            "created": self.created.isoformat(),
        }

    def require_recipe(self) -> RecipeSpace:
        """Return this space if its backbone can be loaded.

        Raises:
            BadBackbone: if the vectors are precomputed.
        """
        raise BadBackbone(
            f"space {self.name} holds precomputed vectors: it has no backbone; search with a vector or an item id, "
            "or add the space of a backbone with `embedstore embed STORE SOURCE --backbone NAME`"
        )


@dataclass(frozen=True)
class PrecomputedSpace(SpaceRecord):
    """A space of vectors that were computed elsewhere and imported."""


@dataclass(frozen=True)
class RecipeSpace(SpaceRecord):
    """A space whose backbone can be loaded again.

    Attributes:
        recipe: how to load the backbone.
    """

    recipe: Recipe

    def require_recipe(self) -> RecipeSpace:
        """Return this space."""
        return self


class SpaceTable:
    """The spaces of a store, read again when the catalog changes.

    Args:
        root: the store's folder, for messages.
        catalog: its catalog.
    """

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self._root = root
        self._catalog = catalog
        self._cached: tuple[CatalogStamp, list[SpaceRecord]] | None = None

    def records(self) -> list[SpaceRecord]:
        """Return every space, oldest first.

        Raises:
            StoreDamaged: if the catalog does not say what a space means.
        """
        if self._cached is None or self._cached[0] != self._catalog.stamp:
            with self._catalog.read() as con:
                stamp = self._catalog.stamp
                records = self.records_in(con)
            self._cached = stamp, records
        return list(self._cached[1])

    def records_in(self, con: duckdb.DuckDBPyConnection) -> list[SpaceRecord]:
        """Return every space of the generation that ``con`` has open, oldest first.

        Raises:
            StoreDamaged: if the catalog does not say what a space means.
        """
        rows = con.execute(
            "SELECT space, name, facts, dtype, current, created, recipe FROM spaces ORDER BY created, name"
        ).fetchall()
        return [self._record(row) for row in rows]

    def find(self, name: str | None) -> SpaceRecord:
        """Return the space of that name or key, or the default space for None.

        Raises:
            SpaceNotFound: if there is none; lists similar names.
        """
        records = self.records()
        for record in records:
            if record.is_default if name is None else name in (record.name, record.key):
                return record
        if name is None:
            raise SpaceNotFound(
                f"{self._root} has no space yet; name a backbone: `embedstore embed STORE SOURCE --backbone NAME`"
            )
        names = [r.name for r in records]
        raise SpaceNotFound(
            f"{self._root} has no space {name!r}{did_you_mean(name, names)}; it has {', '.join(names) or 'none'}"
        )

    def _record(self, row: tuple[Any, ...]) -> SpaceRecord:
        """Return the record of a row, whose values may be anybody's."""
        try:
            return _space_record(row)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as e:
            raise StoreDamaged(
                f"the catalog of {self._root} does not say what space {row[1]!r:.80} means ({type(e).__name__}: "
                f"{e!s:.80}); restore it from a backup"
            ) from e


def _space_record(row: tuple[Any, ...]) -> SpaceRecord:
    """Return the record of a row of the table ``spaces``.

    Args:
        row: ``(space, name, facts, dtype, current, created, recipe)``.

    Raises:
        ValueError: if the facts do not give the key, or a value is not one that embedstore writes.
        KeyError: if a fact is missing.
        TypeError: if a value has another type.
    """
    key, name, facts, dtype, is_default, created, recipe = row
    space = Space.from_json(facts)
    if space.key != key:
        raise ValueError("its facts do not give its key")
    if not isinstance(name, str) or dtype not in DTYPES or not isinstance(created, datetime):
        raise TypeError("its name, type or time is missing")
    base = (name, space, dtype, bool(is_default), created)
    return RecipeSpace(*base, Recipe.from_json(recipe)) if recipe else PrecomputedSpace(*base)


def related_spaces(records: Sequence[SpaceRecord], key: str) -> set[str]:
    """Return the keys of the spaces that were fine-tuned from a space, from its ancestors, or are one of them.

    Args:
        records: every space.
        key: the key of the space, which is not in the result.
    """
    parents = {record.key: record.space.parent for record in records}

    def root(key: str) -> str:
        parent = parents.get(key)
        return key if parent is None else root(parent)

    return {other for other in parents if other != key and root(other) == root(key)}
