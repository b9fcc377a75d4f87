"""Copies of pictures: how many wrong pairs are joined, and whether copies in training change what is promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.settings import EvaluationSettings
from tools.evaluation_promises.heads import labeled
from tools.evaluation_promises.statement import Statement

_CLASSES = 4
_PICTURES = 80
_TEST = 400


def pictures(
    n: int, copies: int = 1, *, dim: int = 32, noise: float = 0.1, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Draw copies of pictures: rows, their classes, and the number of the picture.

    Args:
        n: pictures.
        copies: of each, with a little noise.
        dim: of the rows.
        noise: standard deviation of the noise; that of different pictures is 1.
        seed: random seed.
    """
    rng = np.random.default_rng(seed)
    y = rng.integers(0, _CLASSES, n)
    X = rng.normal(size=(_CLASSES, dim))[y] * 0.35 + rng.normal(size=(n, dim))
    rows = [X] + [X + noise * rng.normal(size=X.shape) for _ in range(copies - 1)]
    return np.concatenate(rows), np.tile(y, copies), np.tile(np.arange(n), copies)


def wrong_groups(dim: int, runs: int) -> float:
    """Return the mean number of groups that are joined among 300 rows without copies."""
    found = 0
    for seed in range(runs):
        X, y, _ = pictures(300, dim=dim, seed=seed)
        near = NearDuplicateOptions().join(labeled(X, y)).near_duplicates
        found += near.n_groups if near else 0
    return found / runs


def found_copies(copies: int, runs: int) -> float:
    """Return the share of pictures whose copies, and nothing else, are one group."""
    share = []
    for seed in range(runs):
        X, y, picture = pictures(100, copies, dim=48, seed=seed)
        groups = NearDuplicateOptions().join(labeled(X, y)).groups
        right = {frozenset(np.flatnonzero(groups == g).tolist()) for g in np.unique(groups)}
        own = {frozenset(np.flatnonzero(picture == p).tolist()) for p in range(100)}
        share.append(len(right & own) / 100)
    return float(np.mean(share))


def coverage_with_copies(copies: int, runs: int, *, near_duplicates: str = "group") -> float:
    """Return the share of test rows that sets of 0.9 hold where training has copies of each of 80 pictures.

    Args:
        copies: of each picture.
        runs: data sets.
        near_duplicates: what is done with copies.
    """
    settings, held = EvaluationSettings(conformal_alpha=0.1, near_duplicates=near_duplicates), []
    for seed in range(runs):
        X, y, picture = pictures(_PICTURES + _TEST, copies, seed=seed)
        kept = np.flatnonzero((picture < _PICTURES) | (np.arange(len(X)) < _PICTURES + _TEST))
        splits = np.where(picture[kept] < _PICTURES, "train", "test").tolist()
        evaluation = evaluate_head("logistic", labeled(X[kept], y[kept], splits), settings)
        held.append((evaluation.conformal or {})["coverage"])
    return float(np.mean(held))


def statements() -> Iterator[Statement]:
    """Return what is promised of copies."""
    for dim in (6, 16, 64):
        what = f"300 items of {dim} features without copies: groups per store"
        yield Statement("pictures that are no copies are joined", what, "about 0.1", _wrong(dim))
    for copies in (2, 5, 12, 25):
        what = f"100 pictures, {copies} copies of each"
        yield Statement("all copies of a picture, and nothing else, are one group", what, "1", _found(copies), 5)
    for copies in (1, 5, 12):
        what = f"{copies} of each of {_PICTURES} pictures in training, not declared"
        yield Statement("a prediction set holds the class", what, "0.90", _covered(copies), 5)


def _wrong(dim: int) -> Callable[[int], list[float]]:
    return lambda runs: [wrong_groups(dim, runs)]


def _found(copies: int) -> Callable[[int], list[float]]:
    return lambda runs: [found_copies(copies, runs)]


def _covered(copies: int) -> Callable[[int], list[float]]:
    return lambda runs: [coverage_with_copies(copies, runs)]
