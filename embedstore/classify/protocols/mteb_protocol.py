"""Evaluate vectors as MTEB's classification tasks do: few labels per class, drawn ten times, and the mean accuracy."""

from __future__ import annotations

import warnings
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import IntArray
from embedstore.classify.data.features import Features
from embedstore.classify.evaluation.evaluation import Evaluation, HeldOutPredictions
from embedstore.classify.evaluation.holdout import evaluate_fit
from embedstore.classify.evaluation.protocol_report import ProtocolCandidate, ProtocolReport
from embedstore.classify.evaluation.rounds import ProtocolFacts
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.classify.metrics.report import accuracy_estimate
from embedstore.classify.protocols.protocol import SOURCES, Protocol
from embedstore.errors import LabelError
from embedstore.threads import single_threaded_algebra

DRAWS = 10  # Muennighoff et al. 2023, and the published code
LABELS_PER_CLASS = 8
MAX_ITER = 100  # of L-BFGS, which may stop before the optimum: that is part of the published figures
SEED = 42  # of the draws and of the solver in the published code


def evaluate_mteb_protocol(data: Features, settings: EvaluationSettings) -> Evaluation:
    """Fit a head on each draw of eight labels per class, and report the mean accuracy on the held-out rows.

    The evaluation is that of the head of the first draw; :attr:`Evaluation.protocol` has all draws and their mean.

    Args:
        data: labeled rows.
        settings: seed of the hashed split, near-duplicates.

    Raises:
        LabelError: if the labels do not support the protocol.
    """
    if data.multilabel:
        raise LabelError(f"protocol mteb needs one label per item, and {data.label} has any number of them")
    fitted: list[tuple[Any, ...]] = []
    counts: list[int] = []

    def fit(train: Features, _: Features) -> tuple[Any, int]:
        draws = draw_rows(train.y)
        fitted.append(tuple(fit_draw(train.X[rows], train.y[rows]) for rows in draws))
        counts.append(len(draws[0]))
        return fitted[-1][0], 0

    return evaluate_fit(
        "logistic",
        data,
        settings,
        fit,
        describe_protocol=lambda pooled: ProtocolFacts(_report(fitted[-1], counts[-1], data, pooled)),
    )


def draw_rows(y: NDArray[np.object_]) -> list[IntArray]:
    """Return the rows of each draw, in the order of the published code: each draw shuffles the order of the last.

    Args:
        y: labels ``(N,)``.

    Returns:
        :data:`DRAWS` arrays, int64, with at most :data:`LABELS_PER_CLASS` rows of each class.
    """
    random, order = np.random.RandomState(SEED), np.arange(len(y))
    draws: list[IntArray] = []
    for _ in range(DRAWS):
        random.shuffle(order)
        seen = Counter[str]()
        rows = []
        for row in order.tolist():
            seen[str(y[row])] += 1
            if seen[str(y[row])] <= LABELS_PER_CLASS:
                rows.append(row)
        draws.append(np.array(rows, np.int64))
    return draws


def fit_draw(X: NDArray[np.float32], y: NDArray[np.object_]) -> Any:
    """Return scikit-learn's logistic regression with its defaults and 100 iterations."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings(), single_threaded_algebra():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(max_iter=MAX_ITER, random_state=SEED).fit(X, y.astype(str))


def _report(heads: tuple[Any, ...], count: int, data: Features, pooled: HeldOutPredictions) -> ProtocolReport:
    """Return the accuracy of each draw on the held-out rows."""
    held_out = data.take(np.flatnonzero(np.isin(data.ids, pooled.ids)))
    y = held_out.y.astype(str)
    correct = [head.predict(held_out.X) == y for head in heads]
    return ProtocolReport(
        name=Protocol.MTEB.value,
        parameter="draw",
        selected=1,
        chosen_on="training items",
        n_choice=count,
        n_fitted=count,
        n_trained=count,
        candidates=tuple(
            ProtocolCandidate(number, None, accuracy_estimate(rows, held_out.groups))
            for number, rows in enumerate(correct, 1)
        ),
        source=SOURCES[Protocol.MTEB],
        notes=tuple(_notes(data, pooled)),
        mean_accuracy=float(np.mean([rows.mean() for rows in correct])),
    )


def _notes(data: Features, pooled: HeldOutPredictions) -> list[str]:
    """Return what the evaluated head is, and what limits the draws."""
    out = ["the evaluated head is that of draw 1; the figure of the protocol is the mean over the draws"]
    held_out = np.isin(data.ids, pooled.ids)
    counts = Counter(data.y[~held_out].astype(str).tolist())
    few = sorted(name for name, count in counts.items() if count < LABELS_PER_CLASS)
    if few:
        shown = ", ".join(few[:5]) + (f" and {len(few) - 5} others" if len(few) > 5 else "")
        out.append(f"fewer than {LABELS_PER_CLASS} training items have the label {shown}: every draw has all of them")
    return out
