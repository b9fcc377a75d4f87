"""What a vector database has to do for a copy of a space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.storage.portable_filter import Condition


@dataclass(frozen=True)
class ReplicaTable:
    """What a copy is a copy of.

    Attributes:
        name: its name, which is also that of the table.
        store: the id of the store.
        space: the key of the space.
        dim: the length of a vector.
        columns: the DuckDB type of each column that goes with the vectors, by name.
        writer: the id of the copy of the store that writes it.
    """

    name: str
    store: str
    space: str
    dim: int
    columns: dict[str, str]
    writer: str


@dataclass(frozen=True)
class ReplicaRows:
    """Rows of a copy.

    Attributes:
        items: int64 ``(n,)``.
        contents: 32 hexadecimal digits each.
        prints: int64 ``(n,)``, a fingerprint of the columns of each row.
    """

    items: NDArray[np.int64]
    contents: Sequence[str]
    prints: NDArray[np.int64]


class Replica(Protocol):
    """One server with a copy, or a part of one."""

    @property
    def place(self) -> str:
        """The address, without a password."""

    def ensure(self, table: ReplicaTable) -> None:
        """Make the table, if there is none.

        Raises:
            ReplicaError: if a table of that name belongs to something else, or the server refuses.
        """

    def require(self, table: ReplicaTable) -> None:
        """Require that the table is the one that was written.

        Raises:
            ReplicaError: if it is not.
        """

    def rows(self) -> ReplicaRows:
        """Return what the table holds."""

    def put(self, rows: ReplicaRows, vectors: NDArray[np.float32], columns: Sequence[Sequence[Any]]) -> None:
        """Insert rows, or replace those of the same items, in one transaction.

        Args:
            rows: the rows.
            vectors: float32 ``(n, dim)`` of length 1.
            columns: the values of the columns of each row.
        """

    def drop(self, items: NDArray[np.int64]) -> None:
        """Delete rows."""

    def build_note(self) -> str:
        """Return what makes :meth:`finish` slow and what to do about it; "" if nothing does."""

    def finish(self) -> None:
        """Build what makes searches fast, if it is missing."""

    def count(self) -> int:
        """Return how many rows there are."""

    def vectors(self, items: NDArray[np.int64]) -> dict[int, NDArray[np.float32]]:
        """Return the vectors of some items, those that there are."""

    def nearest(
        self, query: NDArray[np.float32], count: int, condition: Condition | None = None
    ) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest rows by the index, nearest first.

        Args:
            query: float32 ``(dim,)`` of length 1.
            count: how many.
            condition: only rows that fulfill it.
        """

    def nearest_among(
        self, query: NDArray[np.float32], count: int, items: NDArray[np.int64]
    ) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest rows among some items, exactly."""

    def close(self) -> None:
        """Close the connection."""
