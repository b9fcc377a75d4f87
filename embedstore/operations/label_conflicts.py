"""Files of equal bytes with different labels: certain label errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from embedstore.operations.session import Session
from embedstore.storage.queries import label_conflicts as queries
from embedstore.tables import Record, Table
from embedstore.wording import counted

_SHOWN_LABELS = 3


@dataclass(frozen=True)
class LabelConflict:
    """Items of equal bytes with different labels.

    Attributes:
        items: their ids, ascending.
        uris: their uris, in that order.
        labels: their labels, in that order.
    """

    items: tuple[int, ...]
    uris: tuple[str, ...]
    labels: tuple[str, ...]

    @property
    def different_labels(self) -> tuple[str, ...]:
        """The labels, each once, in alphabetic order."""
        return tuple(sorted(set(self.labels)))


@dataclass(frozen=True)
class LabelConflicts(Table):
    """All files of equal bytes with different labels.

    Attributes:
        label: the column of the labels.
        conflicts: one per content, those with the most items first.
    """

    label: str
    conflicts: tuple[LabelConflict, ...]

    def records(self) -> list[Record]:
        """Return one mapping per item."""
        return [
            {"conflict": number, "item": item, "uri": uri, "label": label}
            for number, c in enumerate(self.conflicts, 1)
            for item, uri, label in zip(c.items, c.uris, c.labels, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"label": self.label, "conflicts": [asdict(c) for c in self.conflicts]}

    @property
    def sentence(self) -> str | None:
        """One sentence that says how many there are, with the labels of some; None if there are none."""
        if not self.conflicts:
            return None
        pairs: Mapping[str, None] = dict.fromkeys(" and ".join(c.different_labels) for c in self.conflicts)
        shown = "; ".join(list(pairs)[:_SHOWN_LABELS])
        more = f" and {len(pairs) - _SHOWN_LABELS} other combinations" if len(pairs) > _SHOWN_LABELS else ""
        n_items = sum(len(c.items) for c in self.conflicts)
        return (
            f"{counted(n_items, 'item is', 'items are')} {counted(len(self.conflicts), 'content')} of equal bytes "
            "with different labels "
            f"({shown}{more}): at least one label of each content is wrong"
        )


def find_label_conflicts(session: Session, label: str) -> LabelConflicts:
    """Find files of equal bytes with different labels; see :meth:`embedstore.Store.label_conflicts`."""
    with session.storage.catalog.read() as con:
        rows = queries.label_conflicts(con, label)
    return LabelConflicts(label, tuple(LabelConflict(tuple(i), tuple(u), tuple(n)) for i, u, n in rows))


def note_label_conflicts(session: Session, label: str) -> None:
    """Add a notice if files of equal bytes have different labels."""
    sentence = find_label_conflicts(session, label).sentence
    notice = f"{label}: {sentence}; `embedstore duplicates STORE --threshold 1 -o copies.html` shows them"
    if sentence and notice not in session.storage.notices:
        session.storage.add_notices([notice])
