"""Words with more and more labelled images beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.holdout import EvaluationSettings, evaluation_splits
from embedstore.classify.evaluation.learning_curve import (
    DEFAULT_LABELS_PER_CLASS,
    DEFAULT_REPEATS,
    LearningCurve,
    learning_curve_from,
)
from embedstore.classify.evaluation.text_classifiers import TextClasses, make_few_shot_head, select_classes


def few_shot_curve(
    data: Features,
    label: str,
    text_classes: TextClasses,
    *,
    head: str,
    shots: Sequence[int] = DEFAULT_LABELS_PER_CLASS,
    repeats: int = DEFAULT_REPEATS,
    seed: int = 0,
) -> LearningCurve:
    """Accuracy of a few-shot head over shots a class, then on all training rows; hyper-parameters as in
    :func:`embedstore.classify.evaluation.text_classifiers.judge_few_shot`.

    Args:
        data: labelled rows. label: for the report. text: names, vectors and logit scale. head: by name.
        budgets: shots. seeds: draws a budget. seed: of the split and of the first draw.

    Raises:
        UnknownHead: another head. LabelError: the labels cannot support it.
    """  # noqa: D205
    own = select_classes(data, text_classes[0])
    spare = own.take(evaluation_splits(own, EvaluationSettings(seed=seed))[0].calibration)

    def one(rows: NDArray[np.int64], held: Features, draw: int) -> float:
        train = own.take(rows)
        estimator = make_few_shot_head(head, text_classes, draw)
        estimator.fit(train.X, train.y, *((spare.X, spare.y) if len(spare) else ()))
        return float((np.asarray(estimator.predict(held.X)).astype(str) == held.y.astype(str)).mean())

    return learning_curve_from(one, head, own, label, labels_per_class=shots, repeats=repeats, seed=seed)
