"""Import of precomputed vectors and their table into a space of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadOption, BadVectors, DimensionMismatch
from embedstore.pipeline.content_set import ContentSet
from embedstore.pipeline.kept_values import kept_note
from embedstore.pipeline.prefetch import Prefetch
from embedstore.resources import memory_share
from embedstore.sources.table_options import TableOptions
from embedstore.sources.vectors import VectorTable, open_vectors
from embedstore.space import Family, Space
from embedstore.storage.commit import MAX_LENGTH, MIN_LENGTH, CommitBatch, storable_rows
from embedstore.storage.item_columns import NEW_ITEM, FileColumns, ItemColumns
from embedstore.storage.queries import import_vectors as queries
from embedstore.storage.queries import item_rows
from embedstore.storage.queries.embedding import known_contents
from embedstore.storage.shard import DTYPES
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import object_array, utc_now
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer
from embedstore.tables import OneRow
from embedstore.temporary import temporary_folder
from embedstore.threads import map_parts

DEFAULT_DTYPE = "float16"
FLOAT32_CURE = "store it with dtype float32 (`--dtype float32`)"
OTHER_SPACE_CURE = "a space of another name (`--space NAME`)"
UNIT_TOLERANCE = 1e-3  # float16 vectors of length 1 are off by at most 5e-4
COMMIT_VALUES = 1 << 25  # numbers in one commit, 128 MiB: few vector files, which are faster to search
MIN_COMMIT_ROWS, MAX_COMMIT_ROWS = 8192, 65536

StoredVectors = NDArray[np.floating[Any]]  # ``(n, D)`` in the type of the space


@dataclass(frozen=True, slots=True)
class _ExistingItem:
    """An item that has the uri of a row: its id, its content, and the content's vector in the space, if any."""

    item: int
    content: str
    vector: NDArray[np.float32] | None


@dataclass(frozen=True)
class ImportReport(OneRow):
    """What an import did.

    Attributes:
        rows: rows of the table.
        new_items: rows whose uri was unknown.
        new_vectors: vectors that the space did not have.
        space: the space's name.
        dim: the dimension of the vectors.
        notices: what a person should know about the table, one sentence each.
    """

    rows: int
    new_items: int
    new_vectors: int
    space: str
    dim: int
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "notices"}


@dataclass(frozen=True)
class ImportOptions:
    """How vectors are imported.

    Attributes:
        space_name: name or key of the space; it is created if it does not exist.
        unit: whether the vectors have length 1; None checks them.
        dtype: the type of the vectors on disk; None is that of the space, float16 for a new one.
        wait: seconds to wait for another writer.
    """

    space_name: str
    unit: bool | None = None
    dtype: str | None = None
    wait: float = 0.0


def add_vectors(
    storage: Storage,
    vectors: str | Path | NDArray[Any],
    table: Any,
    *,
    table_options: TableOptions,
    options: ImportOptions,
) -> ImportReport:
    """Store vectors that were computed elsewhere.

    Args:
        storage: the store.
        vectors: an array ``(N, D)`` or a ``.npy`` file.
        table: describes the N rows; see :func:`~embedstore.sources.vectors.open_vectors`.
        table_options: how the table is read.
        options: where and how the vectors are stored.

    Raises:
        BadOption: if ``dtype`` is unknown, or is not that of the space.
        BadVectors: if the vectors cannot be used or do not fit ``dtype``, or the space is filled by a backbone.
        BadManifest: if the table cannot be used.
        DimensionMismatch: if the space holds vectors of another dimension.
        StoreBusy: if another process is writing.
    """
    if options.dtype is not None and options.dtype not in DTYPES:
        raise BadOption(f"vectors are stored as {' or '.join(DTYPES)}, not {options.dtype!r}")
    source = open_vectors(vectors, table, table_options)
    started = utc_now()
    with (
        storage.writer(f"import {source.description}", wait=options.wait) as writer,
        temporary_folder() as folder,
    ):
        storage.check_columns(source.columns)
        space = _find_or_add_space(storage, writer, source, options)
        attributes = folder / "attributes.parquet" if source.columns else None
        if attributes:
            source.write_columns(attributes)
            writer.add_columns(source.columns)
        report = _commit_rows(storage, writer, source, space, attributes)
        writer.record_run("import", space.key, {"source": source.description}, report.to_json(), started)
    return report


def _find_or_add_space(storage: Storage, writer: Writer, source: VectorTable, options: ImportOptions) -> SpaceRecord:
    """Return the space of that name, or add it; nothing is added if a vector does not fit."""
    for record in storage.spaces():
        if options.space_name in (record.name, record.key):
            _require_fit(record, source, options.dtype)
            return record
    dtype = options.dtype or DEFAULT_DTYPE
    _require_storable(source, dtype, cure=FLOAT32_CURE)
    space = Space(
        family=Family.PRECOMPUTED,
        architecture=options.space_name,
        weights="",
        preprocess=None,
        dim=source.dim,
        unit=_is_unit(source) if options.unit is None else options.unit,
        origin=source.description,
    )
    writer.add_space(space, name=options.space_name, dtype=dtype, recipe=None)
    return storage.space(space.key)


def _require_fit(record: SpaceRecord, source: VectorTable, dtype: str | None) -> None:
    """Raise unless the space can take the vectors."""
    if record.space.dim != source.dim:
        raise DimensionMismatch(
            f"space {record.name} holds vectors of {record.space.dim}, {source.description} has {source.dim}; "
            "import them into a space of another name"
        )
    if record.space.family is not Family.PRECOMPUTED:
        raise BadVectors(
            f"space {record.name} is filled by {record.space.architecture}; import vectors into a space of their own"
        )
    if dtype not in (None, record.dtype):
        raise BadOption(f"space {record.name} stores {record.dtype}, not {dtype}; {OTHER_SPACE_CURE}")
    _require_storable(source, record.dtype, cure=f"{FLOAT32_CURE}, in {OTHER_SPACE_CURE}")


def _is_unit(source: VectorTable) -> bool:
    """Return whether every vector has length 1."""

    def is_unit(vectors: NDArray[np.float32]) -> bool:
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        return bool((np.abs(lengths - 1) < UNIT_TOLERANCE).all())

    return all(map_parts(is_unit, source.blocks()))


def _commit_rows(
    storage: Storage, writer: Writer, source: VectorTable, space: SpaceRecord, attributes: Path | None
) -> ImportReport:
    """Commit block by block; a content that has a vector in the space keeps it."""
    rows = new_items = new_vectors = 0
    with storage.catalog.read() as con:
        kept = item_rows.count_kept_values(con, attributes) if attributes else 0
        known = ContentSet(known_contents(con, space.key))
        has_items = queries.has_items(con)  # without, no row can name one: a uri occurs once in a table
    batches = Prefetch(_stored_batches(source, space.dtype), 1, lambda: False)
    try:
        for files, digests, vectors in batches:
            existing: dict[str, _ExistingItem] = {}
            if has_items:
                with storage.catalog.read() as con:
                    existing = _existing_items(con, storage, space, files.uri)
                    kept += queries.count_kept_names(con, files, source.stated_columns)
            batch = _batch(existing, known, files, digests, vectors)
            writer.commit(batch, space=space, attributes=attributes)
            known.add(batch.digests)
            rows += len(files)
            new_items += len(files) - len(existing)
            new_vectors += len(batch.digests)
    finally:
        batches.stop()
        batches.join()
    notices = (*source.notices, *kept_note(source.description, kept))
    return ImportReport(rows, new_items, new_vectors, space.name, space.space.dim, notices)


def _stored_batches(source: VectorTable, dtype: str) -> Iterator[tuple[FileColumns, list[str], StoredVectors]]:
    """Yield the rows of a table for one commit each, with their vectors in the type of the space."""
    batch_rows = max(MIN_COMMIT_ROWS, min(MAX_COMMIT_ROWS, memory_share(4 * COMMIT_VALUES, 16) // (4 * source.dim)))
    for files, digests, vectors in source.batches(batch_rows):
        yield files, digests, _as_stored(vectors, dtype)


def _as_stored(vectors: NDArray[np.float32], dtype: str) -> StoredVectors:
    """Return vectors in the type of the space, converted on all cores."""
    stored = np.empty(vectors.shape, DTYPES[dtype])

    def convert(first: int) -> None:
        stored[first : first + MIN_COMMIT_ROWS] = vectors[first : first + MIN_COMMIT_ROWS]

    for _ in map_parts(convert, range(0, len(vectors), MIN_COMMIT_ROWS)):
        pass
    return stored


def _batch(
    existing: Mapping[str, _ExistingItem],
    known: ContentSet,
    files: FileColumns,
    digests: list[str],
    vectors: StoredVectors,
) -> CommitBatch:
    """Return what is committed of some rows: the items, and the vectors of new contents by their first rows."""
    contents = _contents(existing, files, digests, vectors)
    first = _first_rows(contents, known.present(contents))
    ids = np.full(len(files), NEW_ITEM, np.int64)
    for row, uri in enumerate(files.uri) if existing else ():
        if uri in existing:
            ids[row] = existing[uri].item
    chosen = vectors if len(first) == len(vectors) else vectors[list(first.values())]  # all: without a copy
    return CommitBatch(
        columns=ItemColumns(files, object_array(contents), ids, np.zeros(len(files), np.bool_)),
        content_info=dict.fromkeys(first, (0, None)),
        digests=list(first),
        vectors=[chosen] if first else [],
    )


def _first_rows(contents: Sequence[str], known: Collection[str]) -> dict[str, int]:
    """Return the first row of each content that is not known, ascending."""
    first: dict[str, int] = {}
    for row, content in enumerate(contents):
        if content not in known:
            first.setdefault(content, row)
    return first


def _require_storable(source: VectorTable, dtype: str, *, cure: str) -> None:
    """Raise BadVectors if a row cannot be stored as exactly as a search needs it."""

    def bad_rows(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return vectors, np.flatnonzero(~storable_rows(vectors, dtype))

    first = 0
    for vectors, bad in map_parts(bad_rows, source.blocks()):
        if len(bad):
            length = float(np.linalg.norm(vectors[bad[0]].astype(np.float64)))
            row = f"row {first + int(bad[0])} of {source.description} (counted from 0) has length {length:.3g}"
            if not MIN_LENGTH <= length <= MAX_LENGTH:
                limits = f"lengths from {MIN_LENGTH:g} to {MAX_LENGTH:g} can be computed with"
                raise BadVectors(f"{row}, and only {limits}; scale the vectors")
            raise BadVectors(f"{row}, and {dtype} would change its direction; {cure}")
        first += len(vectors)


def _contents(
    existing: Mapping[str, _ExistingItem], files: FileColumns, digests: list[str], vectors: StoredVectors
) -> list[str]:
    """Return the contents of rows: an existing item keeps its own, so that it keeps its vectors in other spaces.

    Only if this space has another vector for that content is the row a new content: the item has changed.
    """
    contents = list(digests)
    for row, uri in enumerate(files.uri) if existing else ():
        if (item := existing.get(uri)) is not None and (
            item.vector is None or np.array_equal(item.vector, vectors[row])
        ):
            contents[row] = item.content
    return contents


def _existing_items(
    con: duckdb.DuckDBPyConnection, storage: Storage, space: SpaceRecord, uris: NDArray[np.object_]
) -> dict[str, _ExistingItem]:
    """Return the items that have these uris, by uri."""
    rows = queries.items_by_uri(con, space.key, uris)
    reader = storage.vector_reader_in(con, space.space)
    stored = [(uri, shard, row) for uri, _, _, shard, row in rows if shard is not None]
    positions = reader.positions(np.array([s for _, s, _ in stored], int), np.array([r for _, _, r in stored], int))
    vectors = dict(zip((uri for uri, _, _ in stored), reader.read_float32(positions), strict=True))
    return {uri: _ExistingItem(item, content, vectors.get(uri)) for uri, item, content, _, _ in rows}
