"""The replica that the searches of one server go by, unless a request says otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from embedstore.errors import SpaceNotFound
from embedstore.operations.replicas import find_replica, require_replica
from embedstore.operations.session import Session
from embedstore.replicas.candidates import count_lacking
from embedstore.replicas.state import ReplicaState


@dataclass(frozen=True)
class ReplicaChoice:
    """What a search goes by.

    Attributes:
        name: the replica; None searches the store itself.
        notes: why it is not the replica of the server.
    """

    name: str | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServedReplica:
    """The replica of a server.

    Attributes:
        session: the open store.
        name: the name of the replica.
    """

    session: Session
    name: str

    def state(self) -> ReplicaState | None:
        """Return what is known of the copy of the default space; None if that has no such copy."""
        try:
            return find_replica(self.session, self.session.space(), self.name)
        except SpaceNotFound:
            return None

    def count_lacking(self) -> int:
        """Return how many items of the default space the copy lacks, which searches look for in the store.

        Raises:
            ReplicaError: if the default space has no such copy, or what it holds is not known.
            SpaceNotFound: if the store has no space.
        """
        return count_lacking(self.session.storage, self.session.space(), self.name)

    def choose(self, space: str | None, *, is_hybrid: bool) -> ReplicaChoice:
        """Return what a search that names no replica goes by.

        Args:
            space: the space that is searched.
            is_hybrid: whether words of a column count, too, which only the store has.
        """
        if is_hybrid:
            return _store_itself(f"replica {self.name} has no words")
        record = self.session.space(space)
        if find_replica(self.session, record, self.name) is None:
            return _store_itself(f"replica {self.name} is not of space {record.name}")
        return ReplicaChoice(self.name)


def served_replica(session: Session, name: str | None) -> ServedReplica | None:
    """Return the replica of a server; None without a name.

    Raises:
        BadOption: if the name cannot be one.
        ReplicaError: if no space has such a copy, or its description cannot be used.
        SpaceNotFound: if the store has no space.
    """
    if name is None:
        return None
    require_replica(session, name)
    return ServedReplica(session, name)


def _store_itself(reason: str) -> ReplicaChoice:
    """Return the choice of the store, and why."""
    return ReplicaChoice(None, (f"{reason}; the store itself was searched",))
