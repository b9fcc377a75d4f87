"""Fit a head by its name on rows whose groups stay together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.data import splits
from embedstore.classify.data.class_examples import DEFAULT_FOLDS, inner_folds, single_examples, smaller_side
from embedstore.classify.data.features import Features
from embedstore.classify.data.labels import label_indicators
from embedstore.errors import BadHead, EmbedstoreError, LabelError

_HEADS_WITH_C = ("logistic", "kernel")
_HEADS_WITHOUT_PROBABILITIES = ("knn", "svm", "ridge")
SINGLE_EXAMPLE_C = 1.0  # the regularization where fewer than two classes have two groups: nothing can choose C


def fit_head(head: str, train: Features, *, seed: int = 0, options: dict[str, Any] | None = None) -> Any:
    """Fit a head; its inner cross-validation keeps groups together.

    A class that is in one group only has no part in the choice of C. Where fewer than two classes are in several
    groups nothing can choose it, and C is 1.

    Args:
        head: one of :data:`embedstore.classify.heads.HEAD_NAMES`.
        train: labeled rows.
        seed: the random seed of the heads that draw random numbers.
        options: the options of the head's constructor.

    Returns:
        The fitted scikit-learn classifier.

    Raises:
        LabelError: when the rows hold fewer than two classes.
        UnknownHead: when no head has this name.
        BadHead: when an option or its value does not exist, or the head cannot learn from these rows.
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
    if train.weights is not None and not train.weights.all():
        train = train.take(np.flatnonzero(train.weights))  # they have no part in the classes and folds either
    rows: dict[str, Any] = {"groups": train.groups}
    if train.weights is not None:
        rows["sample_weight"] = train.weights
    if seed and head in ("logistic", "mlp", "svm", "kernel"):
        options.setdefault("random_state", seed)
    if train.multilabel:
        names = sorted({label for row in train.y.tolist() for label in row})
        if len(names) < 2:
            raise LabelError(f"training has {len(names)} different labels; a classifier needs at least two")
        heads.make_head(head, **options)  # an unknown name or option is refused before anything is fitted
        return heads.OneVsRest(head, options, names).fit(train.X, label_indicators(train.y, names), **rows)
    if head in _HEADS_WITH_C:
        if chooses_c(head, options):
            options |= _choice_of_c(train, options)
        return heads.make_head(head, **options).fit(train.X, train.y, **rows)
    estimator = heads.make_head(head, **options)
    return heads.fit_weighted(estimator, train.X, train.y, weights=train.weights, groups=train.groups)


def _choice_of_c(train: Features, options: dict[str, Any]) -> dict[str, Any]:
    """Return the option that lets the rows choose C in fewer folds than by default, or fixes it."""
    n_folds = inner_folds(train.y, train.groups)
    if not n_folds:
        return {"C": SINGLE_EXAMPLE_C}
    return {"cv": n_folds} if n_folds < DEFAULT_FOLDS and "cv" not in options else {}


def fit_head_to_few(head: str, train: Features, *, seed: int = 0, options: dict[str, Any] | None = None) -> Any:
    """Fit a head as :func:`fit_head` to a few labels: with C = 1 as long as a class has one group only."""
    options = dict(options or {})
    if head in _HEADS_WITH_C and not train.multilabel and single_examples(train.y, train.groups):
        options.setdefault("C", SINGLE_EXAMPLE_C)
    return fit_head(head, train, seed=seed, options=options)


def out_of_fold_probabilities(
    data: Features,
    class_names: Sequence[str],
    *,
    head: str,
    n_folds: int,
    seed: int = 0,
    options: dict[str, Any] | None = None,
    nested: bool = False,
    fallback_c: float | None = None,
) -> NDArray[np.float32]:
    """Predict every row by a head that was not fitted on it; logistic regression does so in one pass.

    Args:
        data: labeled rows.
        class_names: the K classes in the order of the columns.
        head: name of the head.
        n_folds: number of folds.
        seed: the random seed of the folds and of the head.
        options: the options of the head's constructor.
        nested: choose the C of logistic regression inside each fold, not once on all folds.
        fallback_c: C of a fold whose training rows cannot choose it; by default 1.

    Returns:
        Probabilities, float32 ``(N, K)``; those of a class of one group are no prediction, as it is on one side only.
    """
    options = dict(options or {})
    if (nested and not data.multilabel) or data.weights is not None:
        fallback = {} if fallback_c is None or not chooses_c(head, options) else {"C": fallback_c}
        return _fold_by_fold(
            data, class_names, head=head, n_folds=n_folds, seed=seed, options=options, fallback=fallback
        )
    if head == "logistic" and data.multilabel and not _has_single_c(options):
        return _out_of_fold_per_label(data, class_names, n_folds, {"random_state": seed} | options)
    if head == "logistic":
        probe = heads.make_head(head, **{"random_state": seed} | options | {"cv": n_folds, "keep_out_of_fold": True})
        probe.fit(data.X, data.y, groups=data.groups)
        if hasattr(probe, "out_of_fold_"):  # a single C is fitted without folds
            out: NDArray[np.float32] = np.nan_to_num(np.asarray(probe.out_of_fold_, dtype=np.float32))
            return out
    return _fold_by_fold(data, class_names, head=head, n_folds=n_folds, seed=seed, options=options)


def _fold_by_fold(
    data: Features,
    class_names: Sequence[str],
    *,
    head: str,
    n_folds: int,
    seed: int,
    options: dict[str, Any],
    fallback: dict[str, Any] | None = None,
) -> NDArray[np.float32]:
    """Fit one head per fold, with the fallback's options too if it cannot choose C, and predict the held-out rows."""
    proba = np.zeros((len(data), len(class_names)), dtype=np.float32)
    for part in splits.cross_validation_splits(data.y, data.groups, n_folds, seed=seed):
        train = data.take(part.train)
        more = {} if data.multilabel or inner_folds(train.y, train.groups) else fallback or {}
        estimator = fit_head(head, train, seed=seed, options=options | more)
        held_out = np.asarray(heads.probabilities(estimator, data.take(part.held_out).X), dtype=np.float32)
        proba[part.held_out] = align_columns(held_out, estimator.classes_, class_names)
    return proba


def _out_of_fold_per_label(
    data: Features, names: Sequence[str], n_folds: int, options: dict[str, Any]
) -> NDArray[np.float32]:
    """Predict by one logistic regression per label; a label that cannot be split gets its share of the rows."""
    indicators = label_indicators(data.y, names)
    out = np.repeat(indicators.mean(0, dtype=np.float32)[None], len(indicators), axis=0)
    for labels, column in zip(indicators.T, out.T, strict=True):
        n_groups = smaller_side(labels, data.groups)
        if n_groups < 2:
            continue
        probe = heads.make_head("logistic", **options | {"cv": min(n_folds, n_groups), "keep_out_of_fold": True})
        probe.fit(data.X, labels.astype(np.int64), groups=data.groups)
        positive = probe.out_of_fold_[:, 1]
        column[:] = np.where(np.isnan(positive), column, positive)
    return out


def chooses_c(head: str, options: dict[str, Any]) -> bool:
    """Return whether a head with these options chooses its C by cross-validation."""
    return head in _HEADS_WITH_C and not _has_single_c(options)


def _has_single_c(options: dict[str, Any]) -> bool:
    """Return whether one C is given, so that the head needs no folds to choose it."""
    Cs = options.get("Cs")
    return options.get("C") is not None or (Cs is not None and not isinstance(Cs, int) and np.size(Cs) == 1)


def align_columns(
    proba: NDArray[np.float32], head_classes: NDArray[Any] | Sequence[str], class_names: Sequence[str]
) -> NDArray[np.float32]:
    """Reorder the columns from the head's classes to ``class_names``; a class unknown to the head has probability 0."""
    known = [str(c) for c in head_classes]
    if known == list(class_names):
        return proba
    column = {n: k for k, n in enumerate(class_names)}
    out = np.zeros((len(proba), len(class_names)), dtype=np.float32)
    out[:, [column[n] for n in known]] = proba
    return out


def unwrap_head(estimator: Any) -> Any:
    """Return the head inside of calibration, abstention and conformal sets."""
    while hasattr(estimator, "head") and not isinstance(estimator.head, str):
        estimator = estimator.head
    return estimator


def has_probabilities(estimator: Any) -> bool:
    """Return whether the scores of a fitted head are probabilities of the classes.

    The margins of ``svm`` and ``ridge`` and the votes of ``knn`` (of which most are exactly 0) are not, unless they are
    calibrated. Log-loss, Brier score and calibration error say nothing about such scores.
    """
    while hasattr(estimator, "head"):
        if isinstance(estimator, heads.CalibratedHead | heads.LabelThresholds):
            return isinstance(estimator, heads.CalibratedHead)
        if isinstance(estimator.head, str):  # one head per label
            return estimator.head not in _HEADS_WITHOUT_PROBABILITIES
        estimator = estimator.head
    return hasattr(estimator, "predict_proba") and not isinstance(estimator, heads.WeightedKNN)


def selected_hyperparameters(estimator: Any) -> dict[str, Any]:
    """Return the hyper-parameters that a fitted head selected for itself, by name."""
    inner = unwrap_head(estimator)
    out: dict[str, Any] = {}
    if hasattr(inner, "C_"):
        out["C"] = float(np.ravel(inner.C_)[0])
    if hasattr(inner, "gamma_"):
        out["gamma"] = float(inner.gamma_)
    if hasattr(inner, "k_"):
        out["k"] = int(inner.k_)
    for name, key in (("alpha_", "alpha"), ("beta_", "beta"), ("penalty_", "pull")):
        if np.isfinite(getattr(inner, name, np.inf)):
            out[key] = float(getattr(inner, name))
    return out


def hyperparameters_at_grid_edge(estimator: Any) -> dict[str, float]:
    """Return the selected hyper-parameters that are the first or last value tried: a better one may lie beyond.

    No image features (alpha = 0) and no training (an infinite penalty) are ends of the scale itself and do not count.
    """
    inner = unwrap_head(estimator)
    grids: dict[str, tuple[str, Sequence[float]]] = {}
    if isinstance(inner, heads.LogisticProbe | heads.KernelProbe):
        grids = {"C": ("C_", inner.grid)}
        grids |= {"gamma": ("gamma_", inner.gammas_.tolist())} if hasattr(inner, "gammas_") else {}
    elif getattr(inner, "tuning_rows_", "") in ("validation rows", "held-out shots"):
        grids = {"alpha": ("alpha_", [a for a in inner.alphas if a > 0])}
        grids |= {"beta": ("beta_", inner.betas)} if hasattr(inner, "betas") else {}
        grids |= {"penalty": ("penalty_", inner.penalties)} if hasattr(inner, "penalties") else {}
    selected = {name: (float(getattr(inner, attribute)), grid) for name, (attribute, grid) in grids.items()}
    return {name: v for name, (v, grid) in selected.items() if len(grid) > 1 and v in (min(grid), max(grid))}


def c_path(estimator: Any) -> tuple[tuple[float, float, float], ...]:
    """Return ``(C, log-loss, accuracy)`` of every C that the head tried."""
    points = getattr(unwrap_head(estimator), "path_", None) or []
    return tuple((float(p.C), float(p.log_loss), float(p.accuracy)) for p in points)
