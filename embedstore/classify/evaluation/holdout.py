"""Fit a head on one side of a leak-proof split, judge it on the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads, metrics
from embedstore.classify.data import near_duplicates, splits
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import encode_labels
from embedstore.classify.data.splits import TrainTestSplit
from embedstore.classify.evaluation import fit, multilabel
from embedstore.classify.evaluation.evaluation import Evaluation, HeldOutPredictions, drop_trivial_top5
from embedstore.classify.evaluation.multilabel import multilabel_report
from embedstore.classify.metrics import ClassificationReport, MetricName
from embedstore.errors import BadHead, LabelError

CALIBRATION_METHODS = ("temperature", "isotonic")


@dataclass(frozen=True)
class EvaluationSettings:
    """How a head is judged.

    Attributes:
        folds: cross-validate over all rows instead of the split; 0 does not.
        seed: of the hashed split, the folds and the heads.
        near: cosine from which a training row counts as a near-duplicate of a held-out one; None is 0.95 and leaves
            very large searches out; 0 does not look.
        drop_leaks: leave such training rows out.
        calibrate: ``temperature`` or ``isotonic``, fitted on rows that neither train nor judge, or out of fold.
        abstain: target precision of a head that may say "none of these".
        conformal: the head answers with sets of classes; share of items whose set may miss the true one.
    """

    folds: int = 0
    seed: int = 0
    near: float | None = None
    drop_leaks: bool = False
    calibrate: str | None = None
    abstain: float | None = None
    conformal: float | None = None

    def __post_init__(self) -> None:
        if self.folds < 0 or self.folds == 1:
            raise LabelError(f"folds must be 0 (the split) or at least 2, not {self.folds}")
        if self.near is not None and not 0 <= self.near <= 1:
            raise LabelError(f"near is a cosine in [0, 1], not {self.near:g}")
        if self.calibrate not in (None, *CALIBRATION_METHODS):
            raise BadHead(f"calibrate is {' or '.join(CALIBRATION_METHODS)}, not {self.calibrate!r}")
        if self.abstain is not None and not 0 < self.abstain <= 1:
            raise BadHead(f"abstain is a precision in (0, 1], not {self.abstain:g}")
        if self.conformal is not None and not 0 < self.conformal <= 0.5:
            raise BadHead(
                "conformal is the share of items whose set may miss the true class, above 0 and at most 0.5: "
                f"0.1 gives a coverage of 90%, not {self.conformal:g}"
            )
        if self.abstain is not None and self.conformal is not None:
            raise BadHead("abstain and conformal are two answers to one question, what to say when unsure: give one")

    @property
    def uncertainty(self) -> fit.UncertaintySettings:
        """What the head adds to its scores."""
        return fit.UncertaintySettings(self.calibrate, self.abstain, self.conformal)


@dataclass(frozen=True)
class _Round:
    """One fit and what it said of its held-out rows; ``raw`` is before calibration."""

    estimator: Any
    train: int
    held: NDArray[np.int64]
    proba: NDArray[np.float32]
    raw: NDArray[np.float32] | None
    tuned_on: int
    near: near_duplicates.SplitNearDuplicates | None


def evaluate_head(
    head: str, data: Features, label: str, settings: EvaluationSettings | None = None, **options: Any
) -> Evaluation:
    """Fit a head by name and judge it on the held-out side.

    Args:
        head: ``logistic``, ``knn`` or another of :data:`embedstore.classify.heads.NAMES`.
        data: labelled rows. label: the column, for the report.
        how: folds, seed, leaks, calibration.
        options: of the head.

    Raises:
        LabelError: the labels cannot support it. UnknownHead, BadHead: the name or an option.
    """
    settings = settings or EvaluationSettings()
    heads.make_head(head, **options)  # a wrong name is told at once, and what it imports is not counted as its time
    begin = time.perf_counter()
    parts = evaluation_splits(data, settings)
    every = sorted(set(data.y.tolist())) if settings.folds and not data.multilabel else None
    rounds = [_round(head, data, p, settings, options) for p in parts]
    names, unseen = _names(rounds, data, every)
    held = np.concatenate([r.held for r in rounds])
    proba = np.concatenate([fit.align_columns(r.proba, r.estimator.classes_, names) for r in rounds])
    final = rounds[0].estimator if not settings.folds else _final(head, data, settings, options)
    return Evaluation(
        head=head,
        label=label,
        split=f"{settings.folds} folds" if settings.folds else parts[0].name,
        n_train=len(data) if settings.folds else rounds[0].train,
        n_held_out=len(held),
        classes=tuple(str(c) for c in final.classes_),
        unlearned_classes=unseen,
        n_leaks=parts[0].n_leaks,
        n_unlabeled=data.n_unlabeled,
        report=holdout_report(data.y[held], proba, names, multilabel=data.multilabel),
        hyperparameters=fit.selected_hyperparameters(final),
        estimator=final,
        near_duplicates=_merged([r.near for r in rounds]),
        fold_accuracy=tuple(_accuracy(data, r, names) for r in rounds) if settings.folds else (),
        c_path=fit.c_path(final),
        calibration=_calibration(rounds, data, names, settings),
        abstain=_abstained(rounds, data, settings),
        conformal=_covered(rounds, data, settings),
        held_out_predictions=HeldOutPredictions(data.ids[held], data.y[held], proba, tuple(names)),
        seed=settings.seed,
        multilabel=data.multilabel,
        seconds=time.perf_counter() - begin,
    )


def evaluation_splits(data: Features, settings: EvaluationSettings) -> list[TrainTestSplit]:
    """The rounds of a judgement: the folds, or the one split."""
    if settings.folds:
        return splits.cross_validation_splits(data.y, data.groups, settings.folds, seed=settings.seed)
    if not data.multilabel:
        return [splits.split_rows(data.y, data.groups, data.splits, seed=settings.seed)]
    flat = np.where(np.arange(len(data)) % 2, "a", "b").astype(object)  # several labels are not stratified
    parts = splits.split_rows(flat, data.groups, data.splits, seed=settings.seed)
    return [parts]


def evaluate_fitted(estimator: Any, data: Features, label: str, *, head: str, split: str, seed: int = 0) -> Evaluation:
    """Judge a classifier that is fitted already on rows that it has not seen.

    Args:
        estimator: with ``classes_`` and probabilities. data: every row is judged. head, split: for the report.
    """
    begin = time.perf_counter()
    proba = np.asarray(heads.probabilities(estimator, data.X), dtype=np.float32)
    known = [str(c) for c in estimator.classes_]
    unseen = tuple(sorted(set(data.y.tolist()) - set(known)))
    names = [*known, *unseen]
    proba = fit.align_columns(proba, estimator.classes_, names)
    return Evaluation(
        head=head,
        label=label,
        split=split,
        n_train=0,
        n_held_out=len(data),
        classes=tuple(known),
        unlearned_classes=unseen,
        n_leaks=0,
        n_unlabeled=data.n_unlabeled,
        report=holdout_report(data.y, proba, names),
        hyperparameters=fit.selected_hyperparameters(estimator),
        seconds=time.perf_counter() - begin,
        estimator=estimator,
        held_out_predictions=HeldOutPredictions(data.ids, data.y, proba, tuple(names)),
        seed=seed,
    )


def holdout_report(
    y: NDArray[np.object_], proba: NDArray[np.float32], names: Sequence[str], *, multilabel: bool = False
) -> ClassificationReport:
    """Metrics of the judged rows."""
    if multilabel:
        return multilabel_report(y, proba, names)
    return drop_trivial_top5(metrics.classification_report(y, proba, names))


def _round(head: str, data: Features, part: TrainTestSplit, how: EvaluationSettings, options: dict[str, Any]) -> _Round:
    """Fit on one side, say the other."""
    held = data.take(part.held_out)
    rows, near = _without_near(data, part, how)
    train, spare = data.take(rows), data.take(part.calibration)
    if not len(train):
        raise LabelError("every training row is a near-duplicate of a held-out one; raise --near, or keep them")
    estimator, tuned_on = fit.fit_with_uncertainty(head, train, spare, how.uncertainty, seed=how.seed, options=options)
    proba = np.asarray(heads.probabilities(estimator, held.X), dtype=np.float32)
    raw = heads.probabilities(fit.unwrap_head(estimator), held.X) if how.calibrate else None
    return _Round(estimator, len(train), part.held_out, proba, raw, tuned_on, near)


def _without_near(
    data: Features, part: TrainTestSplit, how: EvaluationSettings
) -> tuple[NDArray[np.int64], near_duplicates.SplitNearDuplicates | None]:
    """The training rows, without near-duplicates of held-out ones where that is asked for, and what was found."""
    if how.near == 0 and not how.drop_leaks:
        return part.train, None
    threshold = how.near or near_duplicates.DEFAULT_NEAR_DUPLICATE_THRESHOLD
    asked = how.near is not None or how.drop_leaks
    if not asked and near_duplicates.exceeds_search_limit(len(part.train), len(part.held_out), data.X.shape[1]):
        return part.train, near_duplicates.SplitNearDuplicates(threshold, 0, (), dropped=False, searched=False)
    cosines, places = near_duplicates.nearest_held_out(data.X, part.train, part.held_out)
    found = np.flatnonzero(cosines >= threshold)
    order = found[np.argsort(-cosines[found], kind="stable")][: near_duplicates.MAX_LISTED_PAIRS]
    pairs = tuple(
        near_duplicates.NearDuplicatePair(
            int(data.ids[part.train[i]]), int(data.ids[part.held_out[places[i]]]), float(cosines[i])
        )
        for i in order.tolist()
    )
    near = near_duplicates.SplitNearDuplicates(threshold, len(found), pairs, dropped=how.drop_leaks)
    return np.delete(part.train, found) if how.drop_leaks else part.train, near


def _merged(found: list[near_duplicates.SplitNearDuplicates | None]) -> near_duplicates.SplitNearDuplicates | None:
    """What all rounds found."""
    known = [f for f in found if f is not None]
    if len(known) < 2:
        return known[0] if known else None
    pairs = sorted((p for f in known for p in f.pairs), key=lambda p: -p.cosine)[: near_duplicates.MAX_LISTED_PAIRS]
    return near_duplicates.SplitNearDuplicates(
        known[0].threshold, sum(f.count for f in known), tuple(pairs), known[0].dropped, all(f.searched for f in known)
    )


def _names(rounds: list[_Round], data: Features, every: list[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """The columns of all rounds together, and the classes among them that could not be learned."""
    known = sorted({str(c) for r in rounds for c in r.estimator.classes_}, key=str) if len(rounds) > 1 else None
    known = known or [str(c) for c in rounds[0].estimator.classes_]
    held = [v for r in rounds for v in data.y[r.held].tolist()]
    said = {label for row in held for label in row} if data.multilabel else set(held)
    unseen = tuple(sorted(said - set(known)))
    unlearned = {n for r in rounds for n in getattr(r.estimator, "constant_labels_", ())}
    return every or [*known, *unseen], tuple(sorted({*unseen, *unlearned}))


def _final(head: str, data: Features, how: EvaluationSettings, options: dict[str, Any]) -> Any:
    """The head of all rows, for keeping; the folds have judged its kind."""
    none = data.take(np.zeros(0, dtype=np.int64))
    return fit.fit_with_uncertainty(head, data, none, how.uncertainty, seed=how.seed, options=options)[0]


def _accuracy(data: Features, r: _Round, names: Sequence[str]) -> float:
    """Top-1 accuracy of one round (several labels: all of an item's right)."""
    proba = fit.align_columns(r.proba, r.estimator.classes_, names)
    if data.multilabel:
        return float(multilabel.exact_match(data.y[r.held], proba, names).mean())
    return float((np.array(names, dtype=object)[proba.argmax(1)] == data.y[r.held]).mean())


def _calibration(
    rounds: list[_Round], data: Features, names: Sequence[str], how: EvaluationSettings
) -> dict[str, Any] | None:
    """Calibration error and log-loss on the held-out rows, before and after."""
    if how.calibrate is None:
        return None
    held = np.concatenate([r.held for r in rounds])
    raws = [fit.align_columns(np.asarray(r.raw, dtype=np.float32), r.estimator.classes_, names) for r in rounds]
    before = np.concatenate(raws)
    after = np.concatenate([fit.align_columns(r.proba, r.estimator.classes_, names) for r in rounds])
    out: dict[str, Any] = {"method": how.calibrate, "rows": rounds[0].tuned_on}
    for name, proba in (("before", before), ("after", after)):
        y, scores = (
            multilabel.binary_decisions(data.y[held], proba, names)
            if data.multilabel
            else (encode_labels(data.y[held], names), proba)
        )
        for metric in (MetricName.EXPECTED_CALIBRATION_ERROR, MetricName.LOG_LOSS):
            out[f"{metric.value}_{name}"] = round(metrics.compute_metric(metric, y, scores), 6)
    return out


def _abstained(rounds: list[_Round], data: Features, how: EvaluationSettings) -> dict[str, Any] | None:
    """The threshold, and its precision and coverage on the held-out rows."""
    if how.abstain is None:
        return None
    answered = right = rows = 0
    for r in rounds:
        sure = r.proba.max(1) >= r.estimator.threshold_
        said = np.asarray(r.estimator.classes_)[r.proba.argmax(1)]
        answered += int(sure.sum())
        right += int((said[sure] == data.y[r.held][sure]).sum())
        rows += len(r.held)
    return {
        "target_precision": how.abstain,
        "threshold": float(rounds[0].estimator.threshold_),
        "precision": right / answered if answered else None,
        "coverage": answered / rows,
        "rows": rounds[0].tuned_on,
    }


def _covered(rounds: list[_Round], data: Features, how: EvaluationSettings) -> dict[str, Any] | None:
    """How often the sets hold the true class on the held-out rows, and how large they are."""
    if how.conformal is None:
        return None
    inside: list[NDArray[np.bool_]] = []
    sizes: list[NDArray[np.int64]] = []
    for r in rounds:
        member = r.proba >= r.estimator.threshold_
        known = np.asarray(r.estimator.classes_).astype(str)
        inside.append((member & (known == data.y[r.held].astype(str)[:, None])).any(1))
        sizes.append(member.sum(1))
    size = np.concatenate(sizes)
    return {
        "target_coverage": 1 - how.conformal,
        "threshold": float(rounds[0].estimator.threshold_),
        "coverage": float(np.concatenate(inside).mean()),
        "mean_size": float(size.mean()),
        "empty": float((size == 0).mean()),
        "single": float((size == 1).mean()),
        "rows": rounds[0].tuned_on,
    }
