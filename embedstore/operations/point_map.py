"""The map of all items of a space: a sample is projected, the others are placed next to what they resemble.

The places are kept in a file. Items that are added get places of their own, and no other item moves; the map is
projected again only when somebody asks for that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.operations.map_work import MapProgress, MapState, MapWork
from embedstore.operations.session import Session
from embedstore.search.map_places import place_near
from embedstore.search.projection import MIN_ITEMS, project_vectors
from embedstore.storage.catalog import CatalogStamp
from embedstore.storage.map_file import MapPlaces, read_map, write_map
from embedstore.storage.queries import browse, counters
from embedstore.storage.queries import search as queries
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.vectors import VectorReader

ANCHORS = 2000  # items that are projected: t-SNE of more takes minutes
PROJECTION_SHARE = 0.2  # of the time of a large map that t-SNE takes
SOON = 20_000  # items that are placed within a second
MAX_LEGEND = 254  # values of a column with a code of their own


@dataclass(frozen=True)
class _Known:
    """A map in memory.

    Attributes:
        stamp: the stamp of the catalog when its items were looked up.
        places: the map.
    """

    stamp: CatalogStamp
    places: MapPlaces


@dataclass(frozen=True)
class _Rows:
    """The items that a map shows.

    Attributes:
        generation: how many changes the store had had.
        items: int64 ``(n,)`` ids, ascending.
        positions: int64 ``(n,)`` places of their vectors.
        vectors: reads them.
    """

    generation: int
    items: NDArray[np.int64]
    positions: NDArray[np.int64]
    vectors: VectorReader

    def unit(self, rows: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Return the unit vectors of some rows: float32 ``(n, D)``."""
        return unit_rows(self.vectors.read_float32(self.positions[rows]))


class PointMaps:
    """The maps of one store, one per space. Threads may share it.

    Args:
        session: the open store.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._maps: dict[str, _Known] = {}
        self._works: dict[str, MapWork] = {}
        self._lock = threading.RLock()

    def places(self, space: str | None, *, again: bool = False) -> MapPlaces:
        """Return the places of all present items that have a vector, and wait where they have to be computed.

        Args:
            space: the space.
            again: project again, so that items move.

        Raises:
            SpaceNotFound: if there is no such space.
            QueryError: if fewer than five items have a vector, or the work was cancelled.
        """
        found = self.places_or_work(space, again=again)
        return found if isinstance(found, MapPlaces) else found.result()

    def places_or_work(self, space: str | None, *, again: bool = False) -> MapPlaces | MapWork:
        """Return the places where they are known or computed within about a second, else the work that computes them.

        Args:
            space: the space.
            again: project again, so that items move.

        Raises:
            SpaceNotFound: if there is no such space.
            QueryError: if fewer than five items have a vector.
        """
        record = self._session.space(space)
        with self._lock:
            work = self._works.get(record.key)
            if work is not None and work.progress.state is MapState.RUNNING:
                return work
            before = None if again else self._before(record)
            if before is not None and self._is_current(record, before):
                return before
            rows = self._rows(record)
            if before is None or not _is_near(before, rows):
                return self._start(record, rows, before)
            return self._keep(record, rows, _updated(rows, before, lambda share: None))

    def latest(self, space: str | None) -> MapPlaces:
        """Return the map that was shown last, without a look at what changed since; the first one is waited for.

        Raises:
            SpaceNotFound: if there is no such space.
            QueryError: if fewer than five items have a vector, or the work was cancelled.
        """
        known = self._maps.get(self._session.space(space).key)
        return self.places(space) if known is None else known.places

    def progress(self) -> list[MapProgress]:
        """Return how far the making of each map is, also of those that ended."""
        with self._lock:
            return [work.progress for work in self._works.values()]

    def cancel(self, space: str | None) -> MapProgress | None:
        """End the work on the map of a space; None if there was none.

        Raises:
            SpaceNotFound: if there is no such space.
        """
        key = self._session.space(space).key
        with self._lock:
            work = self._works.get(key)
        if work is None:
            return None
        work.cancel()
        return work.progress

    def close(self) -> None:
        """End all work."""
        with self._lock:
            for work in self._works.values():
                work.cancel()

    def codes(self, space: str | None, column: str) -> tuple[MapPlaces, NDArray[np.uint16], list[tuple[str, int]]]:
        """Return the map, a code per item for its value of a column, and the values of the codes from 1.

        Raises:
            UnknownColumn: if the items lack the column.
            QueryError: if fewer than five items have a vector.
        """
        places = self.latest(space)
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
        places = self.latest(space)
        return places.items[points_inside(places.xy.astype(np.float64), polygon)]

    def _file(self, record: SpaceRecord) -> Path:
        """Return the file of a map."""
        return self._session.storage.layout.cache / "maps" / f"{record.key}.map"

    def _before(self, record: SpaceRecord) -> MapPlaces | None:
        """Return the last map of a space, from memory or from its file."""
        known = self._maps.get(record.key)
        return read_map(self._file(record)) if known is None else known.places

    def _is_current(self, record: SpaceRecord, before: MapPlaces) -> bool:
        """Return whether nothing was changed since a map was made."""
        stamp = self._session.storage.catalog.stamp
        known = self._maps.get(record.key)
        if known is not None:
            return known.stamp == stamp
        if before.generation != self._session.storage.catalog.commit_count():
            return False
        self._maps[record.key] = _Known(stamp, before)
        return True

    def _rows(self, record: SpaceRecord) -> _Rows:
        """Return the present items that have a vector."""
        storage = self._session.storage
        with storage.catalog.read() as con:
            generation = counters.read_commit_count(con)
            found = queries.placements(con, record.key)
            vectors = storage.vector_reader_in(con, record.space).map_shards()
        if len(found.items) < MIN_ITEMS:
            raise QueryError(f"a map needs at least {MIN_ITEMS} items with a vector in space {record.name}")
        order = np.argsort(found.items)
        positions = vectors.positions(found.shards[order], found.rows[order])
        return _Rows(generation, found.items[order], positions, vectors)

    def _start(self, record: SpaceRecord, rows: _Rows, before: MapPlaces | None) -> MapWork:
        """Start to make a map."""

        def make(report: Callable[[float], None]) -> MapPlaces:
            places = _projected(rows, report) if before is None else _updated(rows, before, report)
            report(1.0)
            with self._lock:
                return self._keep(record, rows, places)

        self._works[record.key] = MapWork(record.key, make)
        return self._works[record.key]

    def _keep(self, record: SpaceRecord, rows: _Rows, places: MapPlaces) -> MapPlaces:
        """Keep a map in memory, and in its file if it is another one than before."""
        stamp = self._session.storage.catalog.stamp
        known = self._maps.get(record.key)
        if known is None or places is not known.places:
            write_map(self._file(record), places)
        if self._session.storage.catalog.commit_count() == rows.generation:
            self._maps[record.key] = _Known(stamp, places)
        else:  # the store changed meanwhile: the next look finds out
            self._maps[record.key] = _Known((), places)
        return places


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


def _is_near(before: MapPlaces, rows: _Rows) -> bool:
    """Return whether an older map gives anchors, and few items have no place on it yet."""
    known = int(np.isin(rows.items, before.items, assume_unique=True).sum())
    return known > 0 and len(rows.items) - known <= SOON


def _projected(rows: _Rows, report: Callable[[float], None]) -> MapPlaces:
    """Return a new map: a sample is projected, and the others are placed next to what they resemble."""
    report(0.0)
    count = len(rows.items)
    sample = np.arange(count)
    if count > ANCHORS:
        sample = np.sort(np.random.default_rng(0).choice(count, ANCHORS, replace=False))
    xy = project_vectors(rows.unit(sample))
    report(PROJECTION_SHARE)
    anchors = MapPlaces(rows.generation, rows.items[sample], xy)
    return _updated(rows, anchors, lambda share: report(PROJECTION_SHARE + (1 - PROJECTION_SHARE) * share))


def _updated(rows: _Rows, before: MapPlaces, report: Callable[[float], None]) -> MapPlaces:
    """Return the map of all items: those of an older map stay where they are. The same items give the same map."""
    if np.array_equal(rows.items, before.items):
        return before
    is_known = np.isin(rows.items, before.items, assume_unique=True)
    if not is_known.any():
        return _projected(rows, report)
    xy = np.empty((len(rows.items), 2), np.float32)
    xy[is_known] = before.xy[np.searchsorted(before.items, rows.items[is_known])]
    new = np.flatnonzero(~is_known)
    if len(new):
        anchors = _anchors(np.flatnonzero(is_known))
        xy[new] = place_near(
            rows.unit(anchors),
            xy[anchors],
            lambda begin, end: rows.unit(new[begin:end]),
            rows.items[new],
            progress=lambda done, count: report(done / count),
        )
    return MapPlaces(rows.generation, rows.items, xy)


def _anchors(known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows of the items that decide the places of new ones: at most a few thousand."""
    if len(known) <= ANCHORS:
        return known
    return np.sort(np.random.default_rng(0).choice(known, ANCHORS, replace=False))
