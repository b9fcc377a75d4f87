"""Which vector database an address names, and connections to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from embedstore.errors import ReplicaError
from embedstore.replicas import pgvector, qdrant, qdrant_condition
from embedstore.replicas.replica import Replica, ReplicaTable
from embedstore.storage.portable_filter import Comparison

PGVECTOR, QDRANT = "pgvector", qdrant.SCHEME


def parse_server(address: str) -> tuple[dict[str, str], str | None]:
    """Return the settings of an address that may be stored, ``kind`` among them, and its password.

    Raises:
        ReplicaError: if the address names no vector database.
        MissingExtra: if its client is not installed.
    """
    scheme = address.split("://", 1)[0]
    if scheme == qdrant.SCHEME:
        settings, key = qdrant.parse_qdrant_address(address)
        return {"kind": QDRANT} | settings, key
    if scheme in ("postgresql", "postgres"):
        settings, password = pgvector.parse_address(address)
        return {"kind": PGVECTOR} | settings, password
    raise ReplicaError(
        "the address names no vector database; write postgresql://USER@HOST:PORT/DATABASE or qdrant://HOST:PORT"
    )


def open_server(settings: dict[str, Any], table: ReplicaTable, password: str | None = None) -> Replica:
    """Connect to one server.

    Raises:
        ReplicaError: if it cannot be used.
        MissingExtra: if its client is not installed.
    """
    known = {name: value for name, value in settings.items() if name != "kind"}
    if settings.get("kind") == QDRANT:
        return qdrant.QdrantReplica(known, table, password)
    return pgvector.PgvectorReplica(known, table, password)


def place_of_server(settings: dict[str, Any]) -> str:
    """Return the address of stored settings, without a password."""
    if settings.get("kind") == QDRANT:
        return qdrant.qdrant_place(settings)
    return pgvector.place_of({name: value for name, value in settings.items() if name != "kind"})


def can_say(kind: str) -> Callable[[Comparison], bool]:
    """Return a function that tells which comparisons a vector database has."""
    return qdrant_condition.can_say if kind == QDRANT else lambda _: True
