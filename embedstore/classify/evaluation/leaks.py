"""What copies on both sides of a split do to the figure of a head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.split_leaks import SplitNearDuplicates


@dataclass(frozen=True)
class LeakedScore:
    """The score with and without the held-out items that have a near-duplicate in training.

    Attributes:
        metric: ``accuracy``, ``mae`` of predicted numbers, or ``R@1`` of queries.
        n_near: held-out items with a near-duplicate or an identical image in training; queries with one in the gallery.
        n_identical: how many of them have an identical one.
        n_other: the other held-out items.
        score_near: the score on the former.
        score_other: the score on the others, None if there are none.
        dropped: whether the near-duplicates were left out of training, or were no candidates.
    """

    metric: str
    n_near: int
    n_identical: int
    n_other: int
    score_near: float
    score_other: float | None
    dropped: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the scores are named for the metric."""
        return {
            "n_near": self.n_near,
            "n_identical": self.n_identical,
            "n_other": self.n_other,
            f"{self.metric}_near": self.score_near,
            f"{self.metric}_other": self.score_other,
            "dropped": self.dropped,
        }


def leaked_score(
    near: SplitNearDuplicates | None, ids: NDArray[np.int64], scores: NDArray[Any], metric: str
) -> LeakedScore | None:
    """Return the mean score of held-out items with and without a near-duplicate in training; None if none has one.

    Args:
        near: the near-duplicates across the split; None where nothing was searched for.
        ids: int64 ``(M,)``, the held-out items.
        scores: ``(M,)``, of each item: whether the head is right, or its error.
        metric: what the mean of the scores is.
    """
    is_near = np.isin(ids, [] if near is None else near.held_out_items)
    if near is None or not is_near.any():
        return None
    return LeakedScore(
        metric=metric,
        n_near=int(is_near.sum()),
        n_identical=near.n_identical,
        n_other=int((~is_near).sum()),
        score_near=float(scores[is_near].mean()),
        score_other=None if is_near.all() else float(scores[~is_near].mean()),
        dropped=near.dropped,
    )
