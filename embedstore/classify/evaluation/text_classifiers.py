"""Classifiers made from class names, alone or together with a few labeled images."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.sampling import sample_per_class, select_classes
from embedstore.classify.data.split_leaks import split_near_duplicates
from embedstore.classify.data.splits import held_out_split, train_test_split
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import build_evaluation, evaluate_fit, evaluate_fitted
from embedstore.classify.evaluation.rounds import FittedRounds, HoldoutRound, predict_held_out
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.errors import BadHead, LabelError, UnknownHead, did_you_mean
from embedstore.text_form import clean_text

ClassPrompts = Sequence[str] | Mapping[str, str | Sequence[str]]
TextEncoder = Callable[[list[str]], NDArray[np.float32]]
DEFAULT_LOGIT_SCALE = 100.0  # of CLIP (Radford et al. 2021), where the model states no other


class FewShotHead(StrEnum):
    """Heads that combine class names and a few labeled images."""

    TIP_ADAPTER = "tip-adapter"  # training-free
    TIP_ADAPTER_F = "tip-adapter-f"  # its keys are trained
    BLEND = "blend"  # visual prototypes and text weights, after LP++


ZERO_SHOT = "zero-shot"
TEXT_HEADS = (ZERO_SHOT, *(h.value for h in FewShotHead))
"""Heads that are made from class names."""


@dataclass(frozen=True)
class TextClasses:
    """Classes described in words.

    Attributes:
        names: the K classes.
        vectors: float32 ``(K, D)``, one per class.
        logit_scale: factor of the cosines.
        notes: messages for the user, e.g. that a prompt is longer than the network reads.
    """

    names: list[str]
    vectors: NDArray[np.float32]
    logit_scale: float = DEFAULT_LOGIT_SCALE
    notes: tuple[str, ...] = ()


def encode_classes(
    encode_texts: TextEncoder, classes: ClassPrompts, templates: str | Sequence[str] = "photo"
) -> tuple[list[str], NDArray[np.float32]]:
    """Encode class names or prompts as one unit vector per class.

    Args:
        encode_texts: the text tower.
        classes: names that are put into the templates, or prompts by class.
        templates: name of a template set, or sentences with ``{}``.

    Returns:
        The K class names, and their vectors, float32 ``(K, D)``.

    Raises:
        LabelError: when there are fewer than two classes, or a name occurs twice.
    """
    if isinstance(classes, Mapping):
        prompts = {clean_text(str(c)): [p] if isinstance(p, str) else list(p) for c, p in classes.items()}
        if len(prompts) != len(classes):
            raise LabelError(f"a class name occurs twice in {', '.join(map(str, classes))}; name each class once")
    else:
        names = [clean_text(str(c)) for c in classes]
        if len(set(names)) != len(names):
            raise LabelError(f"a class name occurs twice in {', '.join(names)}; name each class once")
        prompts = heads.build_prompts(names, templates)
    if len(prompts) < 2:
        raise LabelError(f"a text classifier needs at least two classes, not {len(prompts)}, e.g. --classes cat,dog")
    vectors: NDArray[np.float32] = np.asarray(heads.encode_class_vectors(encode_texts, prompts), dtype=np.float32)
    return list(prompts), vectors


def make_zero_shot_head(classes: TextClasses) -> Any:
    """Make a zero-shot classifier of class vectors of any length.

    Raises:
        DimensionMismatch: when there is not one vector per class.
        LabelError: when a class name occurs twice.
    """
    return heads.ZeroShotHead(unit_rows(classes.vectors), classes.names, classes.logit_scale).fit()


def make_few_shot_head(head: str, classes: TextClasses, seed: int) -> Any:
    """Make an unfitted head of class vectors and images.

    Raises:
        UnknownHead: when ``head`` is not one of :class:`FewShotHead`.
    """
    known = [h.value for h in FewShotHead]
    if head not in known:
        raise UnknownHead(f"no few-shot head {head!r}; there are {', '.join(known)}{did_you_mean(head, known)}")
    arguments = (classes.vectors, classes.names, classes.logit_scale)
    match FewShotHead(head):
        case FewShotHead.TIP_ADAPTER:
            return heads.TipAdapter(*arguments, random_state=seed)
        case FewShotHead.TIP_ADAPTER_F:
            return heads.TipAdapter(*arguments, fine_tune=True, random_state=seed)
        case FewShotHead.BLEND:
            return heads.PromptBlend(*arguments, random_state=seed)


def fit_few_shot_head(head: str, classes: TextClasses, train: Features, validation: Features, *, seed: int = 0) -> Any:
    """Fit a few-shot head; its hyper-parameters are tuned on the validation rows where there are some.

    Raises:
        UnknownHead: when ``head`` is not one of :class:`FewShotHead`.
    """
    estimator = make_few_shot_head(head, classes, seed)
    validation_rows = (validation.X, validation.y) if len(validation) else ()
    return estimator.fit(train.X, train.y, *validation_rows, groups=train.groups)


def evaluate_zero_shot(
    estimator: Any,
    data: Features,
    *,
    head: str = "zero_shot",
    settings: EvaluationSettings | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Evaluate a text classifier on the ``test`` rows, else the ``val`` rows, else on all rows.

    Args:
        estimator: the classifier.
        data: labeled rows.
        head: name of the head, for the report.
        settings: the seed, for the report, and further figures of the held-out rows.
        hyperparameters: reported in addition to those of the classifier.

    Raises:
        LabelError: if an item has a split that is not understood.
    """
    split = held_out_split(data.splits) or "all"
    held_out = data if split == "all" else data.take(np.flatnonzero(data.splits == split))
    return evaluate_fitted(
        estimator, held_out, head=head, split=split, settings=settings, hyperparameters=hyperparameters
    )


def evaluate_few_shot(
    data: Features, classes: TextClasses, *, head: str, shots: int, settings: EvaluationSettings | None = None
) -> Evaluation:
    """Fit a few-shot head on some training rows per class and evaluate it on the held-out rows.

    Args:
        data: labeled rows; rows whose label is not among the classes do not train, and count as wrong.
        classes: names, vectors and logit scale.
        head: one of :class:`FewShotHead`.
        shots: training pictures per class, drawn by the seed. Copies count once. With 0 nothing is fitted, and the rows
            of :func:`evaluate_zero_shot` are evaluated.
        settings: near-duplicates, and the seed of the split, the draw and the head.

    Raises:
        UnknownHead: when ``head`` is not one of :class:`FewShotHead`.
        LabelError: when the labels do not support the split.
    """
    start, settings = time.perf_counter(), settings or EvaluationSettings()
    seed = settings.seed
    if shots == 0:
        return _evaluate_without_shots(data, classes, head, settings)
    data = settings.near_duplicate_options.join(data)
    split = train_test_split(data, seed=seed)
    drop = settings.near_duplicate_options.drops
    split = replace(split, train=split_near_duplicates(data, split, drop=drop)[0])
    named = split.train[np.isin(data.y[split.train].astype(str), classes.names)]
    split = replace(split, train=sample_per_class(data, named, shots, seed))
    train, validation = data.take(split.train), select_classes(data.take(split.calibration), classes.names)
    estimator = fit_few_shot_head(head, classes, train, validation, seed=seed)
    predictions = predict_held_out(estimator, data.take(split.held_out))
    hyperparameters = {"shots": shots, "tuned_on": estimator.tuning_rows_}
    leaks = split_near_duplicates(data, split, drop=False)[1]
    rounds = [
        HoldoutRound(
            split,
            estimator,
            predictions,
            near_duplicates=leaks and replace(leaks, dropped=drop),
            hyperparameters=hyperparameters,
        )
    ]
    return build_evaluation(head, data, FittedRounds(rounds, estimator), settings, start)


def _evaluate_without_shots(
    data: Features, classes: TextClasses, head: str, settings: EvaluationSettings
) -> Evaluation:
    """Evaluate a few-shot head that has text only, on the rows that evaluate a zero-shot classifier."""
    nothing = data.take(np.zeros(0, np.int64))
    estimator = fit_few_shot_head(head, classes, nothing, nothing, seed=settings.seed)
    shown = {"shots": 0, "tuned_on": estimator.tuning_rows_}
    plain = EvaluationSettings(seed=settings.seed, figures=settings.figures)  # nothing was fitted
    return evaluate_zero_shot(estimator, data, head=head, settings=plain, hyperparameters=shown)


def evaluate_text_head(head: str, data: Features, classes: TextClasses, settings: EvaluationSettings) -> Evaluation:
    """Evaluate a head made from text on the rows that evaluate a probe: the same split or folds, all training rows.

    Args:
        head: ``zero-shot``, or one of :class:`FewShotHead`, which learns from all training rows.
        data: labeled rows; rows whose label is not among the classes do not train, and count as wrong.
        classes: names, vectors and logit scale.
        settings: folds, seed, near-duplicates.

    Raises:
        UnknownHead: when no such head has this name.
        LabelError: when the labels do not support the split, or an item has several labels.
        BadHead: when the settings ask for calibration, abstention or sets of classes.
    """
    if data.multilabel:
        raise LabelError(f"{head} needs one label per item; leave it out of the comparison")
    if settings.needs_calibration or settings.uses_validation:
        raise BadHead(
            f"{head} is not calibrated in a comparison, and tunes on the val items anyway; leave it out, or leave out "
            "calibrate, abstain_precision, conformal_alpha, choose_on and refit"
        )

    def fit(train: Features, validation: Features) -> tuple[Any, int]:
        if head == ZERO_SHOT:
            return make_zero_shot_head(classes), 0
        known = [select_classes(rows, classes.names) for rows in (train, validation)]
        return fit_few_shot_head(head, classes, *known, seed=settings.seed), len(known[1])

    return evaluate_fit(head, data, settings, fit)
