"""Learning curves of few-shot heads: class names with more and more labeled images."""

from __future__ import annotations

from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import select_classes
from embedstore.classify.data.splits import train_test_split
from embedstore.classify.evaluation.curve_interval import HeldOutScore
from embedstore.classify.evaluation.learning_curve import (
    LearningCurve,
    LearningCurveSettings,
    score_fitted,
    score_label_budgets,
)
from embedstore.classify.evaluation.text_classifiers import TextClasses, fit_few_shot_head


def few_shot_curve(
    data: Features, classes: TextClasses, *, head: str, settings: LearningCurveSettings | None = None
) -> LearningCurve:
    """Evaluate a few-shot head over shots per class, then on all training rows.

    The hyper-parameters are tuned as in
    :func:`embedstore.classify.evaluation.text_classifiers.evaluate_few_shot`.

    Args:
        data: labeled rows; rows whose label is not among the classes do not train, and count as wrong.
        classes: names, vectors and logit scale.
        head: one of :class:`embedstore.classify.evaluation.text_classifiers.FewShotHead`.
        settings: shots per class, draws and seed.

    Raises:
        UnknownHead: when no few-shot head has this name.
        LabelError: when the labels do not support the split.
    """
    settings = settings or LearningCurveSettings()
    data = settings.near_duplicates.join(data)
    calibration = data.take(train_test_split(data, seed=settings.seed).calibration)
    validation = select_classes(calibration, classes.names)

    def score(train: Features, held_out: Features, seed: int) -> HeldOutScore:
        return score_fitted(fit_few_shot_head(head, classes, train, validation, seed=seed), held_out)

    return score_label_budgets(score, head, data, settings, classes=classes.names)
