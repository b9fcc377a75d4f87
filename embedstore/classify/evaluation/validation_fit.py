"""Fit a head with the help of the validation rows: they select C, or train after everything is selected, or both.

To select on ``val`` and to train on both is how Radford et al. (2021, A.3) evaluate linear probes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.fit import fit_head
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings
from embedstore.errors import BadHead, LabelError


def fit_with_validation(
    head: str, train: Features, validation: Features, settings: EvaluationSettings, options: dict[str, Any]
) -> Any:
    """Fit a head that may select C on the validation rows and may train on them.

    Args:
        head: name of the head.
        train: training rows.
        validation: rows that neither train nor evaluate otherwise.
        settings: ``choose_on``, ``refit`` and the seed.
        options: the options of the head's constructor.

    Returns:
        The fitted classifier.

    Raises:
        LabelError: when there are no validation rows, or the labels do not support the head.
        BadHead: when C is to be selected on them for a head that selects none.
    """
    if not len(validation):
        raise LabelError(
            "there are no val items besides the held-out ones; give the items a split of train, val and test, or leave "
            "out choose_on and refit"
        )
    rows = concatenate_rows(train, validation) if settings.refit else train
    if settings.choose_on == ChoiceRows.FOLDS:
        return fit_head(head, rows, seed=settings.seed, options=options)
    chooser = _select_c(head, train, validation, settings, options)
    estimator = fit_head(head, rows, seed=settings.seed, options=options | {"C": chooser.C_})
    estimator.path_ = chooser.path_
    return estimator.set_params(C=None)  # it was selected among Cs


def _select_c(
    head: str, train: Features, validation: Features, settings: EvaluationSettings, options: dict[str, Any]
) -> heads.LogisticProbe:
    """Return a probe whose C has the lowest loss on the validation rows, among those fitted on the training rows."""
    if head != "logistic" or train.multilabel or options.get("C") is not None:
        raise BadHead(
            f"choose_on selects C of logistic regression with one label per item; {head} selects nothing here: leave "
            "it out, or use refit alone"
        )
    both = concatenate_rows(train, validation)
    split = (np.arange(len(train)), np.arange(len(train), len(both)))
    probe: heads.LogisticProbe = heads.make_head(head, **{"random_state": settings.seed} | options | {"cv": [split]})
    return probe.fit(both.X, both.y, sample_weight=both.weights)


def concatenate_rows(first: Features, second: Features) -> Features:
    """Return the rows of both."""
    return replace(
        first,
        X=np.concatenate([first.X, second.X]),
        y=np.concatenate([first.y, second.y]),
        ids=np.concatenate([first.ids, second.ids]),
        groups=np.concatenate([first.groups, second.groups]),
        splits=np.concatenate([first.splits, second.splits]),
        exact_groups=_concatenated(first.exact_groups, second.exact_groups),
        units=_concatenated(first.units, second.units),
        numbers=None if first.numbers is None else np.concatenate([first.numbers, second.numbers]),
        weights=None if first.weights is None else np.concatenate([first.weights, second.weights]),
    )


def _concatenated(first: NDArray[np.int64] | None, second: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    return None if first is None or second is None else np.concatenate([first, second])
