"""The map of all items of a space: a sample is projected, the others are placed next to what they resemble.

The places are kept in a file. Items that are added get places of their own, and no other item moves; the map is
projected again only when somebody asks for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.operations.session import Session
from embedstore.search.map_places import place_near
from embedstore.search.projection import MIN_ITEMS, project
from embedstore.storage.catalog import CatalogStamp
from embedstore.storage.map_file import MapPlaces, read_map, write_map
from embedstore.storage.queries import browse, counters
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.vectors import VectorReader

ANCHORS = 2000  # items that are projected: t-SNE of more takes minutes
MAX_LEGEND = 254  # values of a column with a code of their own


class PointMaps:
    """The maps of one store, one per space. Threads may share it; one map is made at a time.

    Args:
        session: the open store.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._maps: dict[str, tuple[CatalogStamp, MapPlaces]] = {}
        self._lock = threading.Lock()

    def places(self, space: str | None, *, again: bool = False) -> MapPlaces:
        """Return the places of all present items that have a vector.

        Args:
            space: the space.
            again: project again, so that items move.

        Raises:
            SpaceNotFound: if there is no such space.
            QueryError: if fewer than five items have a vector.
        """
        record = self._session.space(space)
        with self._lock:
            stamp = self._session.storage.catalog.stamp
            known = self._maps.get(record.key)
            if known is not None and known[0] == stamp and not again:
                return known[1]
            path = self._session.storage.layout.cache / "maps" / f"{record.key}.map"
            before = None if again else (known[1] if known else read_map(path))
            places = self._make(record, before)
            if before is None or len(places.items) != len(before.items) or (places.items != before.items).any():
                write_map(path, places)
            self._maps[record.key] = (stamp, places)
            return places

    def codes(self, space: str | None, column: str) -> tuple[MapPlaces, NDArray[np.uint16], list[tuple[str, int]]]:
        """Return the map, a code per item for its value of a column, and the values of the codes from 1.

        Raises:
            UnknownColumn: if the items lack the column.
            QueryError: if fewer than five items have a vector.
        """
        places = self.places(space)
        with self._session.storage.catalog.read() as con:
            return places, *browse.column_codes(con, column, places.items, MAX_LEGEND)

    def inside(self, space: str | None, polygon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the ids of the items inside a polygon, ascending.

        Args:
            space: the space of the map.
            polygon: float64 ``(m, 2)`` corners in order; the last is joined with the first.

        Raises:
            QueryError: if fewer than five items have a vector.
        """
        places = self.places(space)
        return places.items[points_inside(places.xy.astype(np.float64), polygon)]

    def _make(self, record: SpaceRecord, before: MapPlaces | None) -> MapPlaces:
        """Return the map of the present generation; what the one before placed stays in its place."""
        storage = self._session.storage
        with storage.catalog.read() as con:
            generation = counters.read_commit_count(con)
            found = queries.placements(con, record.key)
            vectors = storage.vector_reader_in(con, record.space).map_shards()
        if len(found.items) < MIN_ITEMS:
            raise QueryError(f"a map needs at least {MIN_ITEMS} items with a vector in space {record.name}")
        order = np.argsort(found.items)
        items, positions = found.items[order], vectors.positions(found.shards[order], found.rows[order])
        if before is None or not np.isin(before.items, items).any():
            sample = project(storage, record, color="label", max_items=ANCHORS)
            before = MapPlaces(generation, sample.items, sample.xy)
        return MapPlaces(generation, items, _all_places(items, positions, vectors, before))


def points_inside(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which points are inside a polygon, by the parity of the edges to their right: bool ``(n,)``.

    Args:
        points: float64 ``(n, 2)``.
        polygon: float64 ``(m, 2)`` corners in order; the last is joined with the first.
    """
    inside = np.zeros(len(points), np.bool_)
    x, y = points[:, 0], points[:, 1]
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            inside ^= crosses & (x < x1 + (y - y1) / (y2 - y1) * (x2 - x1))
    return inside


def _all_places(
    items: NDArray[np.int64], positions: NDArray[np.int64], vectors: VectorReader, before: MapPlaces
) -> NDArray[np.float32]:
    """Return a place for every item: the known one, or one next to the items that it resembles."""
    is_known = np.isin(items, before.items)
    xy = np.empty((len(items), 2), np.float32)
    xy[is_known] = before.xy[np.searchsorted(before.items, items[is_known])]
    if is_known.all():
        return xy
    anchors = np.flatnonzero(is_known)
    if len(anchors) > ANCHORS:
        anchors = np.sort(np.random.default_rng(0).choice(anchors, ANCHORS, replace=False))
    xy[~is_known] = place_near(
        _unit(vectors, positions[anchors]), xy[anchors], _reader(vectors, positions[~is_known]), items[~is_known]
    )
    return xy


def _reader(vectors: VectorReader, positions: NDArray[np.int64]) -> Callable[[int, int], NDArray[np.float32]]:
    """Return a function that reads the unit vectors of some positions."""
    return lambda begin, end: _unit(vectors, positions[begin:end])


def _unit(vectors: VectorReader, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the unit vectors at some positions: float32 ``(n, D)``."""
    return unit_rows(vectors.read_float32(positions)).astype(np.float32)
