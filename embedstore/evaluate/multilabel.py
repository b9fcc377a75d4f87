"""Any number of labels an item: one yes-or-no head a label, and the figures that are honest for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore import heads, metrics
from embedstore.errors import LabelError
from embedstore.metrics import ClassRow, Metric, Report, Score

_YES = 0.5  # the probability from which a label is given
_REPLICATES, _SEED = 1000, 0


class OneVsRest:
    """One two-class head a label; a label with examples of one kind only, or in one group, keeps its share.

    Args:
        head: by name. options: of its constructor.

    Attributes:
        classes_: labels ``(K,)``. heads_: a fitted head or, where there was nothing to learn, a constant probability.
        unlearned_: the labels of such constants.
    """

    def __init__(self, head: str, options: dict[str, Any]) -> None:
        self.head = head
        self.options = options

    def fit(self, X: NDArray[np.float32], y: NDArray[np.object_], groups: NDArray[np.int64]) -> OneVsRest:
        """Fit every label.

        Args:
            X: ``(N, D)``. y: tuples of labels ``(N,)``. groups: ``(N,)``, kept together inside cross-validation.

        Raises:
            LabelError: fewer than two labels.
        """
        names = sorted({label for row in y.tolist() for label in row})
        if len(names) < 2:
            raise LabelError(f"training has {len(names)} different labels; a classifier needs at least two")
        self.classes_ = np.array(names, dtype=object)
        self.n_features_in_ = X.shape[1]
        given = indicators(y, names)
        self.heads_ = [self._one(X, given[:, k], groups) for k in range(len(names))]
        self.unlearned_ = tuple(n for n, h in zip(names, self.heads_, strict=True) if isinstance(h, float))
        return self

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Each label's own probability: float32 ``(M, K)``; rows do not sum to 1."""
        columns = [
            np.full(len(X), h, np.float32) if isinstance(h, float) else heads.probabilities(h, X)[:, 1]
            for h in self.heads_
        ]
        return np.stack(columns, axis=1).astype(np.float32)

    def predict(self, X: NDArray[np.float32]) -> NDArray[np.object_]:
        """Tuples of labels ``(M,)``: those with a probability of at least one half."""
        out = np.empty(len(X), dtype=object)
        out[:] = [tuple(self.classes_[row].tolist()) for row in self.predict_proba(X) >= _YES]
        return out

    def _one(self, X: NDArray[np.float32], yes: NDArray[np.bool_], groups: NDArray[np.int64]) -> Any:
        spread = min(len(np.unique(groups[yes])), len(np.unique(groups[~yes])))
        if spread < 2:
            return float(yes.mean())
        options = dict(self.options)
        if self.head == "logistic":
            options.setdefault("cv", min(5, spread))
            return heads.make(self.head, **options).fit(X, yes.astype(np.int64), groups=groups)
        return heads.make(self.head, **options).fit(X, yes.astype(np.int64))


def indicators(y: NDArray[np.object_], names: Sequence[str]) -> NDArray[np.bool_]:
    """Which labels each row has: bool ``(N, K)``; labels that are not among the names are left out."""
    column = {n: k for k, n in enumerate(names)}
    out = np.zeros((len(y), len(names)), dtype=bool)
    for i, row in enumerate(y.tolist()):
        out[i, [column[label] for label in row if label in column]] = True
    return out


def report(y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str]) -> Report:
    """Figures with 95% bootstrap intervals over items: ``accuracy`` (all labels of an item right), micro and macro F1
    at a probability of one half, macro average precision and AUROC; no confusion matrix, for there is none.

    Args:
        y: tuples of labels ``(M,)``. proba: ``(M, K)``. names: the K labels.
    """  # noqa: D205 - the list is the sentence
    true, said = indicators(y, names), proba >= _YES
    scores = _counted(true, said)
    for metric in (Metric.AVERAGE_PRECISION, Metric.AUROC):
        low, high = metrics.bootstrap_interval(metric, true.astype(np.int64), proba)
        scores[metric.value] = Score(metrics.value(metric, true.astype(np.int64), proba), low, high, _REPLICATES)
    return Report(
        rows=len(y),
        classes=tuple(names),
        scores=scores,
        confusion=(),
        per_class=tuple(_row(n, true[:, k], said[:, k], proba[:, k]) for k, n in enumerate(names)),
    )


def _counted(true: NDArray[np.bool_], said: NDArray[np.bool_]) -> dict[str, Score]:
    """The figures that are ratios of counts, with all replicates in one product."""
    n = len(true)
    rng = np.random.default_rng(_SEED)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), _REPLICATES)]).astype(np.float32)
    exact = weights @ (true == said).all(1) / n
    hits, wrong = weights @ (true & said), weights @ (true ^ said)  # F1 = 2 hits / (2 hits + misses + false alarms)
    micro = _ratio(2 * hits.sum(1), 2 * hits.sum(1) + wrong.sum(1))
    each = _ratio(2 * hits, 2 * hits + wrong)
    with np.errstate(invalid="ignore"):
        macro = np.nansum(each, 1) / np.isfinite(each).sum(1)
    named = {"accuracy": exact, "micro_f1": micro, "macro_f1": macro}
    return {name: _score(values) for name, values in named.items()}


def _ratio(top: NDArray[np.floating[Any]], bottom: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan).astype(np.float64)


def _score(values: NDArray[np.floating[Any]]) -> Score:
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return Score(float(values[0]), float(low), float(high), _REPLICATES)


def _row(name: str, true: NDArray[np.bool_], said: NDArray[np.bool_], proba: NDArray[np.float32]) -> ClassRow:
    hits, support, predicted = int((true & said).sum()), int(true.sum()), int(said.sum())
    both = np.stack([1 - proba, proba], axis=1)
    known = 0 < support < len(true)
    return ClassRow(
        name=name,
        support=support,
        predicted=predicted,
        precision=hits / predicted if predicted else math.nan,
        recall=hits / support if support else math.nan,
        f1=2 * hits / (support + predicted) if support + predicted else math.nan,
        auroc=metrics.auroc(true.astype(np.int64), both) if known else math.nan,
        average_precision=metrics.average_precision(true[:, None].astype(np.int64), proba[:, None])
        if support
        else math.nan,
    )
