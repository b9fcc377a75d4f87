"""Compare two classifiers on the same held-out rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import metrics
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.metrics import McNemarResult, MetricDifference, MetricName
from embedstore.errors import LabelError


def accuracy_difference(first: Evaluation, second: Evaluation) -> tuple[MetricDifference, McNemarResult]:
    """Return the accuracy of the second minus the first, with significance.

    Args:
        first: a classifier, evaluated.
        second: another one, evaluated on the same items.

    Returns:
        The difference with the paired bootstrap's 95% interval, and McNemar's exact test.

    Raises:
        LabelError: when the two were evaluated on different items.
    """
    ids, correct = zip(*(_correct_by_item(e) for e in (first, second)), strict=True)
    if not np.array_equal(*ids):
        raise LabelError(
            f"{first.head} in space {first.space} was evaluated on {len(ids[0])} items and {second.head} in space "
            f"{second.space} on {len(ids[1])} other items; embed the same items in both spaces"
        )
    truth = np.ones(len(ids[0]), dtype=np.int64)
    scores = [np.stack([~c, c], axis=1).astype(np.float64) for c in correct]
    difference = metrics.paired_bootstrap(MetricName.ACCURACY, truth, *scores)
    return difference, metrics.mcnemar(truth, *(c.astype(np.int64) for c in correct))


def _correct_by_item(e: Evaluation) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the held-out items, ascending, and whether each is predicted correctly: both ``(M,)``."""
    order = np.argsort(e.held_out_predictions.ids)
    return e.held_out_predictions.ids[order], e.held_out_predictions.correct[order]
