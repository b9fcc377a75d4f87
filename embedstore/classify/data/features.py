"""Vectors and labels of items as arrays for a classifier, with what a split without leaks needs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.item_groups import item_groups
from embedstore.classify.data.label_text import NameCleaner, unlabeled_notes, without_vector_notes
from embedstore.classify.data.task import Task
from embedstore.errors import LabelError, NoLabels, UnknownColumn, did_you_mean
from embedstore.storage import filters as item_filter
from embedstore.storage.column_names import find_item_column
from embedstore.storage.memory_map import empty_matrix
from embedstore.storage.queries.features import (
    FeatureColumns,
    LabelColumn,
    feature_columns,
    label_column,
    matching_items,
    number_value,
)
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import column_types, object_array
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, gather_vectors
from embedstore.text_form import clean_split

if TYPE_CHECKING:
    from embedstore.classify.data.near_duplicates import NearDuplicates

_EVERY_ITEM = LabelColumn("'item'", is_list=False)


@dataclass(frozen=True)
class Features:
    """Labeled items of one space.

    Attributes:
        X: float32 ``(N, D)`` as stored (of length 1 only if ``unit``); a memory map of a temporary file above 1 GiB.
        y: labels ``(N,)``: text, or a sorted tuple of texts if ``multilabel``.
        ids: int64 ``(N,)``, the items, ascending.
        groups: int64 ``(N,)``. Items with one value share a content or a declared group, directly or in a chain, and
            must stay on one side of any split.
        splits: the items' own split ``(N,)``: ``train``, ``val`` or ``test``, None without one, or a word that does not
            name a split, which every use of the splits refuses.
        n_unlabeled: items left out because they have no label.
        n_without_vector: labeled items left out because they have no vector in this space.
        multilabel: whether an item may have any number of labels.
        label: the column of the labels.
        space: the name of the space.
        label_notes: what a person should know about the labels and the labeled items, one sentence each.
        exact_groups: int64 ``(N,)``, the groups before near-duplicates were joined; None where they were not.
        near_duplicates: what was found when they were joined; None where nothing was searched for.
        units: int64 ``(N,)``, the declared group of each item, else its content; None takes the groups.
        links: int64 ``(L, 2)``, pairs of items of different units that share a content or a group.
        task: what is predicted.
        numbers: float64 ``(N,)``, the labels of a regression or an ordinal task; None for classes.
        weights: float64 ``(N,)``, the weight of each row in training; None weighs all rows alike.
        unit: whether the rows of X have length 1, as the space says; None where it is not known.
    """

    X: NDArray[np.float32]
    y: NDArray[np.object_]
    ids: NDArray[np.int64]
    groups: NDArray[np.int64]
    splits: NDArray[np.object_]
    n_unlabeled: int
    n_without_vector: int
    multilabel: bool = False
    label: str = "label"
    space: str = ""
    label_notes: tuple[str, ...] = ()
    exact_groups: NDArray[np.int64] | None = None
    near_duplicates: NearDuplicates | None = None
    units: NDArray[np.int64] | None = None
    links: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    task: Task = Task.CLASSIFICATION
    numbers: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    unit: bool | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was left out, and what a person should know about the labels, one sentence each."""
        return (*unlabeled_notes(self.n_unlabeled, self.label), *self.label_notes)

    @property
    def is_numeric(self) -> bool:
        """Return whether numbers are predicted."""
        return self.task is not Task.CLASSIFICATION

    def take(self, rows: NDArray[np.int64]) -> Features:
        """Return a selection of rows."""
        return replace(
            self,
            X=take_rows(self.X, rows),
            y=self.y[rows],
            ids=self.ids[rows],
            groups=self.groups[rows],
            splits=self.splits[rows],
            exact_groups=None if self.exact_groups is None else self.exact_groups[rows],
            units=None if self.units is None else self.units[rows],
            numbers=None if self.numbers is None else self.numbers[rows],
            weights=None if self.weights is None else self.weights[rows],
        )


def load_features(
    storage: Storage,
    space: SpaceRecord,
    label: str | None,
    *,
    where: str | None = None,
    separator: str | None = None,
    weight: str | None = None,
) -> Features:
    """Load every present item that has a label and a vector.

    NULL, NaN and blank text are no label, and labels that look equal are one (:mod:`embedstore.text_form`).

    Args:
        storage: the store.
        space: the space.
        label: a column of the items. In a list column an item has any number of labels; an empty list means none. With
            None every item has the label ``item``.
        where: a filter, as in search.
        separator: split the text of a label at it: any number of labels per item.
        weight: a column of numbers, the weight of each item in training.

    Raises:
        UnknownColumn: if the items have no column ``label`` or ``weight``, or the filter names an unknown one.
        BadFilter: if the filter is not valid.
        LabelError: if no item is left, or a weight is missing, negative or not finite.
    """
    with storage.catalog.read() as con, item_filter.filter_errors(con, where):
        column = _EVERY_ITEM if label is None else _label_column(con, label)
        condition = item_filter.compile_filter(con, where)
        weight_sql = {} if weight is None else {"weight": number_value(_known_column(con, weight))}
        rows = feature_columns(con, column, space=space.key, condition=condition, **weight_sql)
        is_unlabeled = np.array([value is None for value in rows.label.tolist()], bool)
        usable = rows.take(~is_unlabeled & (rows.shard >= 0))
        vectors = storage.vector_reader_in(con, space.space).map_shards(usable.shard)
    n_unlabeled = int(is_unlabeled.sum())
    n_without_vector = len(rows) - n_unlabeled - len(usable)
    labels, groups = NameCleaner("label"), NameCleaner("group")
    if not len(usable) and label is None:
        raise LabelError(
            f"no item that matches has a vector in space {space.name}; `embedstore info STORE` counts them"
        )
    if not len(usable):
        raise NoLabels(
            f"no item has both a {label!r} and a vector in space {space.name} ({len(rows)} match, {n_unlabeled} have "
            'no label); see `embedstore sql STORE "select label, count(*) from items group by 1"`'
        )
    multilabel = column.is_list or separator is not None
    clean = (lambda value: _label_set(value, separator, labels)) if multilabel else labels.clean
    joined = item_groups(
        usable.content.tolist(),
        *([groups.clean(name) for name in c.tolist()] for c in (usable.group, usable.own_group)),
    )
    splits: dict[str | None, str | None] = {word: clean_split(word) for word in set(usable.split.tolist())}
    return Features(
        X=gather_vectors(vectors, vectors.positions(usable.shard, usable.row)),
        y=object_array([clean(value) for value in usable.label.tolist()]),
        ids=usable.item,
        groups=joined.groups,
        units=joined.units,
        links=usable.item[joined.links],
        splits=object_array([splits[word] for word in usable.split.tolist()]),
        n_unlabeled=n_unlabeled,
        n_without_vector=n_without_vector,
        multilabel=multilabel,
        label=label or "item",
        space=space.name,
        label_notes=(*without_vector_notes(n_without_vector, space.name), *labels.notes(), *groups.notes()),
        weights=None if weight is None else _weights(usable, weight),
        unit=space.space.unit,
    )


def _weights(rows: FeatureColumns, column: str) -> NDArray[np.float64]:
    """Return the weights of rows.

    Raises:
        LabelError: if one is missing, negative or not finite, or all are 0.
    """
    weights = rows.weight
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if len(bad):
        item, value, name = rows.item[bad[0]], weights[bad[0]], quote_identifier(column)
        assignment = shlex.quote(f"{column}=1")
        where = shlex.quote(f"{name} IS NULL OR NOT {name} BETWEEN 0 AND 1e300")
        raise LabelError(
            f"the weights in {column!r} must be finite numbers of at least 0; {len(bad):,} of {len(rows):,} labeled "
            f"items have another value, the first is item {item} with "
            f"{'none' if np.isnan(value) else f'{value:g}'}; leave such items out with --where, or set "
            f"them: `embedstore edit STORE --set {assignment} --where {where}`"
        )
    if not weights.any():
        raise LabelError(f"all weights in {column!r} are 0: no item is left to train on; leave out the weights")
    return weights


def load_matching_ids(storage: Storage, where: str) -> NDArray[np.int64]:
    """Return the present items that match a filter, int64 ``(N,)``, ascending.

    Raises:
        UnknownColumn: if the filter names an unknown column.
        BadFilter: if the filter is not valid.
    """
    with storage.catalog.read() as con, item_filter.filter_errors(con, where):
        return np.array(matching_items(con, item_filter.compile_filter(con, where)), dtype=np.int64)


def take_rows(X: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return a copy of some rows; a memory map if it is large, as :attr:`Features.X`."""
    out = empty_matrix(len(rows), X.shape[1])
    for begin in range(0, len(rows), BLOCK_ROWS):
        out[begin : begin + BLOCK_ROWS] = X[rows[begin : begin + BLOCK_ROWS]]
    return out


def _known_column(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """Return the name of a column as the store spells it."""
    names = column_types(con, "items")
    if (column := find_item_column(name, names)) is None:
        raise UnknownColumn(
            f"the items have no column {name!r}{did_you_mean(name, list(names))}; they have {', '.join(names)}"
        )
    return column


def _label_column(con: duckdb.DuckDBPyConnection, name: str) -> LabelColumn:
    column = label_column(con, name)
    if column is None:
        names = list(column_types(con, "items"))
        raise UnknownColumn(
            f"the items have no column {name!r}{did_you_mean(name, names)}; they have {', '.join(names)}"
        )
    return column


def _label_set(value: Any, separator: str | None, labels: NameCleaner) -> tuple[str, ...]:
    """Return the labels of one item, sorted, each once: the members of a list, or text split at the separator."""
    texts: Sequence[Any] = value if isinstance(value, list) else str(value).split(separator)
    return tuple(sorted({name for t in texts if (name := labels.clean(t)) is not None}))
