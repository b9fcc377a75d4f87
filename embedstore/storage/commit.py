"""What one commit makes durable: vectors on the disk first, then one catalog transaction that refers to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.storage.item_columns import NEW_ITEM, ItemColumns, ItemRow
from embedstore.types import ContentInfo, Failure

# Lengths whose squares neither overflow nor underflow in float32, with which cosines are computed.
MIN_LENGTH, MAX_LENGTH = 1e-15, 1e15
# The relative error of a row in float16. Rounding alone gives at most 2^-11; values below 6e-5 lose more and more bits,
# and beyond 65504 there is only infinity.
FLOAT16_ERROR = 2.0**-10
_CLEAR_SQUARES = 1e-20, 1e20  # squared lengths far from both limits, and from those of single precision
# Rounding to float16 changes a value of at least 2^-14 by at most 2^-11 of it, and a smaller one by at most 2^-25. So
# the error of a row is within the limit if its squared length is at least 2^-50 / (2^-20 - 2^-22) = 1.34 * 2^-30 per
# value.
_CLEAR_SQUARE_PER_VALUE = 1.4 * 2.0**-30
_CLEAR_FLOAT16_SQUARE = 6e4**2  # no value is beyond the range of float16


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One failure to write.

    Attributes:
        failure: the file, and why it could not be embedded.
        item: the id of the existing item of that file, which is no longer ``present``.
    """

    failure: Failure
    item: int | None = None


@dataclass(frozen=True)
class RunRecord:
    """A run that is recorded in the transaction of a commit.

    Attributes:
        kind: the operation, such as ``register``.
        settings: its settings, as JSON values.
        result: its result, as JSON values.
        started: when it began, UTC.
    """

    kind: str
    settings: Mapping[str, Any]
    result: Mapping[str, Any]
    started: datetime


@dataclass
class CommitBatch:
    """The rows of one commit.

    Attributes:
        items: the items in the order of their new ids.
        columns: the items as columns, in place of ``items``.
        failures: the failures in the order of the files.
        content_info: for each content that was read for the first time its size in bytes, and what is known of it.
        digests: the contents that get a vector.
        vectors: arrays that stack to ``(len(digests), dim)``, in float32 or in the type of the space.
    """

    items: list[ItemRow] = field(default_factory=list)
    columns: ItemColumns | None = None
    failures: list[FailureRow] = field(default_factory=list)
    content_info: dict[str, tuple[int, ContentInfo | None]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    vectors: list[NDArray[np.floating[Any]]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items or self.columns or self.failures or self.digests)

    def item_columns(self) -> ItemColumns:
        """Return the items as columns."""
        return ItemColumns.of_rows(self.items) if self.columns is None else self.columns

    def can_orphan_marks(self, items: ItemColumns) -> bool:
        """Return whether an item that exists may lose its content or its file, with the batch's items as columns."""
        return bool((items.item != NEW_ITEM).any()) or any(r.item is not None for r in self.failures)


def storable_rows(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.bool_]:
    """Return which rows can be stored: of a length that can be computed with, and exact enough in the type.

    Args:
        vectors: float32 ``(n, dim)``.
        dtype: ``float16`` or ``float32``, of the vectors on disk.

    Returns:
        bool ``(n,)``; False for NaN, infinity and zero.
    """
    storable = _clearly_storable(vectors, dtype)
    doubtful = ~storable
    if doubtful.any():
        storable[doubtful] = _exactly_storable(vectors[doubtful], dtype)
    return storable


def _clearly_storable(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.bool_]:
    """Return the rows for which single precision is enough to tell: within 1% of no limit."""
    least, most = _CLEAR_SQUARES
    if dtype == "float16":
        least, most = vectors.shape[1] * _CLEAR_SQUARE_PER_VALUE, _CLEAR_FLOAT16_SQUARE
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", vectors, vectors)
        clear: NDArray[np.bool_] = (squares >= least) & (squares <= most)
    return clear


def _exactly_storable(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.bool_]:
    """Return the same in double precision."""
    exact = vectors.astype(np.float64)
    length = np.linalg.norm(exact, axis=1)
    storable: NDArray[np.bool_] = (length >= MIN_LENGTH) & (length <= MAX_LENGTH)  # NaN compares false
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            stored = vectors.astype(np.float16).astype(np.float64)
            storable &= np.linalg.norm(stored - exact, axis=1) <= FLOAT16_ERROR * length
    return storable
