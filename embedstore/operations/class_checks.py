"""Checks of the classes of a set: outliers, two clusters, two names for one, columns that tell the label."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import IntArray, unit_rows
from embedstore.classify.data.features import Features, load_features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.task import require_classes
from embedstore.classify.evaluation.class_faults import (
    LEAST_ROWS,
    Classes,
    class_rows,
    outlier_rows,
    same_classes,
    two_clusters,
)
from embedstore.classify.evaluation.column_faults import TellingColumn, folders_without_labels, telling_columns
from embedstore.classify.evaluation.label_errors import LabelErrorReport
from embedstore.errors import LabelError
from embedstore.operations.findings import MAX_ITEMS, Finding, delete_options, listed_items, listed_note
from embedstore.storage.queries import search as queries
from embedstore.storage.queries.column_values import SIZE_NAMES, column_values, comparable_columns, picture_sizes
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.wording import counted

_SHOWN_NAMES = 3
_FOLDER = "folder"

Command = Callable[[str], str]


@dataclass(frozen=True)
class LabeledSet:
    """Labeled items, one of each group, that a checkup looks at.

    Attributes:
        data: their vectors and labels.
        command: completes a command with the store.
    """

    data: Features
    command: Command

    @classmethod
    def load(cls, storage: Storage, space: SpaceRecord, label: str, where: str | None, command: Command) -> LabeledSet:
        """Load the labeled items that match a filter.

        Raises:
            LabelError: if there are none, they have several labels each, or their labels are no classes.
        """
        loaded = require_classes(load_features(storage, space, label, where=where), "checkup")
        if loaded.multilabel:
            raise LabelError(f"{label!r} has several labels per item, and the classes of a set have one each")
        grouped = NearDuplicateOptions().join(loaded)
        first = np.unique(grouped.groups, return_index=True)[1]
        return cls(grouped.take(np.sort(first)), command)

    @property
    def label(self) -> str:
        """The column of the labels."""
        return self.data.label

    @property
    def y(self) -> NDArray[np.str_]:
        """The label of each item."""
        return self.data.y.astype(str)

    def items(self, rows: IntArray) -> tuple[int, ...]:
        """Return the ids of some rows."""
        return tuple(self.data.ids[rows[:MAX_ITEMS]].tolist())

    def show(self, items: tuple[int, ...]) -> str:
        """Return the command that lists items."""
        ids = listed_items(items)
        columns = f"item, {quote_identifier(self.label)}, uri"
        return self.command(f"sql {shlex.quote(f'select {columns} from items where item in ({ids})')}")


def class_findings(labeled: LabeledSet) -> Iterator[Finding]:
    """Report items that are unlike all others, classes of two clusters, and classes that look like one."""
    classes, X = class_rows(labeled.y), unit_rows(labeled.data.X)
    yield from _outliers(labeled, X, classes)
    yield from _two_clusters(labeled, X, classes)
    yield from _same_classes(labeled, X, classes)


def extent(labeled: LabeledSet) -> str:
    """Return what the checks of classes look at."""
    classes = class_rows(labeled.y)
    n_classes = len(set(labeled.y.tolist()))
    rows = sum(map(len, classes.values()))
    return (
        f"{counted(rows, 'item')}, of the {len(classes):,} of {counted(n_classes, 'class', 'classes')} with at least "
        f"{LEAST_ROWS}"
    )


def _outliers(labeled: LabeledSet, X: NDArray[np.float32], classes: Classes) -> Iterator[Finding]:
    rows = outlier_rows(X, classes)
    if len(rows):
        items = labeled.items(rows)
        text = f"{counted(len(rows), 'item is', 'items are')} unlike all others, of their class and of any other"
        options = delete_options(items)
        cure = labeled.command(f"delete {options}") if options else ""
        yield Finding("classes", 1, len(rows), text + listed_note(items), labeled.show(items), items, cure)


def _two_clusters(labeled: LabeledSet, X: NDArray[np.float32], classes: Classes) -> Iterator[Finding]:
    found = two_clusters(X, classes)
    if found:
        shown = _listed([f"{c.name} ({len(c.larger)} and {len(c.smaller)})" for c in found])
        items = tuple(item for c in found for item in labeled.items(c.smaller))[:MAX_ITEMS]
        text = f"{counted(len(found), 'class is', 'classes are')} made of two clusters and may be two classes: {shown}"
        yield Finding("classes", 1, len(found), text, labeled.show(items), items)


def _same_classes(labeled: LabeledSet, X: NDArray[np.float32], classes: Classes) -> Iterator[Finding]:
    found = same_classes(X, classes)
    if found:
        shown = _listed([f"{' and '.join(p.names)} ({p.share:.0%} are told apart, chance is 50%)" for p in found])
        first, second = found[0].names
        column = quote_identifier(labeled.label)
        where = f"{column} in ({quote_literal(first)}, {quote_literal(second)})"
        command = labeled.command(f"label-errors {shlex.quote(labeled.label)} --where {shlex.quote(where)}")
        items = tuple(item for name in found[0].names for item in labeled.items(classes[name]))[:MAX_ITEMS]
        pairs = counted(len(found), "pair of classes is", "pairs of classes are")
        text = f"{pairs} one class of two names, or this space cannot tell them apart: {shown}"
        yield Finding("classes", 1, len(found), text, command, items)


def column_findings(storage: Storage, labeled: LabeledSet, report: LabelErrorReport) -> Iterator[Finding]:
    """Report columns that predict the label better than the vectors do.

    Args:
        storage: the store.
        labeled: the items.
        report: what a head predicts for them out of fold.
    """
    is_right = dict(zip(report.ranking.items.tolist(), (report.ranking.margin < 0).tolist(), strict=True))
    rows = np.array([n for n, item in enumerate(labeled.data.ids.tolist()) if item in is_right], np.int64)
    part = LabeledSet(labeled.data.take(rows), labeled.command)
    head = np.array([is_right[item] for item in part.data.ids.tolist()], np.bool_)
    for column in telling_columns(_columns(storage, part), part.y, head):
        yield _telling_column(part, column)


def _columns(storage: Storage, labeled: LabeledSet) -> dict[str, NDArray[np.float64] | NDArray[np.object_]]:
    """Return the values of the columns that a label is compared with."""
    ids = labeled.data.ids
    with storage.catalog.read() as con:
        columns = {c.name: column_values(con, c, ids) for c in comparable_columns(con, labeled.label)}
        sizes = picture_sizes(con, ids)
        files = queries.item_files(con, ids.tolist())
    folders = folders_without_labels([files[item][0] for item in ids.tolist()], labeled.y)
    return {_FOLDER: folders} | sizes | columns


def _telling_column(labeled: LabeledSet, found: TellingColumn) -> Finding:
    reason = (
        "each value has one label, so it is another form of the label, or it shows how the set was made"
        if found.is_renaming
        else "a head may learn what comes with it in place of what is to be learned"
    )
    text = (
        f"{found.name} predicts {labeled.label} better than the vectors do "
        f"({found.accuracy:.3f} against {found.head_accuracy:.3f}): {reason}"
    )
    return Finding("columns", 1 if found.is_renaming else 2, 1, text, _show_column(labeled, found.name))


def _show_column(labeled: LabeledSet, name: str) -> str:
    """Return the command that shows how a column and the label go together."""
    label = quote_identifier(labeled.label)
    if name in SIZE_NAMES:
        value = "size" if name == "size" else f"c.{name}"
        source = "items i left join contents c on c.content = i.content"
        query = f"select i.{label}, min({value}), median({value}), max({value}) from {source} group by 1 order by 1"
    else:
        value = "parse_dirpath(uri)" if name == _FOLDER else quote_identifier(name)
        query = f"select {label}, {value}, count(*) from items group by 1, 2 order by 3 desc limit 50"
    return labeled.command(f"sql {shlex.quote(query)}")


def _listed(names: list[str]) -> str:
    """Return the first of some texts, and how many others there are."""
    more = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
