"""Find label errors, suggest what to label next, and forecast what more labels are worth."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features, load_features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.task import require_classes
from embedstore.classify.evaluation import active_learning, fit, label_errors, label_forecast
from embedstore.classify.evaluation.active_learning import LabeledRows, LabelSuggestions, UnlabeledPool
from embedstore.classify.evaluation.label_errors import LabelErrorReport, LabelErrorSettings
from embedstore.classify.evaluation.label_forecast import LabelForecast
from embedstore.errors import LabelError, NoLabels, UnknownColumn
from embedstore.operations.label_conflicts import note_label_conflicts
from embedstore.operations.results import ChangedItems
from embedstore.operations.session import Session
from embedstore.storage.queries import label_reviews
from embedstore.storage.queries.features import absent_condition
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.vector_stream import open_vector_stream

__all__ = ["LabelErrorSettings", "confirm_labels", "find_label_errors", "forecast_labels", "suggest_labels"]


def find_label_errors(
    session: Session,
    label: str,
    settings: LabelErrorSettings,
    *,
    where: str | None,
    space: str | None,
    separator: str | None,
) -> LabelErrorReport:
    """Find labels that are probably wrong; see :meth:`embedstore.Store.label_errors`."""
    record = session.space(space)
    if separator is None:
        note_label_conflicts(session, label)
    run = {"label": label, "where": where, "separator": separator} | asdict(settings)

    def find() -> LabelErrorReport:
        loaded = load_features(session.storage, record, label, where=where, separator=separator)
        data = require_classes(loaded, "label-errors")
        return label_errors.label_errors(data, settings, confirmed=_confirmed_items(session, data, label))

    return session.recorded("label_errors", record, run, find)


def _confirmed_items(session: Session, data: Features, label: str) -> NDArray[np.int64]:
    """Return the items whose present label was confirmed."""
    confirmed = label_reviews.confirmed_labels(session.storage, label)
    items = zip(data.ids.tolist(), data.y.tolist(), strict=True)
    same = [item for item, y in items if item in confirmed and confirmed[item] == _digest(y)]
    return np.array(same, dtype=np.int64)


def confirm_labels(
    session: Session, items: Sequence[int], label: str, *, separator: str | None, space: str | None, wait: float
) -> ChangedItems:
    """Record that labels are right; see :meth:`embedstore.Store.confirm_labels`."""
    record, started = session.space(space), utc_now()
    data = load_features(session.storage, record, label, separator=separator)
    labels = dict(zip(data.ids.tolist(), data.y.tolist(), strict=True))
    unknown = [i for i in items if i not in labels]
    if unknown:
        raise LabelError(
            f"items {', '.join(map(str, unknown[:5]))} lack a {label!r} or a vector in space {record.name}; "
            f"`embedstore label-errors STORE {shlex.quote(label)}` lists items that do"
        )
    result = {"items": [[int(i), _digest(labels[i])] for i in dict.fromkeys(items)]}
    with session.storage.writer(label_reviews.OPERATION, wait=wait) as writer:
        writer.record_run(label_reviews.OPERATION, record.key, {"label": label}, result, started)
    return ChangedItems(items=len(result["items"]))


def _digest(label: str | tuple[str, ...]) -> str:
    """Return the digest of the label or labels of an item."""
    return label_reviews.label_digest("\0".join(label) if isinstance(label, tuple) else str(label))


def suggest_labels(
    session: Session,
    label: str,
    *,
    k: int,
    head: str,
    seed: int,
    where: str | None,
    space: str | None,
    separator: str | None,
) -> LabelSuggestions:
    """Suggest items to label next; see :meth:`embedstore.Store.suggest_labels`."""
    record, begin = session.space(space), time.perf_counter()
    try:
        data = _labeled(session, record, label, separator)
    except UnknownColumn as e:
        new = shlex.quote(f"{label}=NULL")
        cure = f"to label a new column, run `embedstore edit STORE --where true --add-columns --set {new}` first"
        raise UnknownColumn(f"{e}; {cure}") from e
    labeled = _labeled_rows(data, record.space.dim)
    estimator = None
    if data is not None and len(labeled.class_counts) > 1:
        estimator = fit.fit_head_to_few(head, data, seed=seed)
    with _unlabeled_pool(session, record, label, where) as (pool, unlabeled):
        strategy, chosen, compared = active_learning.suggest_labels(estimator, pool, labeled, k, seed=seed)
    seconds = time.perf_counter() - begin
    return LabelSuggestions(tuple(chosen), unlabeled, compared, strategy, label, head, seconds)


@contextmanager
def _unlabeled_pool(
    session: Session, record: SpaceRecord, label: str, where: str | None
) -> Iterator[tuple[UnlabeledPool, int]]:
    """Open the unlabeled contents, from the sample of the session if there is one, and say how many there are."""
    absent = absent_condition(label)
    sampled = session.label_samples.pool(record, where, absent)
    if sampled is not None:
        yield sampled, sampled.rows
        return
    with open_vector_stream(session.storage, record, where, extra_condition=absent) as stream:
        yield stream, stream.tables.rows


def forecast_labels(
    session: Session,
    label: str,
    *,
    head: str,
    seed: int,
    where: str | None,
    space: str | None,
    separator: str | None,
) -> LabelForecast:
    """Forecast what more labels are worth; see :meth:`embedstore.Store.forecast_labels`."""
    record = session.space(space)
    loaded = load_features(session.storage, record, label, where=where, separator=separator)
    data = NearDuplicateOptions().join(require_classes(loaded, "suggest-labels --forecast"))
    return label_forecast.forecast_labels(head, data, seed=seed)


def _labeled(session: Session, record: SpaceRecord, label: str, separator: str | None) -> Features | None:
    """Return the labeled items, copies as groups; None if there is none yet."""
    try:
        is_set = f"{quote_identifier(label)} IS NOT NULL"  # so that unlabeled items are not read
        loaded = load_features(session.storage, record, label, where=is_set, separator=separator)
    except NoLabels:
        return None
    return NearDuplicateOptions().join(require_classes(loaded, "suggest-labels"))


def _labeled_rows(data: Features | None, dim: int) -> LabeledRows:
    """Return what is labeled; no rows if nothing is."""
    if data is None:
        return LabeledRows(np.empty((0, dim), np.float32), np.empty(0, np.object_))
    return LabeledRows(data.X, data.y, data.multilabel)
