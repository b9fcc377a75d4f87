"""Check an index file from end to end before FAISS reads it: its class, its sizes, and every number that is followed.

FAISS trusts its files. One may name another file, which is then opened (inverted lists on disk), claim sizes that fill
the memory, or link rows that do not exist, which reads memory at random. So only the classes that embedstore writes
are accepted, and every byte of a file must belong to a field of theirs (the layouts of ``faiss/impl/index_write.cpp``):
a flat index of float16 codes, an HNSW over it, and inverted lists of scalar or product quantizer codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.storage.memory_map import map_file

_INNER_PRODUCT = 0
_SQ_8BIT, _SQ_FP16 = 0, 4  # ScalarQuantizer::QuantizerType
_PQ_BITS = 8
_DENSE_SIZES, _SPARSE_SIZES = b"full", b"sprs"
_NO_DIRECT_MAP = 0
_MAX_LEVELS = 64  # of an HNSW; with 16 links a row of level 8 occurs once in 4 billion rows
_MAX_EF = 1 << 20  # candidates that a search or a build of an HNSW holds


def check_index_file(path: Path, size: int, *, rows: int, dim: int) -> None:
    """Check an index file.

    Args:
        path: the file.
        size: its length.
        rows: the rows that it must hold.
        dim: the length of its vectors.

    Raises:
        StoreDamaged: if it is not an index that embedstore writes, of these rows, with every number in its bounds.
        OSError: if it cannot be read.
        UnsafeStore: if it is not a regular file.
    """
    reader = _Reader(map_file(path, size)) if size else _Reader(np.empty(0, np.uint8))
    try:
        _read_index(reader, rows, dim)
        _require(reader.position == size, "bytes follow the index")
    except _FormatError as e:
        raise StoreDamaged(f"is not an index that embedstore writes ({e})") from e


class _FormatError(Exception):
    """A field that is not as embedstore's indexes have it."""


def _require(condition: bool, problem: str) -> None:
    """Raise if a condition does not hold."""
    if not condition:
        raise _FormatError(problem)


@dataclass
class _Reader:
    """The bytes of a file, read in order.

    Attributes:
        data: uint8 ``(size,)``.
        position: the position of the next byte.
    """

    data: NDArray[np.uint8]
    position: int = 0

    def take(self, count: int, dtype: str) -> NDArray[Any]:
        """Return the next values, which must be there."""
        size = count * np.dtype(dtype).itemsize
        _require(0 <= size <= len(self.data) - self.position, f"{size:,} bytes are claimed and not there")
        values = np.frombuffer(self.data, dtype, count, self.position) if count else np.empty(0, dtype)
        self.position += size
        return values

    def number(self, dtype: str) -> int:
        """Return the next number."""
        return int(self.take(1, dtype)[0])

    def vector(self, dtype: str) -> NDArray[Any]:
        """Return the values after their number, as ``std::vector`` is written."""
        return self.take(self.number("<u8"), dtype)

    def code(self) -> bytes:
        """Return the next four letters."""
        return self.take(4, "u1").tobytes()


def _read_index(reader: _Reader, rows: int, dim: int) -> None:
    """Read one of the classes that embedstore writes."""
    match reader.code():
        case b"IxSQ":
            _read_flat_codes(reader, rows, dim)
        case b"IHNs":
            _read_hnsw(reader, rows, dim)
            _require(reader.code() == b"IxSQ", "an HNSW over another class")
            _read_flat_codes(reader, rows, dim)
        case b"IwSq" | b"IwPQ" as code:
            _read_inverted_file(reader, code, rows, dim)
        case code:
            raise _FormatError(f"class {code!r}")


def _read_header(reader: _Reader, rows: int, dim: int) -> None:
    """Read what all classes begin with."""
    found = reader.number("<i4"), reader.number("<i8")
    _require(found == (dim, rows), f"{found[1]} rows of {found[0]} instead of {rows} of {dim}")
    reader.take(2, "<i8")
    _require(reader.number("u1") == 1, "it is not trained")
    _require(reader.number("<i4") == _INNER_PRODUCT, "another metric")


def _read_scalar_quantizer(reader: _Reader, dim: int) -> int:
    """Read a scalar quantizer, and return the bytes of a code."""
    kind = reader.number("<i4")
    reader.number("<i4"), reader.take(1, "<f4")  # range statistics of the training
    _require(kind in (_SQ_8BIT, _SQ_FP16), "another scalar quantizer")
    found = reader.number("<u8"), reader.number("<u8")
    code_bytes = dim * (2 if kind == _SQ_FP16 else 1)
    _require(found == (dim, code_bytes), "a scalar quantizer of another size")
    trained = reader.vector("<f4")
    _require(len(trained) == (0 if kind == _SQ_FP16 else 2 * dim), "a scalar quantizer trained otherwise")
    _require(bool(np.isfinite(trained).all()), "a scalar quantizer with infinite values")
    return code_bytes


def _read_flat_codes(reader: _Reader, rows: int, dim: int) -> None:
    """Read a flat index of scalar quantizer codes, after its class."""
    _read_header(reader, rows, dim)
    code_bytes = _read_scalar_quantizer(reader, dim)
    _require(len(reader.vector("u1")) == rows * code_bytes, "another number of codes")


def _read_flat_vectors(reader: _Reader, rows: int, dim: int) -> None:
    """Read a flat index of float32 vectors, after its class."""
    _read_header(reader, rows, dim)
    _require(len(reader.vector("<f4")) == rows * dim, "another number of vectors")


def _read_hnsw(reader: _Reader, rows: int, dim: int) -> None:
    """Read the links of an HNSW, after its class; every link must lead to a row."""
    _read_header(reader, rows, dim)
    probabilities = reader.vector("<f8")
    links_before = reader.vector("<i4")  # links of a row below each level
    levels, offsets, neighbors = reader.vector("<i4"), reader.vector("<u8"), reader.vector("<i4")
    entry, top, ef_construction, ef_search, _ = reader.take(5, "<i4").tolist()
    _require(len(probabilities) < _MAX_LEVELS and len(links_before) <= _MAX_LEVELS, "too many levels")
    _require(len(links_before) > 0 and links_before[0] == 0 and bool((np.diff(links_before) >= 0).all()), "its levels")
    _require(len(levels) == rows and len(offsets) == rows + 1, "another number of rows")
    _require(rows == 0 or (levels.min() >= 1 and levels.max() < len(links_before)), "a level that does not exist")
    _require(offsets[0] == 0 and offsets[-1] == len(neighbors), "links that are not there")
    _require(bool((np.diff(offsets.astype(np.int64)) == links_before[levels]).all()), "another number of links")
    _require(len(neighbors) == 0 or (neighbors.min() >= -1 and neighbors.max() < rows), "a link to no row")
    _require((0 <= entry < rows and top == levels[entry] - 1) if rows else entry == -1, "an entry that is no row")
    _require(0 < ef_construction < _MAX_EF and 0 < ef_search < _MAX_EF, "its search settings")
    _require_links_on_their_level(levels, offsets, neighbors, links_before)


def _require_links_on_their_level(
    levels: NDArray[np.int32],
    offsets: NDArray[np.uint64],
    neighbors: NDArray[np.int32],
    links_before: NDArray[np.int32],
) -> None:
    """Require that every link above the lowest level leads to a row that has this level."""
    for level in range(1, int(levels.max(initial=0))):
        rows = np.flatnonzero(levels > level)
        first, count = int(links_before[level]), int(links_before[level + 1] - links_before[level])
        places = offsets[rows].astype(np.int64)[:, None] + first + np.arange(count)
        linked = neighbors[places]
        _require(bool((levels[linked[linked >= 0]] > level).all()), "a link to a row that is not on its level")


def _read_inverted_file(reader: _Reader, code: bytes, rows: int, dim: int) -> None:
    """Read inverted lists, after their class; every row must be in one list."""
    _read_header(reader, rows, dim)
    lists, probed = reader.number("<u8"), reader.number("<u8")
    _require(0 < lists <= max(rows, 1) and probed > 0, "another number of lists")
    _read_centroids(reader, lists, dim)
    _require(reader.number("u1") == _NO_DIRECT_MAP and len(reader.vector("<i8")) == 0, "a direct map")
    if code == b"IwPQ":
        _require(reader.number("u1") in (0, 1), "its residuals")
        code_bytes = reader.number("<u8")
        _read_product_quantizer(reader, dim, code_bytes)
    else:
        quantizer_bytes = _read_scalar_quantizer(reader, dim)
        code_bytes = reader.number("<u8")
        _require(code_bytes == quantizer_bytes and reader.number("u1") in (0, 1), "codes of another size")
    _read_lists(reader, lists, code_bytes, rows)


def _read_centroids(reader: _Reader, lists: int, dim: int) -> None:
    """Read the index that chooses lists: flat, or an HNSW over a flat one."""
    code = reader.code()
    if code == b"IHNf":
        _read_hnsw(reader, lists, dim)
        code = reader.code()
    _require(code == b"IxFI", f"centroids of class {code!r}")
    _read_flat_vectors(reader, lists, dim)


def _read_product_quantizer(reader: _Reader, dim: int, code_bytes: int) -> None:
    """Read a product quantizer of 8 bits per part."""
    found, parts, bits = reader.number("<u8"), reader.number("<u8"), reader.number("<u8")
    _require(found == dim and bits == _PQ_BITS and parts == code_bytes, "another product quantizer")
    _require(parts > 0 and dim % parts == 0, "a product quantizer whose parts do not fill its vectors")
    _require(len(reader.vector("<f4")) == dim << _PQ_BITS, "another number of codewords")


def _read_lists(reader: _Reader, lists: int, code_bytes: int, rows: int) -> None:
    """Read the lists themselves, which must be in this file, and their rows."""
    _require(reader.code() == b"ilar", "lists that are not in this file")
    _require((reader.number("<u8"), reader.number("<u8")) == (lists, code_bytes), "another number of lists")
    sizes = _read_list_sizes(reader, lists)
    found = np.zeros(rows, bool)
    for size in sizes[sizes > 0].tolist():
        reader.take(size * code_bytes, "u1")
        ids = reader.take(size, "<i8")
        _require(ids.min() >= 0 and ids.max() < rows, "a row that does not exist")
        found[ids] = True
    _require(int(sizes.sum()) == rows and bool(found.all()), "a row in no list or in two")


def _read_list_sizes(reader: _Reader, lists: int) -> NDArray[np.int64]:
    """Return the number of rows of every list."""
    kind = reader.code()
    _require(kind in (_DENSE_SIZES, _SPARSE_SIZES), "sizes of another form")
    stored = reader.vector("<u8")
    _require(len(stored) == 0 or int(stored.max()) < 1 << 48, "an impossible size")
    if kind == _DENSE_SIZES:
        _require(len(stored) == lists, "another number of sizes")
        return stored.astype(np.int64)
    _require(len(stored) % 2 == 0, "sizes of another form")
    numbers, sizes = stored[0::2], np.zeros(lists, np.int64)
    _require(len(numbers) == 0 or int(numbers.max()) < lists, "a list that does not exist")
    sizes[numbers] = stored[1::2]
    return sizes
