"""What one commit makes durable: vectors on the disk first, then one catalog transaction that refers to them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedstore.types import Failure, ImageInfo, ImageRef

FLOAT16_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One item to write.

    Attributes:
        ref: the file.
        content: the digest of its bytes, 32 hexadecimal digits.
        item: the id of the existing item to update; None inserts a new item.
    """

    ref: ImageRef
    content: str
    item: int | None = None


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One failure to write.

    Attributes:
        failure: the file, and why it could not be embedded.
        item: the id of the existing item of that file, which is no longer ``present``.
    """

    failure: Failure
    item: int | None = None


@dataclass
class CommitBatch:
    """The rows of one commit.

    Attributes:
        items: in the order of their new ids.
        failures: in the order of the files.
        image_info: for each content that was read for the first time its size in bytes, and its image.
        digests: the contents that get a vector.
        vectors: arrays that stack to float32 ``(len(digests), dim)``.
    """

    items: list[ItemRow] = field(default_factory=list)
    failures: list[FailureRow] = field(default_factory=list)
    image_info: dict[str, tuple[int, ImageInfo | None]] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)
    vectors: list[NDArray[np.float32]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.items or self.failures or self.digests)

    @property
    def can_orphan_marks(self) -> bool:
        """Whether an item that exists may lose its content or its file."""
        ids = [r.item for r in self.items] + [r.item for r in self.failures]
        return any(item is not None for item in ids)

    @property
    def uris(self) -> list[str]:
        """The files of the batch, those that failed included."""
        return [r.ref.uri for r in self.items] + [r.failure.uri for r in self.failures]


def storable_rows(vectors: NDArray[np.float32], dtype: str) -> NDArray[np.bool_]:
    """Return which rows can be stored: finite, not zero, and in the range of the type.

    Args:
        vectors: float32 ``(n, dim)``.
        dtype: ``float16`` or ``float32``, of the vectors on disk.

    Returns:
        bool ``(n,)``.
    """
    limit = FLOAT16_MAX if dtype == "float16" else np.inf
    largest = np.abs(vectors).max(axis=1, initial=0.0)  # NaN stays NaN, and NaN compares false
    storable: NDArray[np.bool_] = (largest > 0) & (largest < np.inf) & (largest <= limit)
    if dtype == "float16":
        with np.errstate(over="ignore", invalid="ignore"):
            storable &= vectors.astype(np.float16).any(axis=1)  # 1e-9 becomes 0
    return storable
