"""Candidates of a search from a copy: count first, then few matches exactly, and many by the index.

Whether an item matches, and its score, are the store's to say: a copy only proposes items.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import ReplicaError
from embedstore.replicas.replica import Replica, ReplicaTable
from embedstore.replicas.servers import can_say
from embedstore.replicas.state import ReplicaState, read_state
from embedstore.replicas.write import connect
from embedstore.storage import reading
from embedstore.storage.layout import read_marker
from embedstore.storage.portable_filter import PortableFilter, portable_filter
from embedstore.storage.queries import replicas as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage

FEW_ITEMS = 20_000  # an allow-list of 20,000 ids takes 116 ms, one of 1,000 takes 16 ms
SPARE_CANDIDATES = 16  # half precision may swap neighbours; the store scores them again
MAX_INDEX_ROWS = 4_000  # rows that the index is asked for, beyond which an exact scan is cheaper
WIDENING = 1.5  # more rows than the share of matches suggests


@dataclass(frozen=True)
class ReplicaCandidates:
    """What a copy proposes.

    Attributes:
        items: int64 ``(n,)`` ids, ascending: the nearest that the copy holds, and every item that is newer.
        method: how they were found.
        newer: how many matching items the copy does not hold as they are.
        matching: how many items match.
    """

    items: NDArray[np.int64]
    method: str
    newer: int
    matching: int


@dataclass(frozen=True)
class WantedHits:
    """Which hits are wanted.

    Attributes:
        count: how many.
        where: only items that match this filter.
        within: only items with these ids: int64 ``(n,)``; None takes all.
    """

    count: int
    where: str | None = None
    within: NDArray[np.int64] | None = None

    def limit(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some items that are wanted by their ids."""
        return items if self.within is None else items[np.isin(items, self.within)]


def replica_candidates(
    storage: Storage, space: SpaceRecord, name: str, query: NDArray[np.float32], hits: WantedHits
) -> ReplicaCandidates:
    """Return items among which the nearest to a query are.

    Args:
        storage: the store.
        space: the space.
        name: the copy.
        query: float32 ``(dim,)`` of length 1.
        hits: which hits are wanted.

    Raises:
        ReplicaError: if there is no such copy, a server cannot be used, or holds something else.
        BadFilter: if the filter cannot be used.
        UnknownColumn: if the filter names a column that the items lack.
    """
    state, held_file = _read_state(storage, space, name)
    store = read_marker(storage.layout)["id"]
    table = ReplicaTable(name, store, space.key, space.space.dim, state.columns, state.writer)
    with storage.catalog.read() as con:
        has_prints = _require_held(con, held_file)
        said = _portable(con, hits.where, state) if has_prints else None
        pushed = queries.PushedColumns(state.columns, said.columns) if said else None
        split = queries.split_by_copy(con, space.key, hits.where, held_file, pushed)
    held, newer = (hits.limit(items) for items in split)
    if not len(held):
        return ReplicaCandidates(newer, "nothing in the replica matches", len(newer), len(newer))
    servers = connect(state, table)
    try:
        wanted = _Wanted(hits.count + SPARE_CANDIDATES, state.rows, said, has_own_ids=hits.within is not None)
        found, method = _nearest(servers, query, held, wanted)
    finally:
        for server in servers:
            server.close()
    return ReplicaCandidates(np.union1d(found, newer), method, len(newer), len(held) + len(newer))


def count_lacking(storage: Storage, space: SpaceRecord, name: str) -> int:
    """Return how many items of a space a copy lacks, or has with another content.

    Args:
        storage: the store.
        space: the space.
        name: the copy.

    Raises:
        ReplicaError: if there is no such copy, or what it holds is not known.
    """
    _, held_file = _read_state(storage, space, name)
    with storage.catalog.read() as con:
        _require_held(con, held_file)
        return queries.count_newer(con, space.key, held_file)


def _read_state(storage: Storage, space: SpaceRecord, name: str) -> tuple[ReplicaState, Path]:
    """Return what is known of a copy, and the file of what it holds."""
    state, files = read_state(storage.layout, space.key, name)
    if not reading.exists(files.held):
        raise ReplicaError(
            f"what replica {name} holds is not known since a purge; run `embedstore replicate STORE --name {name}`"
        )
    return state, files.held


def _require_held(con: duckdb.DuckDBPyConnection, held_file: Path) -> bool:
    """Require that a file says what a copy holds, and return whether it has fingerprints of the columns."""
    try:
        return queries.has_prints(con, held_file)
    except (ValueError, duckdb.Error) as e:
        raise ReplicaError(f"{held_file} cannot be used; run `embedstore replicate STORE ADDRESS --name NAME`") from e


def _portable(con: duckdb.DuckDBPyConnection, where: str | None, state: ReplicaState) -> PortableFilter | None:
    """Return what the servers can say of a filter."""
    if where is None:
        return None
    return portable_filter(con, where, state.columns, can_say(state.kind))


@dataclass(frozen=True)
class _Wanted:
    """What is asked of the servers.

    Attributes:
        count: how many of the held items.
        rows: how many rows the servers hold.
        said: what they can say of the filter.
        has_own_ids: whether only items with some ids are wanted, of which the servers know nothing.
    """

    count: int
    rows: int
    said: PortableFilter | None
    has_own_ids: bool = False

    def index_rows(self, held: int) -> int:
        """Return how many rows the index is asked for."""
        is_said = self.said is not None and self.said.is_whole and not self.has_own_ids
        share = 1.0 if is_said else max(self.rows, held) / held
        return int(WIDENING * self.count * share) + 1


def _nearest(
    servers: Sequence[Replica], query: NDArray[np.float32], held: NDArray[np.int64], asked: _Wanted
) -> tuple[NDArray[np.int64], str]:
    """Return at least the wanted number of held items, or all of them, that are nearest, and how they were found."""
    count, wanted = asked.count, asked.index_rows(len(held))
    if len(held) > FEW_ITEMS and wanted <= MAX_INDEX_ROWS:
        condition = asked.said.condition if asked.said else None
        near = _merge(servers, lambda server: server.nearest(query, wanted, condition), wanted)
        near = near[np.isin(near, held)]
        if len(near) >= count:
            filtered = " that its own filter leaves" if condition else ""
            return near[:count], f"index of the replica, {wanted:,} rows{filtered}"
    method = "exact among the matches" if len(held) <= FEW_ITEMS else "exact, as too few of the index's rows match"
    return _merge(servers, lambda server: server.nearest_among(query, count, held), count), f"{method} in the replica"


def _merge(
    servers: Sequence[Replica], ask: Callable[[Replica], list[tuple[float, int]]], count: int
) -> NDArray[np.int64]:
    """Return the nearest items of all servers, nearest first."""
    with ThreadPoolExecutor(len(servers)) as pool:
        lists = list(pool.map(ask, servers))
    return np.array([item for _, item in heapq.nsmallest(count, (pair for found in lists for pair in found))], np.int64)
