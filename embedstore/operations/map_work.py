"""The making of one map in a thread of its own: how far it is, and its end before it is done."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from embedstore.errors import EmbedstoreError, QueryError
from embedstore.storage.map_file import MapPlaces


class MapState(StrEnum):
    """Where the making of a map is."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class MapProgress:
    """How far the making of a map is.

    Attributes:
        space: the key of the space.
        state: whether it runs, or how it ended.
        share: from 0 to 1.
        error: why it failed.
    """

    space: str
    state: MapState
    share: float
    error: str | None = None


class _Cancelled(Exception):
    """Somebody ended the work."""


class MapWork:
    """Makes one map in a thread. Threads may share it.

    Args:
        space: the key of the space.
        make: makes and keeps the map; it is given a function to call with the share that is done, between its steps.
    """

    def __init__(self, space: str, make: Callable[[Callable[[float], None]], MapPlaces]) -> None:
        self._space = space
        self._make = make
        self._share = 0.0
        self._state = MapState.RUNNING
        self._error: Exception | None = None
        self._places: MapPlaces | None = None
        self._lock = threading.Lock()
        self._done = threading.Event()
        threading.Thread(target=self._run, name="embedstore-map", daemon=True).start()

    @property
    def progress(self) -> MapProgress:
        """How far it is."""
        error = None if self._error is None else str(self._error)
        return MapProgress(self._space, self._state, round(self._share, 2), error)

    def cancel(self) -> None:
        """End it; what was made is not kept. Its thread ends before the next step: t-SNE itself takes seconds."""
        with self._lock:
            if self._state is MapState.RUNNING:
                self._state = MapState.CANCELLED
                self._done.set()

    def result(self) -> MapPlaces:
        """Wait for the map, and return it.

        Raises:
            QueryError: if it was cancelled, or too few items have a vector.
            EmbedstoreError: what else the making of it raised.
        """
        self._done.wait()
        if self._places is None:
            raise self._error or QueryError("the drawing of the map was cancelled; ask for the map again")
        return self._places

    def _run(self) -> None:
        """Make the map, and record how that ended."""
        try:
            self._end(MapState.DONE, places=self._make(self._report))
        except _Cancelled:
            pass
        except EmbedstoreError as e:
            self._end(MapState.FAILED, error=e)
        except Exception as e:  # a defect: the thread that waits gets it
            self._end(MapState.FAILED, error=e)
            raise

    def _end(self, state: MapState, *, places: MapPlaces | None = None, error: Exception | None = None) -> None:
        """Record the end, unless it was cancelled."""
        with self._lock:
            if self._state is MapState.RUNNING:
                self._state, self._places, self._error = state, places, error
                self._done.set()

    def _report(self, share: float) -> None:
        """Record the share that is done."""
        if self._state is MapState.CANCELLED:
            raise _Cancelled
        self._share = share
