"""A copy of a space in Qdrant: half-precision vectors, its HNSW index, exact where few points match."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import MissingExtra, ReplicaError
from embedstore.replicas.qdrant_condition import COLUMNS, condition_filter
from embedstore.replicas.replica import ReplicaRows, ReplicaTable
from embedstore.storage.portable_filter import Condition

SCHEME = "qdrant"
META = "embedstore_replicas"
TIMEOUT_SECONDS = 60
PAGE_POINTS = 10_000
PUT_POINTS = 512  # of one request
MIN_EF = 128


def import_qdrant() -> Any:
    """Return the package qdrant_client.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import qdrant_client
    except ImportError as e:
        raise MissingExtra("qdrant-client is not installed; run `pip install 'embedstore[qdrant]'`") from e
    return qdrant_client


def parse_qdrant_address(address: str) -> tuple[dict[str, str], str | None]:
    """Return the settings of an address that may be stored, and its API key.

    Raises:
        ReplicaError: if it is no address of Qdrant.
    """
    try:
        parts = urlsplit(address)
        host, port, key = parts.hostname, parts.port, parts.password
    except ValueError:
        host, port, key, parts = None, None, None, urlsplit("")
    if not host and parts.path.startswith("/") and len(parts.path) > 1:
        return {"path": parts.path}, None
    if not host:
        raise ReplicaError(
            "the address is none of Qdrant; write it as qdrant://HOST:PORT, with the API key in $QDRANT_API_KEY, or as "
            "qdrant:///FOLDER for a copy without a server"
        )
    secure = "https" if "tls" in parts.query else "http"
    return {"url": f"{secure}://{host}:{port or 6333}"}, key


class QdrantReplica:
    """One server, or a folder in the local mode of the client.

    Args:
        settings: the settings of the connection, without a key.
        table: the copy.
        key: the API key; None takes it from $QDRANT_API_KEY.

    Raises:
        ReplicaError: if the server cannot be reached or refuses.
        MissingExtra: if qdrant-client is not installed.
    """

    def __init__(self, settings: dict[str, Any], table: ReplicaTable, key: str | None = None) -> None:
        self.place = qdrant_place(settings)
        client = import_qdrant()
        self._models, self._table = client.models, table
        known: dict[str, Any] = {name: settings[name] for name in ("url", "path") if name in settings}
        self._is_local = "path" in known
        if "url" in known:
            secret = key or os.environ.get("QDRANT_API_KEY")
            known |= {"timeout": TIMEOUT_SECONDS, "api_key": secret, "check_compatibility": False}
        with self._errors("connect to"):
            self._client = client.QdrantClient(**known)
            self._client.get_collections()

    def ensure(self, table: ReplicaTable) -> None:
        """Make the collection, if there is none; see :class:`~embedstore.replicas.replica.Replica`."""
        m = self._models
        with self._errors("prepare"):
            if not self._client.collection_exists(META):
                self._client.create_collection(META, vectors_config=m.VectorParams(size=1, distance=m.Distance.DOT))
            found = self._described()
            exists = self._client.collection_exists(table.name)
            if found is None and exists:
                raise self._other("is not one that embedstore made")
            if found is not None:
                self._require_same(found)
                if found["columns"] != list(table.columns):
                    raise self._other(f"has the columns {found['columns']}, not {list(table.columns)}")
            if not exists:
                vectors = m.VectorParams(size=table.dim, distance=m.Distance.COSINE, datatype=m.Datatype.FLOAT16)
                self._client.create_collection(table.name, vectors_config=vectors)
            payload = {"store": table.store, "space": table.space, "dim": table.dim, "writer": table.writer}
            payload["columns"] = list(table.columns)
            self._client.upsert(META, [m.PointStruct(id=self._id, vector=[1.0], payload=payload)], wait=True)

    def require(self, table: ReplicaTable) -> None:
        """Require that the collection is the one that was written."""
        with self._errors("read"):
            found = self._described() if self._client.collection_exists(META) else None
            if found is None or not self._client.collection_exists(table.name):
                raise ReplicaError(
                    f"{self.place} has no table {table.name} any more; run `embedstore replicate STORE ADDRESS --name "
                    f"{table.name}`"
                )
            self._require_same(found)
            if found["writer"] != table.writer:
                raise self._other("was written from another copy of the store since", "run it again to replace it")

    def rows(self) -> ReplicaRows:
        """Return what the collection holds."""
        items, contents, prints, offset = [], [], [], None
        with self._errors("read"):
            while True:
                points, offset = self._client.scroll(
                    self._table.name, limit=PAGE_POINTS, offset=offset, with_payload=["content", "print"]
                )
                items += [int(p.id) for p in points]
                contents += [p.payload.get("content") for p in points]
                prints += [int(p.payload.get("print") or 0) for p in points]
                if offset is None:
                    return ReplicaRows(np.array(items, np.int64), contents, np.array(prints, np.int64))

    def put(self, rows: ReplicaRows, vectors: NDArray[np.float32], columns: Sequence[Sequence[Any]]) -> None:
        """Insert points, or replace those of the same items."""
        names, m = list(self._table.columns), self._models
        points = [
            m.PointStruct(
                id=item,
                vector=vectors[n].tolist(),
                payload={
                    COLUMNS: {name: _plain(v) for name, v in zip(names, columns[n], strict=True)},
                    "content": rows.contents[n],
                    "print": int(rows.prints[n]),
                },
            )
            for n, item in enumerate(rows.items.tolist())
        ]
        with self._errors("write to"):
            for first in range(0, len(points), PUT_POINTS):
                self._client.upsert(self._table.name, points[first : first + PUT_POINTS], wait=True)

    def drop(self, items: NDArray[np.int64]) -> None:
        """Delete points."""
        with self._errors("write to"):
            self._client.delete(self._table.name, self._models.PointIdsList(points=items.tolist()), wait=True)

    def build_note(self) -> str:
        """Return "": the server builds its index beside other work."""
        return ""

    def finish(self) -> None:
        """Do nothing: Qdrant builds its index by itself."""

    def count(self) -> int:
        """Return how many points there are."""
        with self._errors("read"):
            return int(self._client.count(self._table.name, exact=True).count)

    def vectors(self, items: NDArray[np.int64]) -> dict[int, NDArray[np.float32]]:
        """Return the vectors of some items, those that there are."""
        with self._errors("read"):
            found = self._client.retrieve(self._table.name, items.tolist(), with_payload=False, with_vectors=True)
        return {int(p.id): np.asarray(p.vector, np.float32) for p in found}

    def nearest(
        self, query: NDArray[np.float32], count: int, condition: Condition | None = None
    ) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest points by the index, nearest first."""
        listed = condition_filter(self._models, condition) if condition else None
        return self._query(query, count, self._models.SearchParams(hnsw_ef=max(MIN_EF, count)), listed)

    def nearest_among(
        self, query: NDArray[np.float32], count: int, items: NDArray[np.int64]
    ) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest points among some items, exactly."""
        m = self._models
        listed = m.Filter(must=[m.HasIdCondition(has_id=items.tolist())])
        return self._query(query, count, m.SearchParams(exact=True), listed)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _query(self, query: NDArray[np.float32], count: int, how: Any, listed: Any) -> list[tuple[float, int]]:
        """Return ``(distance, item)`` of the nearest points."""
        with self._errors("search"):
            found = self._client.query_points(
                self._table.name,
                query=query.tolist(),
                query_filter=listed,
                limit=count,
                search_params=None if self._is_local else how,  # the local mode compares every point
                with_payload=False,
            )
        return [(1.0 - float(p.score), int(p.id)) for p in found.points]

    @property
    def _id(self) -> str:
        """The id of the point that describes the collection."""
        return str(uuid.uuid5(uuid.NAMESPACE_URL, self._table.name))

    def _described(self) -> dict[str, Any] | None:
        """Return store, space, dim, columns and writer of the collection, as the server records them."""
        found = self._client.retrieve(META, [self._id], with_payload=True)
        return dict(found[0].payload) if found else None

    def _require_same(self, found: dict[str, Any]) -> None:
        """Require that a collection belongs to the store and space."""
        if found["store"] != self._table.store:
            raise self._other("belongs to another store")
        if found["space"] != self._table.space or found["dim"] != self._table.dim:
            raise self._other(f"holds another space, of dimension {found['dim']} (this one has {self._table.dim})")

    def _other(self, problem: str, cure: str = "choose another --name") -> ReplicaError:
        """Return the error for a collection that is not ours."""
        return ReplicaError(f"table {self._table.name} at {self.place} {problem}; {cure}")

    @contextmanager
    def _errors(self, action: str) -> Iterator[None]:
        """Report what the server or the client says as one line."""
        try:
            yield
        except ReplicaError:
            raise
        except Exception as e:  # the client has no common class for its errors
            text = " ".join(str(e).split()) or type(e).__name__
            cure = "set $QDRANT_API_KEY" if "401" in text or "403" in text else "check the server, and run it again"
            raise ReplicaError(f"cannot {action} {self.place}: {text[:300]}; {cure}") from None


def qdrant_place(settings: dict[str, Any]) -> str:
    """Return the address of stored settings, without a key."""
    if "path" in settings:
        return f"{SCHEME}://{settings['path']}"
    return f"{SCHEME}://{str(settings.get('url', '')).split('://')[-1]}"


def _plain(value: Any) -> Any:
    """Return a value as JSON has it, which has no infinite numbers."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
