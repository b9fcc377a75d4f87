"""Groups of items that look alike, as results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from embedstore.search.pixel_pairs import PixelCheck
from embedstore.tables import Record, Table


class DuplicateKeepPolicy(StrEnum):
    """Which item of a group to keep."""

    FIRST = "first"  # the lowest id
    LARGEST = "largest"  # the most bytes, then the most pixels
    RESOLUTION = "resolution"  # the most pixels, then the most bytes
    OLDEST = "oldest"  # the earliest time of modification
    TRAIN_FIRST = "train-first"  # of the training items, then the validation items, then the test items


@dataclass(frozen=True)
class DuplicateItem:
    """One item of a group of duplicates.

    Attributes:
        group: number of the group, from 1.
        keep: whether this is the item of the group to keep.
        item: its id.
        uri: its uri.
        label: its label.
        split: its split.
        min_cosine: the lowest cosine that the group's best chain of pairs needs; 1 for equal bytes.
        cosine: the cosine of its vector with that of the item to keep.
        identical: whether it has the same bytes as the item to keep.
        pixels: the score of its pixels with those of the item to keep; None where pixels were not compared.
    """

    group: int
    keep: bool
    item: int
    uri: str
    label: str | None
    split: str | None
    min_cosine: float
    cosine: float
    identical: bool
    pixels: float | None = None

    def to_json(self) -> Record:
        """Return plain values."""
        record = asdict(self)
        record["weakest"] = record.pop("min_cosine")
        return record


@dataclass(frozen=True)
class CrossSplitPair:
    """Two items of one group in different splits.

    Attributes:
        group: number of the group.
        score: their cosine.
        item: id of the one.
        uri: its uri.
        label: its label.
        split: its split.
        other_item: id of the other.
        other_uri: its uri.
        other_label: its label.
        other_split: its split.
        pixels: the score of their pixels; None where they were not compared.
    """

    group: int
    score: float
    item: int
    uri: str
    label: str | None
    split: str
    other_item: int
    other_uri: str
    other_label: str | None
    other_split: str
    pixels: float | None = None

    def to_json(self) -> Record:
        """Return plain values."""
        record = asdict(self)
        record["other"] = record.pop("other_item")
        return record


@dataclass(frozen=True)
class DuplicateGroups(Table):
    """Groups of items that look alike.

    Attributes:
        items: the items of all groups, by group, the item to keep first.
        cross_split_pairs: pairs of items in different splits, the most similar first.
        cross_split_count: how many such pairs there are; more than are listed if there are very many.
        content_count: number of contents compared.
        pair_count: pairs of contents at or above the threshold.
        threshold: least cosine of a pair.
        is_threshold_chosen: whether the threshold was chosen from the vectors. It is 1 where they cannot tell copies
            from items that look alike, and only equal vectors count.
        recall: the share of the pairs of sampled contents with all others that was found; 1 where every content was
            compared with every other, and None if the sampled contents have no pair, or pixels decide.
        recall_pairs: how many pairs the recall was measured on; 0 where every content was compared with every other.
        pixels: how the pixels decided; None where they were not compared.
    """

    items: tuple[DuplicateItem, ...]
    cross_split_pairs: tuple[CrossSplitPair, ...]
    cross_split_count: int
    content_count: int
    pair_count: int
    threshold: float
    is_threshold_chosen: bool
    recall: float | None
    recall_pairs: int = 0
    pixels: PixelCheck | None = None

    @property
    def group_count(self) -> int:
        """Number of groups."""
        return len({item.group for item in self.items})

    @property
    def label_conflict_count(self) -> int:
        """Number of groups whose items have different labels."""
        labels: dict[int, set[str]] = {}
        for item in self.items:
            if item.label is not None:
                labels.setdefault(item.group, set()).add(item.label)
        return sum(len(names) > 1 for names in labels.values())

    @property
    def extra(self) -> list[int]:
        """Ids of the items that are not the one to keep of their group."""
        return [item.item for item in self.items if not item.keep]

    @property
    def only_equal(self) -> bool:
        """Whether the vectors cannot tell copies from items that look alike, so that only equal vectors count."""
        return self.is_threshold_chosen and self.threshold == 1 and self.pixels is None

    @property
    def is_complete(self) -> bool:
        """Whether every content was compared with every other, and every pair across splits is listed."""
        return self.recall == 1 and not self.recall_pairs and self.cross_split_count == len(self.cross_split_pairs)

    def records(self) -> list[Record]:
        """Return one mapping per item."""
        return [item.to_json() for item in self.items]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "groups": self.group_count, "items": len(self.items), "extra": len(self.extra),
            "groups_with_different_labels": self.label_conflict_count,
            "compared": self.content_count, "pairs": self.pair_count, "threshold": self.threshold,
            "threshold_chosen": self.is_threshold_chosen, "pixels": asdict(self.pixels) if self.pixels else None,
            "recall": self.recall, "recall_pairs": self.recall_pairs, "pairs_across_splits": self.cross_split_count,
            "rows": self.records(), "across_splits": [pair.to_json() for pair in self.cross_split_pairs],
        }  # fmt: skip
