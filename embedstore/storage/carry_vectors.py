"""Keep imported vectors when the image of their item is read for the first time.

A vector belongs to a content. An item that was imported with a vector alone has a content without a file; when its
image is embedded, the item gets the content of the file, and its imported vectors are written for that content too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from embedstore.storage.commit import CommitBatch
from embedstore.storage.queries import imported_vectors, shards
from embedstore.storage.queries.imported_vectors import ImportedVector
from embedstore.storage.vectors import VectorReader
from embedstore.storage.writer import Writer


def carry_imported_vectors(writer: Writer, batch: CommitBatch) -> None:
    """Write the imported vectors of a batch's items for the contents of their files, before the batch is committed.

    Args:
        writer: the writer of the store.
        batch: the batch that is committed next.

    Raises:
        StoreIOError: if the disk is full or fails; nothing is lost.
    """
    changed = [(row.item, row.content) for row in batch.items if row.item is not None]
    if not changed:
        return
    with writer.catalog.read() as con:
        carried = imported_vectors.vectors_to_carry(con, changed)
    for space, vectors in groupby(carried, key=lambda vector: vector.space):
        _write(writer, batch, space, list(vectors))


def _write(writer: Writer, batch: CommitBatch, space: str, carried: Sequence[ImportedVector]) -> None:
    """Write the vectors of one space as a new vector file."""
    with writer.catalog.read() as con:
        dim = shards.space_dim(con, space)
        files = [(n, rows, writer.layout.shard_file(space, n)) for n, rows in shards.shard_rows(con, space)]
        reader = VectorReader(files, dim)
        places = np.array([(vector.shard, vector.row) for vector in carried], np.int64)
        stored = reader.read_stored(reader.positions(places[:, 0], places[:, 1]))
    contents = [vector.content for vector in carried]
    writer.add_vectors(space, stored, contents, {c: batch.content_info[c] for c in contents if c in batch.content_info})
