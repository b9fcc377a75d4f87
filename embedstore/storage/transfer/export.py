"""Items and vectors out of the store, block by block, in memory that does not grow with their number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embedstore.errors import QueryError
from embedstore.storage import filters as item_filter
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import parquet

BLOCK_ROWS = 4096  # vectors on their way to Parquet


def export_items(storage: Storage, space: SpaceRecord, path: Path, *, where: str | None) -> int:
    """Write the present items that have a vector, ordered by item.

    Args:
        storage, space: what to export.
        path: ``.parquet`` (every column of the items, and ``vector`` as a list of FLOAT), or ``.npy`` (float32
            ``(N, dim)``, with the items in the ``.parquet`` beside it).
        where: a filter, as in search.

    Returns:
        N.

    Raises:
        QueryError: another suffix, or nothing matches.
    """
    if path.suffix not in (".parquet", ".npy"):
        raise QueryError(f"export writes .parquet or .npy, or everything into a folder (no suffix), not {path.name!r}")
    with storage.catalog.read() as con, item_filter.filter_errors(where):
        con.execute(_CHOSEN.format(condition=item_filter.compile_filter(con, where)), {"space": space.key})
        chosen = con.execute('SELECT shard, "row"::BIGINT AS r FROM memory.main.chosen ORDER BY n').fetchnumpy()
        vectors = storage.vector_reader_in(con, space.space).map_shards(np.asarray(chosen["shard"]))
    positions = vectors.positions(np.asarray(chosen["shard"]), np.asarray(chosen["r"]))
    if not len(positions):
        raise QueryError("nothing to export: no present item with a vector matches")
    path.parent.mkdir(parents=True, exist_ok=True)
    con = storage.catalog.scratch
    try:
        if path.suffix == ".npy":
            out = np.lib.format.open_memmap(path, "w+", np.float32, (len(positions), space.space.dim))
            for begin in range(0, len(positions), BLOCK_ROWS):
                out[begin : begin + BLOCK_ROWS] = vectors.read_float32(positions[begin : begin + BLOCK_ROWS])
            out.flush()
            parquet.write_parquet(
                con, "SELECT * EXCLUDE (n, shard, row) FROM memory.main.chosen ORDER BY n", path.with_suffix(".parquet")
            )
        else:
            con.execute("CREATE OR REPLACE TABLE memory.main.exported (n BIGINT, vector FLOAT[])")
            for begin in range(0, len(positions), BLOCK_ROWS):
                parquet.stage_vectors(
                    con, "memory.main.exported", begin, vectors.read_float32(positions[begin : begin + BLOCK_ROWS])
                )
            parquet.write_parquet(
                con,
                "SELECT c.* EXCLUDE (n, shard, row), e.vector FROM memory.main.chosen c "
                "JOIN memory.main.exported e USING (n) ORDER BY n",
                path,
            )
    finally:
        con.execute("DROP TABLE IF EXISTS memory.main.exported")
        con.execute("DROP TABLE IF EXISTS memory.main.chosen")
    return len(positions)


_CHOSEN = """
CREATE OR REPLACE TABLE memory.main.chosen AS
SELECT row_number() OVER (ORDER BY i.item) - 1 AS n, i.* EXCLUDE (path), v.shard, v."row"
FROM (SELECT * FROM items WHERE present AND ({condition})) i
JOIN vectors v ON v.content = i.content AND v.space = $space
"""
