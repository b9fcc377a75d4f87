"""The file of a map: ids and places of items, derived, and safe to delete at any time.

The same bytes go to the browser. Little-endian: 8 bytes ``ESMAP001``, the number of items (uint64), the generation
(uint64), the ids (int64 each, ascending), then x and y of each item (float32 each).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import UnsafeStore
from embedstore.storage.derived_files import read_derived, write_derived

MAGIC = b"ESMAP001"
_HEADER = len(MAGIC) + 16
_ITEM_BYTES = 16
_MAX_BYTES = 1 << 31  # 134 million items


@dataclass(frozen=True)
class MapPlaces:
    """Places of items on a plane.

    Attributes:
        generation: how many changes the store had had.
        items: int64 ``(n,)`` ids, ascending.
        xy: float32 ``(n, 2)``, about the unit square, y down.
    """

    generation: int
    items: NDArray[np.int64]
    xy: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """Return the map as a file holds it."""
        numbers = np.array([len(self.items), self.generation], "<u8").tobytes()
        return MAGIC + numbers + self.items.astype("<i8").tobytes() + self.xy.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> MapPlaces | None:
        """Return the map that bytes hold, None if they hold none."""
        if data[: len(MAGIC)] != MAGIC or len(data) < _HEADER:
            return None
        count, generation = (int(n) for n in np.frombuffer(data, "<u8", 2, len(MAGIC)))
        if len(data) != _HEADER + count * _ITEM_BYTES:
            return None
        items = np.frombuffer(data, "<i8", count, _HEADER).astype(np.int64)
        xy = np.frombuffer(data, "<f4", 2 * count, _HEADER + 8 * count).reshape(-1, 2).astype(np.float32)
        if not (np.diff(items) > 0).all() or not np.isfinite(xy).all():
            return None
        return cls(generation, items, xy)


def read_map(path: Path) -> MapPlaces | None:
    """Return the map in a file, None if there is none that can be used."""
    try:
        return MapPlaces.from_bytes(read_derived(path, _MAX_BYTES))
    except (OSError, ValueError, UnsafeStore):
        return None


def write_map(path: Path, places: MapPlaces) -> None:
    """Write a map; a disk that is full or cannot be written to is no error: the map is made again."""
    write_derived(path, places.to_bytes())
