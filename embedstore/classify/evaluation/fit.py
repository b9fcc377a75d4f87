"""A head by its name, fitted on rows that stay together, with calibration and a threshold where they are asked for."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data import splits
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import label_indicators
from embedstore.errors import BadHead, EmbedstoreError, LabelError


def fit_head(head: str, train: Features, *, seed: int = 0, options: dict[str, Any] | None = None) -> Any:
    """A fitted head; cross-validation inside it keeps groups together.

    Raises:
        LabelError: the labels cannot support it. UnknownHead, BadHead: the name, an option or its value.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The number of unique classes")  # few labels of many classes
            return _fit(head, train, seed, dict(options or {}))
    except (ValueError, TypeError) as e:
        if isinstance(e, EmbedstoreError):
            raise
        raise BadHead(f"head {head!r} cannot be fitted to {len(train)} rows: {' '.join(str(e).split())}") from e


def _fit(head: str, train: Features, seed: int, options: dict[str, Any]) -> Any:
    if seed and head in ("logistic", "mlp", "svm"):
        options.setdefault("random_state", seed)
    if train.multilabel:
        names = sorted({label for row in train.y.tolist() for label in row})
        if len(names) < 2:
            raise LabelError(f"training has {len(names)} different labels; a classifier needs at least two")
        heads.make_head(head, **options)  # so that a wrong name or option is told at once
        return heads.OneVsRest(head, options, names).fit(train.X, label_indicators(train.y, names), groups=train.groups)
    if head == "logistic":
        if not _lone(options.get("Cs")) and (few := splits.max_folds(train.y, train.groups)) < splits.DEFAULT_FOLDS:
            options.setdefault("cv", few)
        return heads.make_head(head, **options).fit(train.X, train.y, groups=train.groups)
    return heads.make_head(head, **options).fit(train.X, train.y)


@dataclass(frozen=True)
class UncertaintySettings:
    """What a head should add to its scores.

    Attributes:
        calibrate: ``temperature`` or ``isotonic``. abstain: target precision. conformal: share of items whose set of
            classes may miss the true one.
    """

    calibrate: str | None = None
    abstain_precision: float | None = None
    conformal_alpha: float | None = None

    def __bool__(self) -> bool:
        return (self.calibrate, self.abstain_precision, self.conformal_alpha) != (None, None, None)


def fit_with_uncertainty(
    head: str,
    train: Features,
    calibration_rows: Features,
    uncertainty: UncertaintySettings,
    *,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> tuple[Any, int]:
    """A head that is calibrated, abstains or answers with sets, and on how many rows that was chosen.

    The rows are ``spare`` where there are some; else the training rows themselves, each with the scores of a head
    that did not see it (as scikit-learn's ``CalibratedClassifierCV(ensemble=False)`` does).

    Raises:
        LabelError: as :func:`fit`. BadHead: several labels an item and a head that shall abstain or answer with sets.
    """
    if train.multilabel and (uncertainty.abstain_precision is not None or uncertainty.conformal_alpha is not None):
        raise BadHead(
            "--abstain and --conformal want one label an item; with several, an item may have none of them anyway: "
            "leave them out, or use --calibrate"
        )
    fitted = fit_head(head, train, seed=seed, options=options)
    if not uncertainty:
        return fitted, 0
    names = [str(c) for c in fitted.classes_]
    if len(calibration_rows):
        return _surely(
            fitted, fitted, calibration_rows.X, _true(calibration_rows.y, names, multi=train.multilabel), uncertainty
        ), len(calibration_rows)
    folds = 5 if train.multilabel else splits.max_folds(train.y, train.groups)
    proba = out_of_fold_probabilities(train, names, head=head, n_folds=folds, seed=seed, options=options)
    said = _Said(fitted.classes_, len(names), train.multilabel)
    return _surely(fitted, said, proba, _true(train.y, names, multi=train.multilabel), uncertainty), len(train)


def _true(y: NDArray[np.object_], names: list[str], *, multi: bool) -> NDArray[Any]:
    """What a wrapper learns from: indicators of several labels, else the labels."""
    return label_indicators(y, names).astype(np.int64) if multi else y


def _surely(fitted: Any, judged: Any, X: NDArray[np.float32], y: NDArray[Any], sure: UncertaintySettings) -> Any:
    """What ``judged`` teaches about rows, put around ``fitted``."""
    known = np.isin(y.astype(str), np.asarray(fitted.classes_).astype(str)) if y.ndim == 1 else np.ones(len(y), bool)
    if not known.any():
        raise LabelError(
            "no rows are left to calibrate on; label more, or leave --calibrate, --abstain and --conformal out"
        )
    if sure.calibrate is not None:
        judged = heads.CalibratedHead(judged, sure.calibrate).fit(X[known], y[known])
        fitted = _learned(judged, heads.CalibratedHead(fitted, sure.calibrate))
    if sure.abstain_precision is not None:
        fitted = _learned(
            heads.SelectiveClassifier(judged, sure.abstain_precision).fit(X, y),
            heads.SelectiveClassifier(fitted, sure.abstain_precision),
        )
    if sure.conformal_alpha is not None:
        sets = heads.ConformalSets(judged, sure.conformal_alpha).fit(X[known], y[known])
        fitted = _learned(sets, heads.ConformalSets(fitted, sure.conformal_alpha))
    return fitted


def _learned(source: Any, target: Any) -> Any:
    """The target with what the source has learned."""
    for name, value in vars(source).items():
        if name.endswith("_"):
            setattr(target, name, value)
    return target


@dataclass(frozen=True)
class _Said:
    """A head whose features are its own probabilities, said before."""

    classes_: NDArray[Any]
    n_features_in_: int
    multilabel_: bool = False

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """As they were said."""
        return X


def out_of_fold_probabilities(
    data: Features,
    class_names: Sequence[str],
    *,
    head: str,
    n_folds: int,
    seed: int = 0,
    options: dict[str, Any] | None = None,
) -> NDArray[np.float32]:
    """What a head says of each row that it did not see: ``(N, K)``. Logistic regression gives it in one pass.

    Args:
        data: labelled rows. names: the K classes, in order. head, options: of the head. folds, seed: of the folds.
    """
    options = dict(options or {})
    if head == "logistic" and data.multilabel and not _lone(options.get("Cs")):
        return _each_out_of_fold(data, class_names, n_folds, {"random_state": seed} | options)
    if head == "logistic":
        made = heads.make_head(head, **{"random_state": seed} | options | {"cv": n_folds, "keep_out_of_fold": True})
        made.fit(data.X, data.y, groups=data.groups)
        if hasattr(made, "out_of_fold_"):  # a single C is fitted without folds
            out: NDArray[np.float32] = np.nan_to_num(np.asarray(made.out_of_fold_, dtype=np.float32))
            return out
    proba = np.zeros((len(data), len(class_names)), dtype=np.float32)
    for part in splits.cross_validation_splits(data.y, data.groups, n_folds, seed=seed):
        estimator = fit_head(head, data.take(part.train), seed=seed, options=options)
        said = np.asarray(heads.probabilities(estimator, data.take(part.held_out).X), dtype=np.float32)
        proba[part.held_out] = align_columns(said, estimator.classes_, class_names)
    return proba


def _each_out_of_fold(data: Features, names: Sequence[str], folds: int, options: dict[str, Any]) -> NDArray[np.float32]:
    """The same of several labels an item, one logistic regression a label; where a label cannot be cut, its share."""
    yes = label_indicators(data.y, names)
    out = np.repeat(yes.mean(0, dtype=np.float32)[None], len(yes), axis=0)
    for column, said in zip(yes.T, out.T, strict=True):
        spread = min(len(np.unique(data.groups[column == side])) for side in (True, False))
        if spread < 2:
            continue
        made = heads.make_head("logistic", **options | {"cv": min(folds, spread), "keep_out_of_fold": True})
        found = made.fit(data.X, column.astype(np.int64), groups=data.groups)
        yes_there = found.out_of_fold_[:, 1]
        said[:] = np.where(np.isnan(yes_there), said, yes_there)
    return out


def _lone(Cs: Any) -> bool:
    """Nothing is chosen, so there are no folds inside the head."""
    return Cs is not None and (Cs == 1 if isinstance(Cs, int) else np.size(Cs) == 1)


def align_columns(
    proba: NDArray[np.float32], head_classes: NDArray[Any], class_names: Sequence[str]
) -> NDArray[np.float32]:
    """Columns in the order of ``names``; a class that the head does not know has probability 0."""
    known = [str(c) for c in head_classes]
    if known == list(class_names):
        return proba
    place = {n: k for k, n in enumerate(class_names)}
    out = np.zeros((len(proba), len(class_names)), dtype=np.float32)
    out[:, [place[n] for n in known]] = proba
    return out


def unwrap_head(estimator: Any) -> Any:
    """The head itself, without what was put around it."""
    while hasattr(estimator, "head") and not isinstance(estimator.head, str):
        estimator = estimator.head
    return estimator


def selected_hyperparameters(estimator: Any) -> dict[str, Any]:
    """What the head selected for itself."""
    inner = unwrap_head(estimator)
    out: dict[str, Any] = {}
    if hasattr(inner, "C_"):
        out["C"] = float(np.ravel(inner.C_)[0])
    if hasattr(inner, "k_"):
        out["k"] = int(inner.k_)
    for name, key in (("alpha_", "alpha"), ("beta_", "beta"), ("penalty_", "pull")):
        if np.isfinite(getattr(inner, name, np.inf)):
            out[key] = float(getattr(inner, name))
    return out


def c_path(estimator: Any) -> tuple[tuple[float, float, float], ...]:
    """``(C, log-loss, accuracy)`` of each C that was tried."""
    points = getattr(unwrap_head(estimator), "path_", None) or []
    return tuple((float(p.C), float(p.log_loss), float(p.accuracy)) for p in points)
