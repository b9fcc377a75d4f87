"""Precomputed vectors and their table into a space of their own."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadVectors, DimensionMismatch
from embedstore.sources.vectors import VectorTable, open_vectors
from embedstore.space import Family, Space
from embedstore.storage.commit import CommitBatch, ItemRow, storable_rows
from embedstore.storage.shard import DTYPES
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import content_hex, object_array, utc_now
from embedstore.storage.storage import Storage, Writer

ExistingContent = tuple[str, NDArray[np.float32] | None]
"""An existing item's content, and its vector in the space if there is one."""

UNIT_TOLERANCE = 1e-3  # float16 vectors of length 1 are off by at most 5e-4
_COMMIT = 1 << 25  # numbers in one commit, 128 MiB: few vector files, which a search goes through faster
_LEAST, _MOST = 8192, 65536  # rows in one commit


def add_vectors(
    storage: Storage,
    vectors: str | Path | NDArray[Any],
    table: Any,
    *,
    uri_column: str | None,
    space_name: str,
    unit: bool | None,
    dtype: str,
    wait: float,
) -> dict[str, Any]:
    """Store vectors computed elsewhere; see :meth:`embedstore.store.Store.add_vectors`."""
    if dtype not in DTYPES:
        raise BadVectors(f"vectors are stored as {' or '.join(DTYPES)}, not {dtype!r}")
    found = open_vectors(vectors, table, uri_column=uri_column)
    started = utc_now()
    with storage.writer(f"import {found.description}", wait=wait) as writer, tempfile.TemporaryDirectory() as folder:
        space = _space(storage, writer, found, space_name, unit, dtype)
        attributes = Path(folder, "attributes.parquet") if found.columns else None
        if attributes:
            found.write_columns(attributes)
            writer.add_columns(found.columns)
        result = _store(storage, writer, found, space, attributes)
        writer.record_run("import", space.key, {"source": found.description}, result, started)
    return result


def _space(
    storage: Storage, writer: Writer, found: VectorTable, name: str, unit: bool | None, dtype: str
) -> SpaceRecord:
    """The space of that name, made if it is new; its dimension must fit."""
    for row in storage.spaces():
        if name in (row.name, row.key):
            if row.space.dim != found.dim:
                raise DimensionMismatch(
                    f"space {row.name} holds vectors of {row.space.dim}, {found.description} has {found.dim}; "
                    "bring them into a space of another name"
                )
            if row.space.family is not Family.PRECOMPUTED:
                raise BadVectors(
                    f"space {row.name} is made by {row.space.architecture}; bring vectors into a space of their own"
                )
            return row
    space = Space(
        family=Family.PRECOMPUTED,
        architecture=name,
        weights="",
        preprocess=None,
        dim=found.dim,
        unit=_looks_unit(found) if unit is None else unit,
        origin=found.description,
    )
    writer.add_space(space, name=name, dtype=dtype, recipe=None)
    return storage.space(space.key)


def _looks_unit(found: VectorTable) -> bool:
    """Every vector has length 1."""
    return all(
        bool((np.abs(np.linalg.norm(vectors, axis=1) - 1) < UNIT_TOLERANCE).all()) for _, _, vectors in found.batches()
    )


def _store(
    storage: Storage, writer: Writer, found: VectorTable, space: SpaceRecord, attributes: Path | None
) -> dict[str, Any]:
    """Commit block by block; a content that the space has already keeps its vector."""
    rows = new_items = new_vectors = 0
    for refs, own, vectors in found.batches(max(_LEAST, min(_MOST, _COMMIT // found.dim))):
        bad = np.flatnonzero(~storable_rows(vectors, space.dtype))
        if len(bad):
            raise BadVectors(
                f"row {rows + int(bad[0])} of {found.description} does not fit {space.dtype}: its largest value is "
                f"{np.abs(vectors[bad[0]]).max():.4g}; store it with dtype float32"
            )
        items, standing = _existing(storage, space, [r.uri for r in refs])
        digests = [_content(standing.get(r.uri), d, v, space) for r, d, v in zip(refs, own, vectors, strict=True)]
        known = _known(storage, space, digests)
        first = {d: i for i, d in reversed(list(enumerate(digests))) if d not in known}
        batch = CommitBatch(
            items=[ItemRow(r, d, items.get(r.uri)) for r, d in zip(refs, digests, strict=True)],
            image_info=dict.fromkeys(first, (0, None)),
            digests=list(first),
            vectors=[vectors[list(first.values())]] if first else [],
        )
        writer.commit(batch, space=space, attributes=attributes)
        rows += len(refs)
        new_items += sum(r.item is None for r in batch.items)
        new_vectors += len(first)
    return {
        "rows": rows, "new_items": new_items, "new_vectors": new_vectors, "space": space.name, "dim": space.space.dim,
    }  # fmt: skip


def _content(standing: ExistingContent | None, digest: str, vector: NDArray[np.float32], space: SpaceRecord) -> str:
    """The content of a row: an existing item keeps its own, so that its vectors in other spaces stay with it.

    Only where this space has another vector for that content already is the row a new content: the item changed.
    """
    if standing is None:
        return digest
    content, there = standing
    same = there is None or np.array_equal(there, vector.astype(DTYPES[space.dtype]))
    return content if same else digest


def _existing(
    storage: Storage, space: SpaceRecord, uris: list[str]
) -> tuple[dict[str, int], dict[str, ExistingContent]]:
    """Items that have these uris already: their ids, and their contents with their vectors in this space."""
    with storage.catalog.read() as con:
        wanted = {"uri": object_array(uris)}  # noqa: F841 - read by SQL
        rows = con.execute(
            'SELECT i.uri, i.item, i.content::VARCHAR, v.shard, v."row" FROM items i '
            "LEFT JOIN vectors v ON v.content = i.content AND v.space = ? "
            "WHERE i.uri IN (SELECT uri FROM wanted)",
            [space.key],
        ).fetchall()
        vectors = storage.vector_reader_in(con, space.space)
        held = [r for r in rows if r[3] is not None]
        positions = vectors.positions(np.array([r[3] for r in held], int), np.array([r[4] for r in held], int))
        stored = dict(zip((r[0] for r in held), vectors.read_float32(positions), strict=True))
    return {r[0]: r[1] for r in rows}, {r[0]: (content_hex(r[2]), stored.get(r[0])) for r in rows}


def _known(storage: Storage, space: SpaceRecord, digests: list[str]) -> set[str]:
    """Which contents have a vector in the space."""
    with storage.catalog.read() as con:
        wanted = {"content": object_array(digests)}  # noqa: F841 - read by SQL
        known = con.execute(
            "SELECT content::VARCHAR FROM vectors WHERE space = ? AND content IN (SELECT content::UUID FROM wanted)",
            [space.key],
        ).fetchall()
    return {content_hex(c) for (c,) in known}
