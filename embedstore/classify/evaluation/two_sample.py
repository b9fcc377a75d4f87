"""Whether two sets of vectors are from one distribution: a classifier two-sample test (Lopez-Paz and Oquab 2017).

A classifier is trained to tell the two sets apart and judged on rows that did not train it. Here it is a ridge
regression of the side, over the vectors and random cosine features of them (Rahimi and Recht 2007), which also see
differences that are no shift of the mean. Its predictions are linear in the sides, so all folds are fitted again for
every permutation of the sides in a few matrix products: the p-value is that of an exact permutation test. Nothing else
in it depends on the sides, neither the folds nor the penalty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray

N_PERMUTATIONS = 499
_FOLDS = 5
_COSINES = 256  # random features
_ROWS_PER_PARAMETER = 10  # training rows for each effective parameter of the ridge regression
_BISECTIONS = 60


@dataclass(frozen=True)
class TwoSampleTest:
    """The result of a test.

    Attributes:
        auroc: how often a row of the second set has a higher score than one of the first; 0.5 for equal sets.
        p_value: how often permuted sides give as high an AUROC; at least 1 / (permutations + 1).
        noticed_auroc: the AUROC from which the p-value is below 0.05.
        scores: float64 ``(N,)``, the score of each row by a classifier that was not trained on it; higher looks more
            like the second set.
    """

    auroc: float
    p_value: float
    noticed_auroc: float
    scores: FloatArray


def two_sample_test(
    X: NDArray[np.float32], side: NDArray[np.bool_], *, n_permutations: int = N_PERMUTATIONS, seed: int = 0
) -> TwoSampleTest:
    """Test whether two sets of independent rows are from one distribution.

    Args:
        X: float32 ``(N, D)``, independent draws.
        side: bool ``(N,)``, the rows of the second set.
        n_permutations: the number of permutations of the sides.
        seed: random seed of the folds, the random features and the permutations.
    """
    rng = np.random.default_rng(seed)
    features = _features(X, rng)
    fold_of = rng.permutation(np.arange(len(X)) % _FOLDS)
    sides = np.stack([side, *(rng.permutation(side) for _ in range(n_permutations))], axis=1).astype(np.float64)
    scores = left_out_scores(features, sides, fold_of)
    areas = aurocs(scores, sides > 0)
    permuted = areas[1:]
    exceeding = int((permuted >= areas[0] - 1e-12).sum())
    return TwoSampleTest(
        auroc=float(areas[0]),
        p_value=(1 + exceeding) / (1 + n_permutations),
        noticed_auroc=float(np.quantile(permuted, 0.95, method="higher")),
        scores=scores[:, 0],
    )


def _features(X: NDArray[np.float32], rng: np.random.Generator) -> FloatArray:
    """Return the rows, scaled as a whole, next to random cosines of them, float64 ``(N, D + 256)``."""
    rows = np.asarray(X, np.float64)
    rows = rows - rows.mean(0)
    scale = float(np.sqrt((rows**2).sum(1).mean())) or 1.0
    rows /= scale
    # Two random rows are about sqrt(2) apart now; the median distance is the usual width of the kernel.
    directions = rng.normal(size=(rows.shape[1], _COSINES)) / np.sqrt(2)
    cosines = np.cos(rows @ directions + rng.uniform(0, 2 * np.pi, _COSINES)) * np.sqrt(2 / _COSINES)
    return np.hstack([rows, cosines])


def left_out_scores(features: FloatArray, sides: FloatArray, fold_of: NDArray[np.integer]) -> FloatArray:
    """Return the score of every row by the ridge regression of the other folds, ``(N, permutations + 1)``."""
    out = np.empty(sides.shape)
    for fold in range(_FOLDS):
        train, held_out = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        mean = features[train].mean(0)
        U, lengths, Vt = np.linalg.svd(features[train] - mean, full_matrices=False)
        squares = lengths**2
        shrunk = lengths / (squares + ridge_penalty(squares, len(train) / _ROWS_PER_PARAMETER))
        y = sides[train] - sides[train].mean(0)
        weights = Vt.T @ (shrunk[:, None] * (U.T @ y))
        out[held_out] = (features[held_out] - mean) @ weights + sides[train].mean(0)
    return out


def ridge_penalty(squares: FloatArray, parameters: float) -> float:
    """Return the ridge penalty with a number of effective parameters, the sum of square / (square + penalty)."""
    low, high = 1e-9 * float(squares.max(initial=0)) + 1e-300, 1e9 * float(squares.max(initial=1))
    for _ in range(_BISECTIONS):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if (squares / (squares + middle)).sum() > parameters else (low, middle)
    return float(high)


def aurocs(scores: FloatArray, second: NDArray[np.bool_]) -> FloatArray:
    """Return the AUROC of each column, ``(B,)``; ties count half."""
    from scipy.stats import rankdata

    n_second = second.sum(0)
    ranks = rankdata(scores, axis=0)
    above = (ranks * second).sum(0) - n_second * (n_second + 1) / 2
    return np.asarray(above / (n_second * (len(scores) - n_second)))
