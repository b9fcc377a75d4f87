"""One Arrow file of a saved data set: its columns, and the image of a row by ``FILE.arrow#column=image&row=17``.

A file is mapped into memory, so that a row costs no more than its own bytes. ``datasets`` writes such a file once and
never changes it in place.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import unquote

from embedstore.errors import ImageError, MissingExtra
from embedstore.sources.local_files import check_size, stat_file
from embedstore.sources.parquet.footer import IMAGE_FIELD
from embedstore.sources.parquet.row_uri import RowUri
from embedstore.types import Failure, FailureReason

if TYPE_CHECKING:
    import pyarrow as pa

MAX_OPEN_FILES = 64  # mapped, which takes no memory of its own
_ROW_URI = re.compile(r"(.+\.arrow)#column=([^&#/]+)&row=([0-9]{1,18})", re.IGNORECASE | re.DOTALL)


def parse_arrow_uri(uri: str) -> RowUri | None:
    """Return the row of an Arrow file that a uri names; None if it names something else."""
    match = _ROW_URI.fullmatch(uri) if "#" in uri else None
    return None if match is None else RowUri(match[1], unquote(match[2]), int(match[3]))


def open_arrow(path: str) -> pa.Table:
    """Return the rows of a file as it is now; their bytes stay on disk.

    Raises:
        ImageError: if there is no such file, or it is not a whole Arrow file.
        MissingExtra: if pyarrow is not installed.
    """
    return _open(path, arrow_version(path))


def arrow_version(path: str) -> int:
    """Return the modification time of a file in nanoseconds.

    Raises:
        ImageError: if there is no such file.
    """
    found = stat_file(path)
    if isinstance(found, Failure):
        raise ImageError(found.reason, found.detail)
    return found.mtime_ns


def read_arrow_row(uri: RowUri) -> bytes:
    """Return the image in a row.

    Raises:
        ImageError: if there is none, or it cannot be read.
        MissingExtra: if pyarrow is not installed.
    """
    value = _value(open_arrow(uri.file), uri).as_py()
    data = value.get(IMAGE_FIELD) if isinstance(value, dict) else value
    data = data.encode() if isinstance(data, str) else data
    if data is None:
        raise ImageError(FailureReason.MISSING, "the row has no bytes")
    if not isinstance(data, bytes):
        raise ImageError(FailureReason.NOT_AN_IMAGE, f"the column {uri.column!r} holds no bytes")
    if not data:
        raise ImageError(FailureReason.EMPTY, "it has no bytes")
    check_size(len(data))
    return data


def stat_arrow_row(uri: RowUri) -> tuple[int, int]:
    """Return the size of the image in a row, and the version of the file.

    Raises:
        ImageError: if there is no such file or row.
        MissingExtra: if pyarrow is not installed.
    """
    return len(read_arrow_row(uri)), arrow_version(uri.file)


def _value(table: pa.Table, uri: RowUri) -> pa.Scalar:
    """Return the value of a column in a row."""
    if uri.column not in table.column_names:
        raise ImageError(FailureReason.MISSING, f"the file has no column {uri.column!r}")
    if uri.row >= table.num_rows:
        raise ImageError(FailureReason.MISSING, f"the file has no row {uri.row}; it has {table.num_rows:,}")
    return table[uri.column][uri.row]


@lru_cache(maxsize=MAX_OPEN_FILES)
def _open(path: str, version_ns: int) -> pa.Table:
    """Map a file."""
    try:
        import pyarrow as pa
    except ImportError as e:
        raise MissingExtra("data sets of Hugging Face need pyarrow; run `pip install 'embedstore[hf]'`") from e
    try:
        return pa.ipc.open_stream(pa.memory_map(path)).read_all()
    except (pa.ArrowException, OSError) as e:
        detail = f"not a whole Arrow file: {' '.join(str(e).split())}"[:300]
        raise ImageError(FailureReason.CORRUPT, detail) from e
