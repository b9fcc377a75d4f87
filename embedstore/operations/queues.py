"""Queues of items that a person should look at, the worst first, and what was decided on them."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from embedstore.classify.evaluation.label_errors import LabelErrorSettings
from embedstore.errors import QueryError
from embedstore.media.image.quality import Fault
from embedstore.operations import clean, info, labels
from embedstore.operations.change_values import WRITE_WAIT
from embedstore.operations.checkup import MIN_SIDE
from embedstore.operations.picture_queues import Pictures
from embedstore.operations.session import Session
from embedstore.search.clusters import find_clusters
from embedstore.search.duplicate_groups import DuplicateGroups
from embedstore.storage import decision_changes, removal_changes
from embedstore.storage.queries import counters, faults
from embedstore.storage.queries.change_history import Change, changed_items, decisions
from embedstore.storage.sql import utc_now
from embedstore.storage.value_changes import Person
from embedstore.wording import counted

MAX_ASPECT = 4.0  # panoramas are about 4 to 1
_CLUSTERS = 20  # whose centers an outlier is far from
_MAX_ROWS = 10_000  # of one queue
_MAX_KEPT = 16  # queues that are kept
KEPT_SECONDS = 600.0


class QueueKind(StrEnum):
    """The queues."""

    LABEL_ERRORS = "label-errors"
    NEAR_DUPLICATES = "near-duplicates"
    CONFLICTING_COPIES = "conflicting-copies"
    OUTLIERS = "outliers"
    BLURRED = "blurred"
    DARK = "dark"
    BRIGHT = "bright"
    EMPTY = "empty"
    ODD_SHAPE = "odd-shape"
    TINY = "tiny"
    LEAKS = "leaks"
    FAILURES = "failures"


class Decision(StrEnum):
    """What a person can decide on an item. A new label or split is a change of values, not a decision."""

    KEEP = "keep"
    REMOVE = "remove"
    SKIP = "skip"


DECISIONS: dict[QueueKind, tuple[Decision, ...]] = {
    QueueKind.LABEL_ERRORS: (Decision.KEEP, Decision.SKIP),
    QueueKind.CONFLICTING_COPIES: (Decision.KEEP, Decision.REMOVE, Decision.SKIP),
    QueueKind.FAILURES: (),
}
_USUAL_DECISIONS = (Decision.KEEP, Decision.REMOVE, Decision.SKIP)


@dataclass(frozen=True)
class QueueRow:
    """One row of a queue: items that a person should look at together.

    Attributes:
        items: ids; of copies the one to keep first.
        reason: a few words that say what may be wrong.
        score: how sure or extreme it is; the meaning depends on the queue.
        suggested: a label that may be the right one.
        uri: the uri of a file that is no item.
    """

    items: tuple[int, ...]
    reason: str
    score: float | None = None
    suggested: str | None = None
    uri: str | None = None


@dataclass(frozen=True)
class QueueSettings:
    """What a queue looks at.

    Attributes:
        column: the label.
        where: only items that match this filter, where the queue takes one.
        space: the space.
    """

    column: str = "label"
    where: str | None = None
    space: str | None = None


def possible_decisions(kind: QueueKind) -> tuple[Decision, ...]:
    """Return what a person can decide on the items of a queue."""
    return DECISIONS.get(kind, _USUAL_DECISIONS)


class Queues:
    """The queues of one store. What they hold is kept for a while. Threads may share it.

    Args:
        session: the open store.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._pictures = Pictures(session)
        self._found: OrderedDict[tuple[QueueKind, QueueSettings], _FoundRows] = OrderedDict()
        self._lock = threading.Lock()

    def rows(self, kind: QueueKind, settings: QueueSettings, *, refresh: bool = False) -> QueueRows:
        """Return what a queue holds, the worst first, without what was decided or set since it was found.

        Args:
            kind: the queue.
            settings: what it looks at.
            refresh: find it again; where only a part of the pictures was measured, more of them are.

        Raises:
            LabelError: if the labels do not suffice to find errors in them.
            QueryError: if there are too few items.
            BadFilter: if the filter cannot be used.
            UnknownColumn: if the items lack a column.
        """
        with self._lock:
            found = self._found.get((kind, settings))
        if found is None or refresh or time.monotonic() - found.time > KEPT_SECONDS:
            found = self._find(kind, settings)
        with self._session.storage.catalog.read() as con:
            done = decisions(con, kind.value).keys() | changed_items(con, after=found.run)
        rows = [row for row in found.rows if not row.items or not done.issuperset(row.items)]
        return QueueRows(rows, found.note)

    def decided(self, kind: QueueKind) -> dict[int, str]:
        """Return the decision on each item of a queue that has one."""
        with self._session.storage.catalog.read() as con:
            return decisions(con, kind.value)

    def decide(self, kind: QueueKind, items: Sequence[int], decision: Decision, who: str) -> Change:
        """Record a decision; :func:`embedstore.operations.change_values.undo` takes it back.

        Raises:
            QueryError: if the queue has no such decision.
            StoreBusy: if another process is still writing after ten seconds.
        """
        possible = possible_decisions(kind)
        if decision not in possible:
            raise QueryError(f"a decision on {kind} is {' or '.join(possible) or 'not possible'}, not {decision}")
        person = Person(who, utc_now())
        with self._session.storage.writer("decide", wait=WRITE_WAIT) as writer:
            return decision_changes.decide(writer, kind.value, np.array(items, np.int64), decision.value, person)

    def remove(self, kind: QueueKind, who: str) -> Change | None:
        """Take the items on which ``remove`` was decided out of the store; an undo brings them back. None if none is.

        Raises:
            StoreBusy: if another process is still writing after ten seconds.
        """
        person = Person(who, utc_now())
        with self._session.storage.writer("remove", wait=WRITE_WAIT) as writer:
            wanted = sorted(item for item, decision in self.decided(kind).items() if decision == Decision.REMOVE)
            return removal_changes.remove(writer, kind.value, np.array(wanted, np.int64), person)

    def _find(self, kind: QueueKind, settings: QueueSettings) -> _FoundRows:
        """Find what a queue holds, and keep it."""
        with self._session.storage.catalog.read() as con:
            run = counters.next_run(con) - 1
        rows, note = self._look(kind, settings)
        found = _FoundRows(tuple(rows[:_MAX_ROWS]), note, run, time.monotonic())
        with self._lock:
            self._found[kind, settings] = found
            while len(self._found) > _MAX_KEPT:
                self._found.popitem(last=False)
        return found

    def _look(self, kind: QueueKind, settings: QueueSettings) -> tuple[list[QueueRow], str | None]:
        """Return what a queue holds, and what a person should know about the look."""
        fault = _FAULTS.get(kind)
        if fault is None:
            return _QUEUES[kind](self._session, settings), None
        found = self._pictures.with_fault(fault, settings.where)
        return [QueueRow((p.item,), _WORDS[fault], round(p.severity, 4)) for p in found.pictures], found.note


@dataclass(frozen=True)
class QueueRows:
    """What a queue holds.

    Attributes:
        rows: the worst first.
        note: what a person should know about the look, None for nothing.
    """

    rows: list[QueueRow]
    note: str | None


@dataclass(frozen=True)
class _FoundRows:
    """What a queue held.

    Attributes:
        rows: the worst first.
        note: what a person should know about the look.
        run: the number of the last run before it was found.
        time: when it was found, in seconds of the monotonic clock.
    """

    rows: tuple[QueueRow, ...]
    note: str | None
    run: int
    time: float


def _label_errors(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return labels that are likely wrong."""
    report = labels.find_label_errors(
        session, settings.column, LabelErrorSettings(), where=settings.where, space=settings.space, separator=None
    )
    flagged = [issue for issue in report.issues if issue.flagged]
    return [QueueRow((i.item,), i.description, round(1 - i.score, 4), i.suggested_label) for i in flagged]


def _duplicate_groups(session: Session, settings: QueueSettings) -> DuplicateGroups:
    """Return the groups of near-duplicates."""
    return clean.duplicates(
        session,
        threshold=None,
        where=settings.where,
        keep="largest",
        exact=None,
        check_pixels=False,
        columns=None,
        space=settings.space,
        wait=0.0,
    )


def _near_duplicates(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return groups of items that look alike, the most alike first."""
    groups: dict[int, list[int]] = defaultdict(list)
    cosine: dict[int, float] = {}
    for member in _duplicate_groups(session, settings).items:
        groups[member.group].append(member.item)
        cosine[member.group] = min(cosine.get(member.group, 1.0), member.min_cosine)
    found = [
        QueueRow(tuple(g), f"{counted(len(g), 'item')} that are alike", round(cosine[n], 4)) for n, g in groups.items()
    ]
    return sorted(found, key=lambda row: -(row.score or 0))


def _leaks(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return pairs of items in different splits that look alike."""
    pairs = _duplicate_groups(session, settings).cross_split_pairs
    return [
        QueueRow((p.item, p.other_item), f"{p.split} and {p.other_split} are alike", round(p.score, 4)) for p in pairs
    ]


def _conflicting_copies(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return items with the same bytes and different labels."""
    with session.storage.catalog.read() as con:
        found = faults.conflicting_copies(con, settings.column, _MAX_ROWS)
    return [QueueRow(tuple(items), f"the same content is labeled {' and '.join(values)}") for items, values in found]


def _outliers(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return items that are far from every cluster, the farthest first: at most one in a hundred, and at least ten."""
    record = session.space(settings.space)
    found = find_clusters(session.storage, record, _cluster_count(session, settings), where=settings.where)
    count = max(10, len(found.items) // 100)
    order = np.argsort(-found.outlier_score, kind="stable")[:count]
    return [
        QueueRow((int(found.items[n]),), "unlike all others", round(float(found.outlier_score[n]), 4)) for n in order
    ]


def _cluster_count(session: Session, settings: QueueSettings) -> int:
    """Return how many clusters a collection is divided into: fewer if it is small."""
    with session.storage.catalog.read() as con:
        contents = faults.content_count(con)
    return max(1, min(_CLUSTERS, contents // 10))


def _tiny(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return images of few pixels."""
    with session.storage.catalog.read() as con:
        found = faults.tiny_images(con, min_side=MIN_SIDE, limit=_MAX_ROWS)
    return [QueueRow((item,), f"tiny: {width} x {height} pixels") for item, width, height in found]


def _odd_shape(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return very long or high images."""
    with session.storage.catalog.read() as con:
        found = faults.long_images(con, max_aspect=MAX_ASPECT, limit=_MAX_ROWS)
    return [QueueRow((item,), f"an odd shape: {width} x {height} pixels") for item, width, height in found]


def _failures(session: Session, settings: QueueSettings) -> list[QueueRow]:
    """Return the files that could not be embedded."""
    records = info.failures(session).records()[:_MAX_ROWS]
    return [
        QueueRow((), f"{r['reason']}: {r['detail']}" if r["detail"] else r["reason"], uri=r["uri"]) for r in records
    ]


_FAULTS: Mapping[QueueKind, Fault] = {
    QueueKind.BLURRED: Fault.BLURRED,
    QueueKind.DARK: Fault.DARK,
    QueueKind.BRIGHT: Fault.BRIGHT,
    QueueKind.EMPTY: Fault.EMPTY,
}
_WORDS: Mapping[Fault, str] = {
    Fault.BLURRED: "blurred, or without detail",
    Fault.DARK: "dark",
    Fault.BRIGHT: "bright",
    Fault.EMPTY: "little in it",
}
_QUEUES: Mapping[QueueKind, Callable[[Session, QueueSettings], list[QueueRow]]] = {
    QueueKind.LABEL_ERRORS: _label_errors,
    QueueKind.NEAR_DUPLICATES: _near_duplicates,
    QueueKind.CONFLICTING_COPIES: _conflicting_copies,
    QueueKind.OUTLIERS: _outliers,
    QueueKind.TINY: _tiny,
    QueueKind.ODD_SHAPE: _odd_shape,
    QueueKind.LEAKS: _leaks,
    QueueKind.FAILURES: _failures,
}
