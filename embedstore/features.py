"""Vectors and labels of items as arrays for a classifier, with what a leak-proof split needs."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import LabelError, UnknownColumn, near
from embedstore.store import filter as item_filter
from embedstore.store.commit import identifier
from embedstore.store.storage import SpaceRow, Storage


@dataclass(frozen=True)
class Features:
    """Labelled items of one space.

    Attributes:
        X: float32 ``(N, D)``, as stored (unit length only where the space's vectors are).
        y: ``(N,)`` labels, text.
        ids: int64 ``(N,)`` items, ascending.
        groups: int64 ``(N,)``: items with one value share a content or a declared group, directly or in a chain,
            and must stand on one side of any split.
        splits: ``(N,)`` of the items' own split, None where they have none.
        unlabelled: items left out because they have no label. unembedded: ... because they have no vector here.
    """

    X: NDArray[np.float32]
    y: NDArray[np.object_]
    ids: NDArray[np.int64]
    groups: NDArray[np.int64]
    splits: NDArray[np.object_]
    unlabelled: int
    unembedded: int

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Features:
        """A selection of rows."""
        return Features(
            self.X[rows],
            self.y[rows],
            self.ids[rows],
            self.groups[rows],
            self.splits[rows],
            self.unlabelled,
            self.unembedded,
        )


def features(storage: Storage, space: SpaceRow, label: str, *, where: str | None = None) -> Features:
    """Every present item with a label and a vector.

    Args:
        storage, space: the store and the space.
        label: a column of the items. where: a filter, as in search.

    Raises:
        UnknownColumn: the items have no such column. BadFilter: the filter cannot be used.
        LabelError: no item is left.
    """
    with storage.catalog.read() as con:
        columns = [r[0] for r in con.execute("DESCRIBE items").fetchall()]
        if label.lower() not in {c.lower() for c in columns}:
            raise UnknownColumn(
                f"the items have no column {label!r}{near(label, columns)}; they have {', '.join(columns)}"
            )
        condition = item_filter.checked(where, columns) if where else "true"
        vectors = storage.vectors_in(con, space.space)
        rows = con.execute(
            f"SELECT i.item, i.{identifier(label)}::VARCHAR AS y, i.split, i.group_id, i.content::VARCHAR AS content, "
            f'v.shard, v."row"::BIGINT AS place FROM items i '
            "LEFT JOIN (SELECT * FROM vectors WHERE space = ?) v ON v.content = i.content "
            f"WHERE present AND ({condition}) ORDER BY i.item",
            [space.key],
        ).fetchall()
    kept = [r for r in rows if r[1] is not None and r[5] is not None]
    unlabelled = sum(r[1] is None for r in rows)
    if not kept:
        raise LabelError(
            f"no item has both a {label!r} and a vector in space {space.name} ({len(rows)} match, {unlabelled} have "
            'no label); see `embedstore sql STORE "select label, count(*) from items group by 1"`'
        )
    positions = vectors.positions(np.array([r[5] for r in kept]), np.array([r[6] for r in kept]))
    return Features(
        X=vectors.gather(positions),
        y=np.array([r[1] for r in kept], dtype=object),
        ids=np.array([r[0] for r in kept], dtype=np.int64),
        groups=_groups([r[4] for r in kept], [r[3] for r in kept]),
        splits=np.array([r[2] for r in kept], dtype=object),
        unlabelled=unlabelled,
        unembedded=len(rows) - unlabelled - len(kept),
    )


def _groups(contents: list[str], declared: list[str | None]) -> NDArray[np.int64]:
    """Connected components of "same content" and "same declared group": int64 ``(N,)``.

    A component's number is a hash of its name, so that it stays the same while other items come and go.
    """
    parent: dict[str, str] = {}

    def root(node: str) -> str:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for content, group in zip(contents, declared, strict=True):
        if group is not None:
            parent[root(content)] = root(f"group {group}")
    names = [root(c) for c in contents]
    numbers = {n: int.from_bytes(hashlib.sha256(n.encode()).digest()[:8], "big") >> 1 for n in set(names)}
    return np.array([numbers[n] for n in names], dtype=np.int64)
