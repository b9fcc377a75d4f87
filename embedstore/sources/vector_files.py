"""Files of vectors: a ``.npy`` array, or a column of a Parquet file whose other columns describe the rows."""

from __future__ import annotations

import os
import re
import weakref

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import BadVectors, SourceNotFound, did_you_mean
from embedstore.sources.manifest import open_table
from embedstore.sources.table_options import TableOptions
from embedstore.sources.tables import ROW_COLUMN, InputTable
from embedstore.storage.column_names import find_column
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import first_line
from embedstore.temporary import new_folder, remove

PARQUET_SUFFIXES = (".parquet", ".pq")
BLOCK_ROWS = 65536
_VECTOR_TYPE = re.compile(r"(FLOAT|DOUBLE)\[\d*\]")
_NUMBERS_TYPE = re.compile(r"(FLOAT|DOUBLE|U?(TINY|SMALL|BIG)INT|U?INTEGER|DECIMAL\(\d+,\d+\))\[\d*\]")


def is_parquet(path: str) -> bool:
    """Return whether a file is read as Parquet, by its suffix."""
    return os.path.splitext(path)[1].lower() in PARQUET_SUFFIXES  # noqa: PTH122


def load_array(path: str) -> NDArray[np.generic]:
    """Map a ``.npy`` file.

    Raises:
        SourceNotFound: if there is no such file.
        BadVectors: if it does not hold one array of numbers.
    """
    if not os.path.isfile(path):  # noqa: PTH113
        raise SourceNotFound(f"{path} is not a file")
    expected = "vectors are read from a .npy file (numpy.save) or from a column of a .parquet file"
    try:
        loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as e:
        why = "" if "pickle" in str(e) else f" ({first_line(e)})"  # NumPy's advice is to load what may run code
        raise BadVectors(f"{path} holds no array of numbers{why}; {expected}") from e
    except OSError as e:
        raise BadVectors(f"{path} cannot be read: {first_line(e)}") from e
    if not isinstance(loaded, np.ndarray):
        raise BadVectors(f"{path} holds several arrays; save the one of vectors with numpy.save")
    return loaded


def load_parquet(path: str, options: TableOptions) -> tuple[NDArray[np.float32], InputTable]:
    """Load the vectors of a Parquet file, and the table of its other columns.

    Args:
        path: the file.
        options: how the table is read; ``vector_column`` names the vectors. By default they are the column ``vector``,
            or the only one of lists of floats.

    Returns:
        float32 ``(N, D)``, which a temporary file holds, and the table.

    Raises:
        SourceNotFound: if there is no such file.
        BadManifest: if it is not a Parquet file.
        BadVectors: if no column or several may hold the vectors, or a row has none, or of another dimension.
    """
    table = open_table(path, options)
    column = _find_vectors(table, options.vector_column)
    vectors = _read_vectors(table, column)
    table.con.execute(f"ALTER TABLE given DROP COLUMN {quote_identifier(column)}")
    return vectors, table


def _find_vectors(table: InputTable, named: str | None) -> str:
    """Return the column of the vectors."""
    columns = table.columns()
    if named is not None:
        column = find_column(named, columns)
        if column is None:
            raise BadVectors(
                f"{table.name} has no column {named!r} (it has {', '.join(columns)}){did_you_mean(named, columns)}"
            )
        if not _NUMBERS_TYPE.fullmatch(columns[column]):
            raise BadVectors(f"{table.name}: the column {column!r} holds {columns[column]}, not lists of numbers")
        return column
    found = [name for name, kind in columns.items() if _VECTOR_TYPE.fullmatch(kind)]
    column = find_column("vector", found) or (found[0] if len(found) == 1 else None)
    if column is None:
        listed = f"several columns of lists of floats: {', '.join(found)}" if found else "no column of lists of floats"
        raise BadVectors(f"{table.name} has {listed}; name the vectors with --vector-column NAME")
    return column


def _read_vectors(table: InputTable, column: str) -> NDArray[np.float32]:
    """Write the vectors of a table to a temporary file, and map it.

    Raises:
        BadVectors: if a row has no vector, or one of another dimension.
    """
    rows, dim = table.row_count(), _dimension(table, column)
    folder = new_folder("vectors-")
    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, dim))
    weakref.finalize(vectors, remove, folder)
    name = quote_identifier(column)
    for first in range(0, rows, BLOCK_ROWS):
        values = table.con.execute(
            f"SELECT unnest({name}) AS v FROM (SELECT {name} FROM given WHERE {ROW_COLUMN} >= ? "
            f"AND {ROW_COLUMN} < ? ORDER BY {ROW_COLUMN})",
            [first, first + BLOCK_ROWS],
        ).fetchnumpy()["v"]
        numbers = np.ma.filled(np.ma.asarray(values, np.float64), np.nan)
        with np.errstate(over="ignore"):  # what is beyond float32 becomes infinite, and is refused
            vectors[first : first + BLOCK_ROWS] = numbers.reshape(-1, dim)
    return vectors


def _dimension(table: InputTable, column: str) -> int:
    """Return the dimension that all vectors of a column have."""
    name = quote_identifier(column)
    rows = table.con.execute(
        f"SELECT len({name}) AS dim, count(*), min({ROW_COLUMN}) FROM given GROUP BY 1 ORDER BY 2 DESC, 1"
    ).fetchall()
    if not rows or (len(rows) == 1 and not rows[0][0]):
        raise BadVectors(f"{table.name}: the column {column!r} holds no vector")
    if len(rows) > 1:
        dim, _, row = rows[1]
        held = "no vector" if dim is None else f"{dim} numbers"
        raise BadVectors(
            f"{table.name}: row {row} (counted from 0) has {held} in {column!r}, most have {rows[0][0]}; "
            "leave such rows out"
        )
    return int(rows[0][0])
