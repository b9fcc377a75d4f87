"""How two sets of items of a store differ: the test, its words, and the items that show the difference most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.evaluation.two_sample import N_PERMUTATIONS, two_sample_test
from embedstore.classify.metrics import MetricEstimate, MetricName, metric_interval
from embedstore.errors import LabelError
from embedstore.tables import Record, Table
from embedstore.wording import counted

MIN_DRAWS = 20  # of each set
DEFAULT_MAX_ITEMS = 5000  # of each set
MAX_LISTED_ITEMS = 200  # of each set
SIGNIFICANCE = 0.05
SLIGHT, CLEAR = 0.6, 0.75  # AUROC below which a shift is called slight, and from which it is called strong


@dataclass(frozen=True)
class ShiftSettings:
    """How the sets are compared.

    Attributes:
        near_duplicates: how they are found; copies and groups count as one draw.
        max_items: the most draws of each set; more are sampled.
        seed: random seed of the sample, the folds and the permutations.
    """

    near_duplicates: NearDuplicateOptions
    max_items: int = DEFAULT_MAX_ITEMS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_items < MIN_DRAWS:
            raise LabelError(f"max_items must be at least {MIN_DRAWS}, not {self.max_items}")


@dataclass(frozen=True, slots=True)
class ShiftedItem:
    """An item that its own set does not explain well; a higher score looks more like the second set.

    Attributes:
        item: the item.
        side: ``first`` or ``second``, its set.
        score: the score of a classifier that was not trained on it.
    """

    item: int
    side: str
    score: float


@dataclass(frozen=True)
class ShiftReport(Table):
    """The comparison of two sets of items; as a table, the items that show the difference most.

    Attributes:
        space: name of the space.
        first: the first set in words.
        second: the second set in words.
        n_first: its items, and as many as match.
        n_second: items of the second set.
        draws_first: independent draws of the first set that were compared.
        draws_second: those of the second set.
        sampled: whether there were more draws than were compared.
        n_both: items that are in both sets, which are left out.
        n_shared: items in groups (copies, or a declared group) that have items in both sets, which are left out.
        auroc: how often an item of the second set can be told from one of the first, with its 95% interval.
        p_value: the p-value of the permutation test.
        noticed_auroc: the AUROC from which the test would have shown a shift.
        n_permutations: the number of permutations of the test.
        items: items that show the difference most: of the second set those least like the first, then of the first
            those least like the second.
        seconds: wall time.
    """

    space: str
    first: str
    second: str
    n_first: int
    n_second: int
    draws_first: int
    draws_second: int
    sampled: bool
    n_both: int
    n_shared: int
    auroc: MetricEstimate
    p_value: float
    noticed_auroc: float
    n_permutations: int
    items: tuple[ShiftedItem, ...]
    seconds: float

    @property
    def is_shown(self) -> bool:
        """Return whether the test shows a shift at 5%."""
        return self.p_value < SIGNIFICANCE

    @property
    def summary(self) -> str:
        """Return what the test says, in plain words."""
        if not self.is_shown:
            return (
                f"no shift is shown (p = {self.p_value:.3g}); one with an AUROC above {self.noticed_auroc:.3f} would "
                "have been noticed"
            )
        size = "slight" if self.auroc.value < SLIGHT else "clear" if self.auroc.value < CLEAR else "strong"
        return (
            f"a {size} shift (p = {self.p_value:.3g}): a classifier tells an item of the second set from one of the "
            f"first in {self.auroc.value:.1%} of pairs; 50% would be equal sets"
        )

    def records(self) -> list[Record]:
        """Return one mapping per item."""
        return [{"item": i.item, "side": i.side, "score": i.score} for i in self.items]

    def to_json(self) -> dict[str, Any]:
        """Return plain values as recorded in the ``runs`` table."""
        return {
            "space": self.space,
            "first": {"filter": self.first, "items": self.n_first, "draws": self.draws_first},
            "second": {"filter": self.second, "items": self.n_second, "draws": self.draws_second},
            "sampled": self.sampled,
            "in_both": self.n_both,
            "in_shared_groups": self.n_shared,
            "auroc": [self.auroc.value, self.auroc.low, self.auroc.high],
            "p_value": self.p_value,
            "shown": self.is_shown,
            "noticed_auroc": self.noticed_auroc,
            "permutations": self.n_permutations,
            "summary": self.summary,
            "seconds": round(self.seconds, 3),
            "items": self.records(),
        }


@dataclass(frozen=True)
class ItemSets:
    """Items with the set that each is in.

    Attributes:
        data: the items of both sets.
        second: bool ``(N,)``, those of the second set.
        first_name: the first set in words.
        second_name: the second set in words.
        n_both: items that matched both and were left out.
    """

    data: Features
    second: NDArray[np.bool_]
    first_name: str
    second_name: str
    n_both: int = 0


def measure_shift(sets: ItemSets, settings: ShiftSettings, *, seconds: float = 0.0) -> ShiftReport:
    """Compare two sets of items.

    A group (copies of one picture, or a declared group) is one draw, represented by one of its items. Groups that have
    items in both sets are left out: they say nothing of a difference.

    Args:
        sets: the items.
        settings: near-duplicates, the most draws of each set, the seed.
        seconds: the time that loading took.

    Raises:
        LabelError: if a set has fewer than 20 independent draws.
    """
    import time

    start = time.perf_counter()
    data = settings.near_duplicates.join(sets.data)
    rows, n_shared = _independent_rows(data.groups, sets.second, settings.seed)
    draws = [rows[sets.second[rows] == is_second] for is_second in (False, True)]
    for name, own in zip((sets.first_name, sets.second_name), draws, strict=True):
        if len(own) < MIN_DRAWS:
            raise LabelError(
                f"the set {name!r} has {counted(len(own), 'independent item')} (copies and groups count once, and "
                "those in both "
                f"sets are left out); at least {MIN_DRAWS} of each set are needed: choose wider filters"
            )
    kept = np.sort(np.concatenate([own[: settings.max_items] for own in draws]))
    second = sets.second[kept]
    test = two_sample_test(data.take(kept).X, second, seed=settings.seed)
    return ShiftReport(
        space=data.space,
        first=sets.first_name,
        second=sets.second_name,
        n_first=int((~sets.second).sum()),
        n_second=int(sets.second.sum()),
        draws_first=int((~second).sum()),
        draws_second=int(second.sum()),
        sampled=any(len(own) > settings.max_items for own in draws),
        n_both=sets.n_both,
        n_shared=n_shared,
        auroc=_auroc_estimate(test.auroc, test.scores, second),
        p_value=test.p_value,
        noticed_auroc=test.noticed_auroc,
        n_permutations=N_PERMUTATIONS,
        items=_most_different(data.ids[kept], test.scores, second),
        seconds=seconds + time.perf_counter() - start,
    )


def _independent_rows(groups: NDArray[np.int64], second: NDArray[np.bool_], seed: int) -> tuple[NDArray[np.int64], int]:
    """Return one row of each group in random order, and the rows in groups that are in both sets."""
    code, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    in_second = np.bincount(code, second)
    shared = (in_second > 0) & (in_second < sizes)
    order = np.random.default_rng(seed).permutation(len(groups))
    order = order[~shared[code[order]]]
    first_places = np.sort(np.unique(code[order], return_index=True)[1])
    return order[first_places], int(sizes[shared].sum())


def _auroc_estimate(value: float, scores: NDArray[np.floating[Any]], second: NDArray[np.bool_]) -> MetricEstimate:
    """Return the AUROC of left-out scores with its 95% interval over draws."""
    low = scores.min()
    scaled = (scores - low) / max(float(scores.max() - low), 1e-300)
    proba = np.stack([1 - scaled, scaled], axis=1)
    interval = metric_interval(MetricName.AUROC, second.astype(np.int64), proba)
    return MetricEstimate(value, *interval)


def _most_different(
    ids: NDArray[np.int64], scores: NDArray[np.floating[Any]], second: NDArray[np.bool_]
) -> tuple[ShiftedItem, ...]:
    """Return the items of the second set with the highest scores, then those of the first with the lowest."""
    order = np.lexsort((ids, -scores))
    highest = order[second[order]][:MAX_LISTED_ITEMS]
    lowest = order[::-1][~second[order[::-1]]][:MAX_LISTED_ITEMS]
    return tuple(
        ShiftedItem(int(ids[row]), side, float(scores[row]))
        for side, rows in (("second", highest), ("first", lowest))
        for row in rows.tolist()
    )
