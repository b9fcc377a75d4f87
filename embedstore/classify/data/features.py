"""Vectors and labels of items as arrays for a classifier, with what a leak-proof split needs."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import LabelError, UnknownColumn, did_you_mean
from embedstore.storage import filters as item_filter
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import object_array, quote_identifier
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, VectorReader

MAX_IN_MEMORY_BYTES = (
    1 << 30
)  # bytes of features up to which they are an ordinary array; above, a mapped temporary file


@dataclass(frozen=True)
class Features:
    """Labelled items of one space.

    Attributes:
        X: float32 ``(N, D)``, as stored (unit length only where the space's vectors are); a memory map of a temporary
            file when it has more than 1 GiB.
        y: ``(N,)`` labels: text, or a sorted tuple of texts where ``multi``.
        ids: int64 ``(N,)`` items, ascending.
        groups: int64 ``(N,)``: items with one value share a content or a declared group, directly or in a chain,
            and must stand on one side of any split.
        splits: ``(N,)`` of the items' own split, None where they have none.
        unlabelled: items left out because they have no label. unembedded: ... because they have no vector here.
        multilabel: an item may have any number of labels.
        label: the column that the labels come from.
        space: the name of the space that the vectors come from.
    """

    X: NDArray[np.float32]
    y: NDArray[np.object_]
    ids: NDArray[np.int64]
    groups: NDArray[np.int64]
    splits: NDArray[np.object_]
    n_unlabeled: int
    n_without_vector: int
    multilabel: bool = False
    label: str = "label"
    space: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[np.int64]) -> Features:
        """A selection of rows."""
        return replace(
            self,
            X=take_rows(self.X, rows),
            y=self.y[rows],
            ids=self.ids[rows],
            groups=self.groups[rows],
            splits=self.splits[rows],
        )

    def relabelled(self, y: NDArray[np.object_]) -> Features:
        """The same rows with other labels."""
        return replace(self, y=y)


def load_features(
    storage: Storage, space: SpaceRecord, label: str, *, where: str | None = None, separator: str | None = None
) -> Features:
    """Every present item with a label and a vector; NULL and empty text are no label.

    Args:
        storage, space: the store and the space.
        label: a column of the items; a list column has any number of labels an item (an empty list: none applies).
        where: a filter, as in search.
        separator: cut the text of a label at it: any number of labels an item.

    Raises:
        UnknownColumn: the items have no such column. BadFilter: the filter cannot be used.
        LabelError: no item is left.
    """
    with storage.catalog.read() as con, item_filter.filter_errors(where):
        columns = {r[0].lower(): r for r in con.execute("DESCRIBE items").fetchall()}
        if label.lower() not in columns:
            names = [r[0] for r in columns.values()]
            raise UnknownColumn(
                f"the items have no column {label!r}{did_you_mean(label, names)}; they have {', '.join(names)}"
            )
        listed = str(columns[label.lower()][1]).endswith("[]")
        value = quote_identifier(label) if listed else f"nullif(trim({quote_identifier(label)}::VARCHAR), '')"
        rows = con.execute(
            f"SELECT i.item, i.y, i.split, i.group_id, i.content::VARCHAR AS content, "
            f'v.shard, v."row"::BIGINT AS place FROM (SELECT item, {value} AS y, split, group_id, content FROM items '
            f"WHERE present AND ({item_filter.compile_filter(con, where)})) i "
            "LEFT JOIN (SELECT * FROM vectors WHERE space = ?) v ON v.content = i.content ORDER BY i.item",
            [space.key],
        ).fetchall()
        kept = [r for r in rows if r[1] is not None and r[5] is not None]
        vectors = storage.vector_reader_in(con, space.space).map_shards(np.array([r[5] for r in kept], np.int64))
    unlabelled = sum(r[1] is None for r in rows)
    if not kept:
        raise LabelError(
            f"no item has both a {label!r} and a vector in space {space.name} ({len(rows)} match, {unlabelled} have "
            'no label); see `embedstore sql STORE "select label, count(*) from items group by 1"`'
        )
    positions = vectors.positions(np.array([r[5] for r in kept]), np.array([r[6] for r in kept]))
    multi = listed or separator is not None
    return Features(
        X=gather_vectors(vectors, positions),
        y=object_array([_parts(r[1], separator) if multi else r[1] for r in kept]),
        ids=np.array([r[0] for r in kept], dtype=np.int64),
        groups=_groups([r[4] for r in kept], [r[3] for r in kept]),
        splits=object_array([r[2] for r in kept]),
        n_unlabeled=unlabelled,
        n_without_vector=len(rows) - unlabelled - len(kept),
        multilabel=multi,
        label=label,
        space=space.name,
    )


def gather_vectors(vectors: VectorReader, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """The vectors at the positions: float32 ``(n, D)``, read block by block."""
    out = _array(len(positions), vectors.dim)
    for begin in range(0, len(positions), BLOCK_ROWS):
        out[begin : begin + BLOCK_ROWS] = vectors.read_float32(positions[begin : begin + BLOCK_ROWS])
    return out


def take_rows(X: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A copy of some rows; mapped when it is large, as :attr:`Features.X`."""
    out = _array(len(rows), X.shape[1])
    for begin in range(0, len(rows), BLOCK_ROWS):
        out[begin : begin + BLOCK_ROWS] = X[rows[begin : begin + BLOCK_ROWS]]
    return out


def _array(rows: int, dim: int) -> NDArray[np.float32]:
    """An empty float32 array; above 1 GiB in a temporary file that goes with its last reader."""
    if rows * dim * 4 <= MAX_IN_MEMORY_BYTES:
        return np.empty((rows, dim), dtype=np.float32)
    with tempfile.TemporaryFile(prefix="embedstore-features-") as file:
        return np.memmap(file, dtype=np.float32, mode="w+", shape=(rows, dim))


def _parts(value: Any, separator: str | None) -> tuple[str, ...]:
    """The labels of one item: a list's members, or text cut at the separator; sorted, each once."""
    texts: Sequence[Any] = value if isinstance(value, list) else str(value).split(separator)
    return tuple(sorted({str(t).strip() for t in texts if t is not None and str(t).strip()}))


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
