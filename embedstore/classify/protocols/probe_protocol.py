"""Evaluate logistic regression by a published protocol."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import evaluate_fit
from embedstore.classify.evaluation.protocol_report import ProtocolCandidate, ProtocolReport
from embedstore.classify.evaluation.rounds import ProtocolFacts
from embedstore.classify.evaluation.settings import ChoiceRows, EvaluationSettings
from embedstore.classify.evaluation.validation_fit import concatenate_rows
from embedstore.classify.protocols.c_search import SelectedC, search_by_halving, search_grid
from embedstore.classify.protocols.choice_rows import ChoiceSplit, split_for_choice
from embedstore.classify.protocols.protocol import SOURCES, Protocol
from embedstore.errors import LabelError

_UNIT_SLACK = 1e-3  # of a row's length, at float16
_SAMPLE = 1000  # rows whose lengths are measured


def evaluate_probe_protocol(protocol: Protocol, data: Features, settings: EvaluationSettings) -> Evaluation:
    """Select C as the protocol does, refit on all rows that trained or selected, and evaluate the held-out rows.

    Args:
        protocol: the protocol.
        data: labeled rows.
        settings: seed of the hashed split, near-duplicates.

    Raises:
        LabelError: if the labels or the number of rows do not support the protocol.
    """
    if data.multilabel:
        raise LabelError(f"protocol {protocol} needs one label per item, and {data.label} has any number of them")
    reports: list[ProtocolReport] = []

    def fit(train: Features, validation: Features) -> tuple[Any, int]:
        split = split_for_choice(protocol, concatenate_rows(train, validation), len(train))
        _check(split, protocol)
        selected = search_by_halving(split) if protocol is Protocol.CLIP else search_grid(split)
        reports.append(_report(protocol, split, selected))
        return selected.estimator, 0

    used = replace(settings, choose_on=ChoiceRows.VAL.value, refit=True)  # the val rows select, and train afterwards
    return evaluate_fit("logistic", data, used, fit, describe_protocol=lambda _: _facts(reports[-1]))


def _check(split: ChoiceSplit, protocol: Protocol) -> None:
    """Refuse rows that no head can be fitted on before the refit.

    Raises:
        LabelError: if they have fewer than two classes.
    """
    if len(set(split.data.y[split.fitted].tolist())) < 2:
        raise LabelError(
            f"without the {len(split.choice)} items that select C, protocol {protocol} has fewer than two classes to "
            "fit; label more"
        )


def _report(protocol: Protocol, split: ChoiceSplit, selected: SelectedC) -> ProtocolReport:
    return ProtocolReport(
        name=protocol.value,
        parameter="C",
        selected=selected.C,
        chosen_on=split.chosen_on,
        n_choice=len(split.choice),
        n_fitted=len(split.fitted),
        n_trained=len(split.data),
        candidates=tuple(ProtocolCandidate(C, accuracy) for C, accuracy in selected.path),
        source=SOURCES[protocol],
        notes=tuple(_notes(protocol, split)),
    )


def _notes(protocol: Protocol, split: ChoiceSplit) -> list[str]:
    """Return what differs from the published procedure, or limits its choice of C."""
    out = []
    lengths = np.linalg.norm(np.asarray(split.data.X[:_SAMPLE], np.float64), axis=1)
    if protocol is not Protocol.VTAB1K and np.abs(lengths - 1).max() < _UNIT_SLACK:
        out.append(
            "the vectors have unit length; the published code takes features as the network gives them, so its C is on "
            "another scale"
        )
    if protocol is Protocol.VTAB1K:
        out.append(
            "VTAB-1k fixes the items, and no classifier of frozen features: C is selected among the 45 values of DINOv2"
        )
    if split.n_left_out:
        out.append(
            f"{split.n_left_out} training items share a content or a group with an item that selects C, and train only "
            "after it is selected"
        )
    if split.n_near:
        out.append(
            f"{split.n_near} of the {len(split.choice)} items that select C have a near-duplicate among those that "
            "were fitted: C may be too large, and the published procedure does not look for that"
        )
    return out


def _facts(report: ProtocolReport) -> ProtocolFacts:
    """Return the report with C, which is at an edge of the grid if it is the first or the last value tried."""
    values, chosen = [c.value for c in report.candidates], {"C": report.selected}
    return ProtocolFacts(report, chosen, chosen if report.selected in (min(values), max(values)) else {})
