"""How many labels a head that predicts numbers needs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import sample_per_class
from embedstore.classify.data.split_leaks import split_near_duplicates
from embedstore.classify.data.splits import train_test_split
from embedstore.classify.data.task import Task
from embedstore.classify.evaluation.curve_interval import bootstrap_error, normal_reach
from embedstore.classify.evaluation.leaks import leaked_score
from embedstore.classify.evaluation.learning_curve import LearningCurve, LearningCurvePoint, LearningCurveSettings
from embedstore.classify.evaluation.regression.fit import fit_numeric_head, numbers_of
from embedstore.classify.metrics.regression import NumericMetric
from embedstore.errors import BadHead, LabelError
from embedstore.wording import counted

DEFAULT_LABELS = (20, 50, 100, 200, 500)  # in all; a number has no classes


def numeric_learning_curve(head: str, data: Features, settings: LearningCurveSettings, **options: Any) -> LearningCurve:
    """Fit a head on a few labels, drawn several times, then on all labels; the score is the mean absolute error.

    Args:
        head: name of the regressor.
        data: rows with numbers.
        settings: numbers of labels in all, draws and seed; copies of a picture count once.
        options: the options of the head's constructor.

    Raises:
        LabelError: when the labels do not support the split or the head.
        UnknownHead: when no regressor has this name.
        BadHead: when an option is wrong.
    """
    start = time.perf_counter()
    data = settings.near_duplicates.join(data)
    split = train_test_split(data, seed=settings.seed)
    rows, near = split_near_duplicates(data, split, drop=settings.near_duplicates.drops)
    train = data.take(rows)
    held_out = data.take(split.held_out)
    one_class = replace(train, y=np.full(len(train), "any", object), task=Task.CLASSIFICATION)
    every, n_pictures = np.arange(len(train)), len(np.unique(train.groups))
    points, skipped = [], []
    for budget in sorted(set(settings.labels_per_class)):
        if budget >= n_pictures:
            skipped.append((budget, f"there are {counted(n_pictures, 'training item')}"))
            continue
        seeds = range(settings.seed, settings.seed + settings.repeats)
        draws = [sample_per_class(one_class, every, budget, seed) for seed in seeds]
        try:
            errors = [
                _errors(head, train.take(rows), held_out, s, options) for s, rows in zip(seeds, draws, strict=True)
            ]
        except (LabelError, BadHead) as e:
            skipped.append((budget, str(e)))
            continue
        points.append(_point(budget, len(draws[0]), np.stack(errors), held_out))
    last = _errors(head, train, held_out, settings.seed, options)
    points.append(_point(None, len(train), last[None], held_out))
    return LearningCurve(
        head=head,
        label=data.label,
        space=data.space,
        split=split.name,
        n_held_out=len(held_out),
        points=tuple(points),
        seconds=time.perf_counter() - start,
        skipped_budgets=tuple(skipped),
        notes=data.notes,
        metric=NumericMetric.MAE.value,
        leak=leaked_score(near, held_out.ids, last, NumericMetric.MAE.value),
    )


def _errors(
    head: str, train: Features, held_out: Features, seed: int, options: dict[str, Any]
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the absolute error of each held-out row."""
    estimator = fit_numeric_head(head, train, seed=seed, options=options)
    return np.asarray(np.abs(numbers_of(held_out) - estimator.predict(held_out.X)), np.float64)


def _point(
    budget: int | None, n_train: int, errors: np.ndarray[Any, np.dtype[np.float64]], held_out: Features
) -> LearningCurvePoint:
    """Return the point of one number of labels from the errors of each draw, ``(draws, M)``."""
    values, mean_of_rows = errors.mean(1), errors.mean(0)
    error = bootstrap_error(lambda rows: float(mean_of_rows[rows].mean()), held_out.groups)
    reach = normal_reach(values.tolist(), error)
    mean = float(values.mean())
    return LearningCurvePoint(budget, n_train, tuple(values.tolist()), max(0.0, mean - reach), mean + reach)
