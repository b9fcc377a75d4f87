"""Copies of a space in vector databases: write them, and search by them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError, ReplicaError
from embedstore.operations.session import Session
from embedstore.replicas import write
from embedstore.replicas.candidates import WantedHits, replica_candidates
from embedstore.replicas.state import ReplicaState, list_states, read_state
from embedstore.replicas.write import ReplicaReport, ReplicateOptions
from embedstore.reports.progress import Progress, message_progress
from embedstore.search.execute import SearchResult, unit_query
from embedstore.search.options import SearchOptions
from embedstore.storage.spaces import SpaceRecord

if TYPE_CHECKING:
    from embedstore.operations.arguments import Names


def replicate(
    session: Session,
    addresses: Sequence[str],
    *,
    name: str,
    columns: Names | None,
    space: str | None,
    check: bool,
    wait: float,
    progress: Progress,
) -> ReplicaReport:
    """Bring a copy up to date; see :meth:`embedstore.Store.replicate`."""
    options = ReplicateOptions(tuple(addresses), name, None if columns is None else tuple(columns), check)
    with message_progress(progress) as callback:
        return write.replicate(session.storage, session.space(space), options, callback, wait=wait)


def search_replica(
    session: Session, record: SpaceRecord, vector: NDArray[np.float32], options: SearchOptions, name: str
) -> SearchResult:
    """Search by a copy: it proposes items, and the store judges and scores them.

    Raises:
        QueryError: if the options need every item.
        ReplicaError: if the copy cannot be used.
    """
    if options.needs_exact_ranking or options.needs_catalog or options.min_score is not None:
        raise QueryError(
            "a replica answers with the k nearest; leave out --exact, --min-score, --group-by, --diversity and --hybrid"
        )
    begin = time.perf_counter()
    query, wanted = unit_query(record, vector), WantedHits(options.end, options.where, options.within)
    try:
        proposed = replica_candidates(session.storage, record, name, query, wanted)
    except ReplicaError as e:
        raise ReplicaError(f"{e}; or leave out --replica: the store itself answers") from e
    asked_ms = 1000 * (time.perf_counter() - begin)
    result = session.searcher.search(record, vector, replace(options, within=proposed.items))
    plan = replace(result.plan, reason=f"{proposed.method} in {asked_ms:.0f} ms")
    return replace(result, plan=plan, notes=(*result.notes, *_behind(name, proposed.newer)))


def find_replica(session: Session, record: SpaceRecord, name: str) -> ReplicaState | None:
    """Return what is known of a copy of a space, None if the space has no such copy that can be used."""
    return next((state for state in list_states(session.storage.layout, record.key) if state.name == name), None)


def require_replica(session: Session, name: str) -> None:
    """Require that a space has a copy of a name.

    Raises:
        BadOption: if the name cannot be one.
        ReplicaError: if no space has such a copy, or its description cannot be used.
        SpaceNotFound: if the store has no space.
    """
    if not any(find_replica(session, record, name) for record in session.storage.spaces()):
        read_state(session.storage.layout, session.space().key, name)


def _behind(name: str, newer: int) -> list[str]:
    """Say how far behind a copy is."""
    if not newer:
        return []
    return [
        f"replica {name} lacks {newer:,} of the matching items, which were searched exactly in the store; "
        f"`embedstore replicate STORE --name {name}` brings it up to date"
    ]
