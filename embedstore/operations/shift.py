"""Compare two sets of items: train against test, old against new."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np

from embedstore.classify.data.features import Features, load_features, load_matching_ids
from embedstore.classify.data.splits import held_out_split
from embedstore.classify.evaluation.shift import ItemSets, ShiftReport, ShiftSettings, measure_shift
from embedstore.errors import BadOption, LabelError
from embedstore.operations.session import Session
from embedstore.storage.spaces import SpaceRecord
from embedstore.types import Split

__all__ = ["ShiftSettings", "shift"]


def shift(
    session: Session,
    first: str | None,
    second: str | None,
    settings: ShiftSettings,
    *,
    where: str | None,
    space: str | None,
) -> ShiftReport:
    """Compare two sets of items; see :meth:`embedstore.Store.shift`."""
    record = session.space(space)
    if (first is None) != (second is None):
        raise BadOption("give both filters, first and second, or neither: then the split train is compared with test")

    def compare() -> ShiftReport:
        start = time.perf_counter()
        if first is None or second is None:
            sets = _by_split(load_features(session.storage, record, None, where=where))
        else:
            sets = _by_filters(session, record, first, second, where)
        return measure_shift(sets, settings, seconds=time.perf_counter() - start)

    run = {"first": first, "second": second, "where": where} | asdict(settings)
    return session.recorded("shift", record, run, compare)


def _by_split(data: Features) -> ItemSets:
    """Return the items of the split ``train`` and of ``test``, or ``val`` if there is no ``test``.

    Raises:
        LabelError: if there is no such split.
    """
    held_out = held_out_split(data.splits)
    train = data.splits == Split.TRAIN
    if held_out is None or not train.any():
        raise LabelError(
            "the items have no split of train and test to compare; give two filters: "
            '`embedstore shift STORE --first "year < 2024" --second "year >= 2024"`'
        )
    rows = np.flatnonzero(train | (data.splits == held_out))
    return ItemSets(data.take(rows), data.splits[rows] == held_out, "split = 'train'", f"split = '{held_out}'")


def _by_filters(session: Session, record: SpaceRecord, first: str, second: str, where: str | None) -> ItemSets:
    """Return the items that match one of two filters; those that match both are left out."""
    in_first, in_second = (load_matching_ids(session.storage, own) for own in (first, second))
    either = f"({first}) OR ({second})"
    data = load_features(session.storage, record, None, where=either if where is None else f"({where}) AND ({either})")
    in_both = np.isin(data.ids, in_first) & np.isin(data.ids, in_second)
    kept = data.take(np.flatnonzero(~in_both))
    return ItemSets(kept, np.isin(kept.ids, in_second), first, second, int(in_both.sum()))
