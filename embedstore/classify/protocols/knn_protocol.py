"""Evaluate nearest neighbors as DINOv2 and DINOv3 do: four numbers of neighbors from one search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import IntArray
from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import Evaluation, HeldOutPredictions
from embedstore.classify.evaluation.holdout import MAX_CLASSES_WITHOUT_TOP5, evaluate_fit
from embedstore.classify.evaluation.protocol_report import ProtocolCandidate, ProtocolReport
from embedstore.classify.evaluation.rounds import ProtocolFacts
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings
from embedstore.classify.metrics.report import accuracy_estimate
from embedstore.classify.protocols.knn_votes import (
    DINO_KS,
    DINO_TEMPERATURE,
    correct_by_k,
    neighbors_of_other_groups,
)
from embedstore.classify.protocols.protocol import SOURCES, Protocol
from embedstore.errors import LabelError

MAX_CHOICE_ROWS = 2000  # training rows that select k, evenly spaced; their accuracy is good to about a point


@dataclass(frozen=True)
class _SelectedK:
    """The number of neighbors that was selected without the held-out rows.

    Attributes:
        searcher: fitted with the largest k.
        ks: the numbers of neighbors that were tried, ascending.
        k: the selected one.
        accuracy: the accuracy of each on the rows that select.
        chosen_on: these rows, in words.
        n_choice: how many they are.
    """

    searcher: heads.WeightedKNN
    ks: tuple[int, ...]
    k: int
    accuracy: tuple[float, ...]
    chosen_on: str
    n_choice: int


def evaluate_knn_protocol(protocol: Protocol, data: Features, settings: EvaluationSettings) -> Evaluation:
    """Evaluate all numbers of neighbors, and as the head the one that was selected without the held-out rows.

    The published code prints the figures of all four and selects none. Whoever takes the highest picks it on the
    held-out rows; the evaluation is that of a k that the ``val`` rows select, or else the training rows, each without
    its own group.

    Args:
        protocol: the protocol.
        data: labeled rows.
        settings: seed of the hashed split, near-duplicates.

    Raises:
        LabelError: if the labels do not support the protocol.
    """
    if data.multilabel:
        raise LabelError(f"protocol {protocol} needs one label per item, and {data.label} has any number of them")
    found: list[_SelectedK] = []

    def fit(train: Features, validation: Features) -> tuple[Any, int]:
        found.append(_select_k(train, validation))
        head = heads.WeightedKNN(found[-1].k, temperature=DINO_TEMPERATURE)
        return head.fit(train.X, train.y.astype(str)), 0

    has_val = (data.splits == "val").any() and (data.splits == "test").any()
    choose_on = ChoiceRows.VAL if has_val else ChoiceRows.FOLDS
    return evaluate_fit(
        "knn",
        data,
        replace(settings, choose_on=choose_on.value),
        fit,
        describe_protocol=lambda held_out: ProtocolFacts(_report(protocol, found[-1], data, held_out)),
    )


def _select_k(train: Features, validation: Features) -> _SelectedK:
    """Select k on the validation rows if there are any, else on training rows without their own groups."""
    ks = tuple(sorted({min(k, len(train)) for k in DINO_KS}))
    searcher = heads.WeightedKNN(ks[-1], temperature=DINO_TEMPERATURE).fit(train.X, train.y.astype(str))
    if len(validation):
        scores, rows = searcher.nearest_neighbors(validation.X)
        y, chosen_on = _codes(searcher, validation.y), "the val items"
    else:
        queries = np.unique(np.linspace(0, len(train) - 1, min(len(train), MAX_CHOICE_ROWS)).astype(np.int64))
        scores, rows = neighbors_of_other_groups(searcher.vectors_, train.groups, queries, ks[-1])
        y, chosen_on = searcher.codes_[queries], "training items, each without its own group"
    correct = correct_by_k(scores, searcher.codes_[rows], y, len(searcher.classes_), ks)
    accuracy = tuple(float(correct[k][0].mean()) for k in ks)
    return _SelectedK(searcher, ks, ks[int(np.argmax(accuracy))], accuracy, chosen_on, len(y))


def _codes(searcher: heads.WeightedKNN, y: NDArray[np.object_]) -> IntArray:
    """Return the column of each label, -1 for a class that the neighbors do not have."""
    column = {str(c): i for i, c in enumerate(searcher.classes_.tolist())}
    return np.array([column.get(str(label), -1) for label in y.tolist()], dtype=np.int64)


def _report(protocol: Protocol, found: _SelectedK, data: Features, held_out: HeldOutPredictions) -> ProtocolReport:
    scores, rows = found.searcher.nearest_neighbors(data.take(np.flatnonzero(np.isin(data.ids, held_out.ids))).X)
    n_classes = len(found.searcher.classes_)
    codes = _codes(found.searcher, held_out.y)
    correct = correct_by_k(scores, found.searcher.codes_[rows], codes, n_classes, found.ks)
    has_top5 = n_classes > MAX_CLASSES_WITHOUT_TOP5
    return ProtocolReport(
        name=protocol.value,
        parameter="k",
        selected=found.k,
        chosen_on=found.chosen_on,
        n_choice=found.n_choice,
        n_fitted=len(found.searcher.vectors_),
        n_trained=len(found.searcher.vectors_),
        candidates=tuple(
            ProtocolCandidate(
                k,
                on_choice,
                accuracy_estimate(correct[k][0], held_out.groups),
                accuracy_estimate(correct[k][1], held_out.groups) if has_top5 else None,
            )
            for k, on_choice in zip(found.ks, found.accuracy, strict=True)
        ),
        source=SOURCES[protocol],
        notes=tuple(_notes(found.ks)),
    )


def _notes(ks: Sequence[int]) -> list[str]:
    if tuple(ks) == DINO_KS:
        return []
    return [f"there are {ks[-1]} training items: k is {', '.join(map(str, ks))}, not {', '.join(map(str, DINO_KS))}"]
