"""Faults of pictures that show in their pixels, for the queues of a person: measured once, as far as time allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from embedstore.media.image.quality import Fault, PictureFacts
from embedstore.operations.checkup import COMMON_SHARE
from embedstore.operations.session import Session
from embedstore.search.content_images import measure_images
from embedstore.storage.queries import browse
from embedstore.storage.queries import search as queries
from embedstore.wording import counted

SECONDS = 20.0  # of one look; the next look goes on where it ended
_BLOCK = 64  # images that are measured between two looks at the clock
_MAX_KEPT = 2_000_000  # measures, about 200 bytes each

# what orders the items of a queue, the worst first: the lowest value
_SEVERITY: Mapping[Fault, Callable[[PictureFacts], float]] = {
    Fault.DARK: lambda facts: facts.brightest,
    Fault.BRIGHT: lambda facts: -facts.darkest,
    Fault.EMPTY: lambda facts: facts.entropy,
    Fault.BLURRED: lambda facts: facts.sharpness,
    Fault.ODD_SHAPE: lambda facts: facts.shape,
}


@dataclass(frozen=True)
class FaultyPicture:
    """A picture with a fault.

    Attributes:
        item: its id.
        severity: the measure that shows it; the lowest is the worst.
    """

    item: int
    severity: float


@dataclass(frozen=True)
class FaultyPictures:
    """The pictures with a fault among those that were measured.

    Attributes:
        pictures: the worst first.
        measured: how many pictures were looked at.
        total: how many there are.
        is_common: whether so many have it that it is how these pictures are; then there are none in ``pictures``.
    """

    pictures: tuple[FaultyPicture, ...]
    measured: int
    total: int
    is_common: bool = False

    @property
    def note(self) -> str | None:
        """What a person should know about the look, None if it was complete."""
        if self.is_common:
            return (
                f"more than {COMMON_SHARE:.0%} of {counted(self.measured, 'picture')} are so: this collection is "
                "like that"
            )
        if self.measured < self.total:
            return (
                f"{self.measured:,} of {counted(self.total, 'picture')} were looked at, a random sample; look again "
                "for more"
            )
        return None


class Pictures:
    """The measures of the pictures of one store, by item. Threads may share it; one measures at a time.

    Args:
        session: the open store.
        seconds: the duration of one look.
    """

    def __init__(self, session: Session, seconds: float = SECONDS) -> None:
        self._session = session
        self._seconds = seconds
        self._facts: dict[tuple[int, str], PictureFacts | None] = {}  # by item and content; None cannot be read
        self._lock = threading.Lock()

    def with_fault(self, fault: Fault, where: str | None) -> FaultyPictures:
        """Return the pictures with a fault, the worst first.

        Args:
            fault: the fault; gray pictures are no queue.
            where: only items that match this filter.

        Raises:
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the items lack a column.
        """
        storage = self._session.storage
        with storage.catalog.read() as con:
            items = queries.matching_items(con, where or "true")
            contents = browse.contents_of(con, items)
        keys = list(zip(items.tolist(), contents, strict=True))
        with self._lock:
            self._measure(keys)
            found = {key[0]: self._facts[key] for key in keys if key in self._facts}
        severity = _SEVERITY[fault]
        faulty = [FaultyPicture(i, severity(f)) for i, f in found.items() if f is not None and fault in f.faults]
        if len(faulty) > COMMON_SHARE * len(found) and len(found) > _BLOCK:
            return FaultyPictures((), len(found), len(keys), is_common=True)
        return FaultyPictures(tuple(sorted(faulty, key=lambda p: (p.severity, p.item))), len(found), len(keys))

    def _measure(self, keys: list[tuple[int, str]]) -> None:
        """Measure pictures that were not measured yet, in random order, until the time is over."""
        deadline = time.monotonic() + self._seconds
        missing = [key for key in keys if key not in self._facts]
        order = np.random.default_rng(0).permutation(len(missing)).tolist()
        if len(self._facts) + len(missing) > _MAX_KEPT:
            self._facts.clear()
        for begin in range(0, len(order), _BLOCK):
            if time.monotonic() >= deadline:
                return
            block = [missing[n] for n in order[begin : begin + _BLOCK]]
            facts = measure_images(self._session.storage, [item for item, _ in block])
            self._facts.update(zip(block, facts, strict=True))
