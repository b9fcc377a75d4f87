"""Words with more and more labelled images beside them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.holdout import How, divisions
from embedstore.classify.evaluation.learning_curve import BUDGETS, SEEDS, Curve, curve_of
from embedstore.classify.evaluation.text_classifiers import Text, among, few_shot_head


def few_shot_curve(
    data: Features,
    label: str,
    text: Text,
    *,
    head: str,
    budgets: Sequence[int] = BUDGETS,
    seeds: int = SEEDS,
    seed: int = 0,
) -> Curve:
    """Accuracy of a few-shot head over shots a class, then on all training rows; hyper-parameters as in
    :func:`embedstore.classify.evaluation.text_classifiers.judge_few_shot`.

    Args:
        data: labelled rows. label: for the report. text: names, vectors and logit scale. head: by name.
        budgets: shots. seeds: draws a budget. seed: of the split and of the first draw.

    Raises:
        UnknownHead: another head. LabelError: the labels cannot support it.
    """  # noqa: D205
    own = among(data, text[0])
    spare = own.take(divisions(own, How(seed=seed))[0].calibration)

    def one(rows: NDArray[np.int64], held: Features, draw: int) -> float:
        train = own.take(rows)
        estimator = few_shot_head(head, text, draw)
        estimator.fit(train.X, train.y, *((spare.X, spare.y) if len(spare) else ()))
        return float((np.asarray(estimator.predict(held.X)).astype(str) == held.y.astype(str)).mean())

    return curve_of(one, head, own, label, budgets=budgets, seeds=seeds, seed=seed)
