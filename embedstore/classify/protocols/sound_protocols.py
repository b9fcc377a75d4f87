"""Evaluate vectors as HEAR and SUPERB do representations of sound: small networks, selected on validation rows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import IntArray
from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.folds import stratified_group_holdout
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import evaluate_fit
from embedstore.classify.evaluation.protocol_report import ProtocolCandidate, ProtocolReport
from embedstore.classify.evaluation.rounds import ProtocolFacts
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings
from embedstore.classify.protocols.protocol import SOURCES, Protocol
from embedstore.errors import LabelError

CHOICE_SHARE = 0.2  # of the training rows, where there are no val items: about a fold of HEAR's five
SOUND_HEAD = "mlp"  # the kind of the head of both protocols


@dataclass(frozen=True)
class _Search:
    """What was tried, and on which rows it was selected."""

    report: ProtocolReport
    head: heads.MLPHead


def evaluate_sound_protocol(protocol: Protocol, data: Features, settings: EvaluationSettings) -> Evaluation:
    """Train the networks of a protocol, and evaluate the one that the validation rows select.

    Args:
        protocol: ``hear`` or ``superb``.
        data: labeled rows.
        settings: seed of the hashed split, near-duplicates.

    Raises:
        LabelError: if the labels do not support the protocol.
    """
    if data.multilabel:
        raise LabelError(f"protocol {protocol} needs one label per item, and {data.label} has any number of them")
    found: list[_Search] = []

    def fit(train: Features, validation: Features) -> tuple[Any, int]:
        found.append(_search(protocol, train, validation, settings.seed))
        return found[-1].head, found[-1].head.n_iter_

    has_val = (data.splits == "val").any() and (data.splits == "test").any()
    choose_on = ChoiceRows.VAL if has_val else ChoiceRows.FOLDS
    return evaluate_fit(
        SOUND_HEAD,
        data,
        replace(settings, choose_on=choose_on.value),
        fit,
        describe_protocol=lambda _: ProtocolFacts(found[-1].report),
    )


def _search(protocol: Protocol, train: Features, validation: Features, seed: int) -> _Search:
    """Train every network of a protocol, and select one."""
    from embedstore.classify.protocols import sound_probes as probes  # it imports torch

    classes, codes = np.unique(train.y.astype(str), return_inverse=True)
    fitted, choice, chosen_on = _choice_rows(protocol, train, codes, validation, seed)
    rows = probes.ProbeRows(train.X[fitted], codes[fitted])
    if len(validation):
        numbers = {name: code for code, name in enumerate(classes.tolist())}
        known = np.array([numbers.get(str(label), -1) for label in validation.y.tolist()], dtype=np.int64)
        choice_rows = probes.ProbeRows(validation.X, known)
    else:
        choice_rows = probes.ProbeRows(train.X[choice], codes[choice])
    tried = probes.hear_settings() if protocol is Protocol.HEAR else probes.superb_settings()
    trained = [probes.train_probe(settings, rows, choice_rows, len(classes)) for settings in tried]
    best = probes.best_probe(trained)
    is_hear = protocol is Protocol.HEAR
    values = [float(n) if is_hear else p.settings.learning_rate for n, p in enumerate(trained, 1)]
    candidates = [ProtocolCandidate(value, p.accuracy) for value, p in zip(values, trained, strict=True)]
    report = ProtocolReport(
        name=protocol.value,
        parameter="grid point" if is_hear else "learning rate",
        selected=values[best],
        chosen_on=chosen_on,
        n_choice=len(choice_rows.y),
        n_fitted=len(rows.y),
        n_trained=len(rows.y),
        candidates=tuple(sorted(candidates, key=lambda c: c.value)),
        source=SOURCES[protocol],
        notes=tuple(_notes(protocol, trained[best].settings.describe())),
    )
    return _Search(report, _head(trained[best], classes, train.X.shape[1]))


def _choice_rows(
    protocol: Protocol, train: Features, codes: IntArray, validation: Features, seed: int
) -> tuple[IntArray, IntArray, str]:
    """Return the training rows that are fitted, those that select where there are no val items, and these in words.

    Raises:
        LabelError: if there are too few.
    """
    if len(validation):
        return np.arange(len(train)), np.arange(0), "the val items"
    parts = stratified_group_holdout(codes, train.groups, round(CHOICE_SHARE * len(train)), seed=seed)
    if parts is None:
        raise LabelError(
            f"protocol {protocol} selects on a fifth of the training items of each class, and {len(train)} items are "
            "too few for that; label more, or give some the split val"
        )
    return *parts, "a fifth of the training items of each class"


def _head(trained: Any, classes: NDArray[np.str_], dim: int) -> heads.MLPHead:
    """Return a network as a head that can be saved and needs no torch."""
    s = trained.settings
    head = heads.MLPHead(
        hidden=trained.weights[0].shape[1],
        dropout=s.dropout,
        learning_rate=s.learning_rate,
        weight_decay=0.0,
        batch_size=s.batch_size,
        max_epochs=s.max_epochs,
        patience=s.patience,
        validation_fraction=CHOICE_SHARE,
    )
    head.classes_, head.n_features_in_ = classes, dim
    head.mean_, head.scale_ = np.zeros(dim, np.float32), np.ones(dim, np.float32)
    head.coefs_, head.intercepts_ = list(trained.weights), list(trained.biases)
    head.loss_curve_, head.n_iter_ = [], trained.epochs
    return head


def _notes(protocol: Protocol, selected: str) -> list[str]:
    """Return what was selected, and what differs from the published procedure."""
    if protocol is Protocol.HEAR:
        return [f"selected: {selected}", "HEAR draws 8 of 16 settings; they are those of its seed here"]
    return [
        f"selected: {selected}",
        "SUPERB learns a weighted mean over the layers as well, so that published figures are not comparable",
        "SUPERB trains for a number of steps of each task; here up to 200 epochs, or 20 without a better one",
    ]
