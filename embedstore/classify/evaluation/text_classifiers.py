"""Classifiers from words, alone or with a few labelled images beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import EvaluationSettings, evaluate_fitted, evaluation_splits
from embedstore.errors import LabelError, UnknownHead, did_you_mean

ClassPrompts = Sequence[str] | Mapping[str, str | Sequence[str]]
TextClasses = tuple[list[str], NDArray[np.float32], float]
"""Class names, one vector each ``(K, D)``, and the scale of the logits."""
TextEncoder = Callable[[list[str]], NDArray[np.float32]]


class FewShotHead(StrEnum):
    """Heads that join words and a few labelled images."""

    TIP_ADAPTER = "tip-adapter"  # training-free
    TIP_ADAPTER_F = "tip-adapter-f"  # its keys trained
    BLEND = "blend"  # visual prototypes and text weights, after LP++


def encode_zero_shot_head(
    encode_texts: TextEncoder,
    classes: ClassPrompts,
    *,
    logit_scale: float | None,
    templates: str | Sequence[str] = "photo",
) -> Any:
    """A zero-shot classifier: names put into a template set, or prompts by class.

    Raises:
        LabelError: fewer than two classes, or one twice.
    """
    names, vectors = encode_classes(encode_texts, classes, templates)
    return make_zero_shot_head(vectors, names, logit_scale or 100.0)


def make_zero_shot_head(vectors: NDArray[np.float32], names: list[str], logit_scale: float) -> Any:
    """A zero-shot classifier of vectors that words were made into: ``(K, D)`` of any length.

    Raises:
        DimensionMismatch: not one vector a class. LabelError: a class twice.
    """
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return heads.ZeroShotHead(vectors / np.where(lengths > 0, lengths, 1), names, logit_scale).fit()


def encode_classes(
    encode_texts: TextEncoder, classes: ClassPrompts, templates: str | Sequence[str] = "photo"
) -> tuple[list[str], NDArray[np.float32]]:
    """Class names and one unit vector each: ``(K, D)``.

    Raises:
        LabelError: fewer than two classes, or one twice.
    """
    if isinstance(classes, Mapping):
        prompts = {c: [p] if isinstance(p, str) else list(p) for c, p in classes.items()}
    else:
        named = [str(c) for c in classes]
        if len(set(named)) != len(named):
            raise LabelError("a class is named twice")
        prompts = heads.build_prompts(named, templates)
    if len(prompts) < 2:
        raise LabelError("words need at least two classes to choose from, e.g. --classes cat,dog")
    vectors: NDArray[np.float32] = np.asarray(heads.encode_class_vectors(encode_texts, prompts), dtype=np.float32)
    return list(prompts), vectors


def evaluate_zero_shot(estimator: Any, data: Features, label: str, *, head: str = "zero_shot") -> Evaluation:
    """Judge a classifier made of words on the held-out side of the items' own split, or on all rows."""
    own = set(data.splits.tolist()) & {"test", "val"}
    name = "test" if "test" in own else "val" if own else "all"
    held = data if name == "all" else data.take(np.flatnonzero(data.splits == name))
    return evaluate_fitted(estimator, held, label, head=head, split=name)


def evaluate_few_shot(
    data: Features,
    label: str,
    text_classes: TextClasses,
    *,
    head: str,
    shots: int,
    seed: int = 0,
) -> Evaluation:
    """Some labelled training rows of each class beside the words; judged on the held-out side.

    Args:
        data: labelled rows; those whose label is not among the classes are left out. label: for the report.
        text: class names, their unit vectors and the logit scale. head: one of :class:`FewShot`.
        shots: training rows a class, drawn by the seed; 0 is zero-shot.

    Raises:
        UnknownHead: another head. LabelError: the labels cannot support it.
    """
    estimator = make_few_shot_head(head, text_classes, seed)
    own = select_classes(data, text_classes[0])
    part = evaluation_splits(own, EvaluationSettings(seed=seed))[0]
    train, held, spare = (
        own.take(sample_per_class(own, part.train, shots, seed)),
        own.take(part.held_out),
        own.take(part.calibration),
    )
    judged = (spare.X, spare.y) if len(spare) else ()
    estimator.fit(train.X, train.y, *judged)
    result = evaluate_fitted(estimator, held, label, head=head, split=part.name, seed=seed)
    chosen = {"shots": shots, "tuned_on": estimator.tuning_rows_} | result.hyperparameters
    return replace(result, n_train=len(train), n_leaks=part.n_leaks, hyperparameters=chosen)


def sample_per_class(data: Features, rows: NDArray[np.int64], max_per_class: int, seed: int) -> NDArray[np.int64]:
    """At most ``shots`` of the rows for each class; with one seed more shots contain the fewer.

    Of several labels an item: the first ``shots`` items of each label, and of those without any.
    """
    order = np.random.default_rng(seed).permutation(rows)
    seen: dict[str, int] = {}
    kept = np.zeros(len(order), dtype=bool)
    for i, label in enumerate(data.y[order].tolist()):
        for name in (label or ("",)) if data.multilabel else (str(label),):
            seen[name] = seen.get(name, 0) + 1
            kept[i] |= seen[name] <= max_per_class
    return np.sort(order[kept])


def select_classes(data: Features, class_names: Sequence[str]) -> Features:
    """The rows whose label is one of the names."""
    return data.take(np.flatnonzero(np.isin(data.y.astype(str), list(class_names))))


def make_few_shot_head(head: str, text_classes: TextClasses, seed: int) -> Any:
    """An unfitted head of words and images.

    Raises:
        UnknownHead: another name than those of :class:`FewShot`.
    """
    known = [h.value for h in FewShotHead]
    if head not in known:
        raise UnknownHead(f"no few-shot head {head!r}; there are {', '.join(known)}{did_you_mean(head, known)}")
    names, vectors, scale = text_classes
    match FewShotHead(head):
        case FewShotHead.TIP_ADAPTER:
            return heads.TipAdapter(vectors, names, scale, random_state=seed)
        case FewShotHead.TIP_ADAPTER_F:
            return heads.TipAdapter(vectors, names, scale, fine_tune=True, random_state=seed)
        case FewShotHead.BLEND:
            return heads.PromptBlend(vectors, names, scale, random_state=seed)
