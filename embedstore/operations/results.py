"""Results of verbs that return counts. Each has ``to_json()``, and shows itself as a table in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from embedstore.replicas.state import ReplicaInfo
from embedstore.search.index.build import IndexInfo
from embedstore.storage.inbox.state import PlanInfo
from embedstore.storage.info import HeadInfo, SpaceInfo
from embedstore.storage.queries.computed_columns import ComputedColumnState
from embedstore.tables import OneRow


@dataclass(frozen=True)
class Summary(OneRow):
    """Base of small results."""

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in self.to_json().items()
        )
        return f"<table>{rows}</table>"


@dataclass(frozen=True)
class StoreInfo(Summary):
    """What a store holds.

    Attributes:
        path: the folder.
        id: the identity of the store.
        format: the version of the storage format.
        items: how many items there are.
        missing: how many of them were not found by the last scan of their folder.
        contents: how many different contents.
        failures: how many images could not be embedded.
        failure_reasons: failures by reason.
        labels: items by label, the 50 most frequent.
        splits: items by split.
        spaces: facts on each space.
        indexes: facts on each index.
        heads: facts on each saved head.
        replicas: facts on each copy of a space in a vector database.
        parts: facts on each plan of parts.
        computed: facts on each column that a run computed.
        runs: how many runs are recorded.
        bytes: bytes on disk.
    """

    path: str
    id: str
    format: int
    items: int
    missing: int
    contents: int
    failures: int
    failure_reasons: dict[str, int]
    labels: dict[str, int]
    splits: dict[str, int]
    spaces: list[SpaceInfo]
    indexes: list[IndexInfo]
    heads: list[HeadInfo]
    replicas: list[ReplicaInfo]
    parts: list[PlanInfo]
    computed: list[ComputedColumnState]
    runs: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        lists = ("spaces", "indexes", "heads", "replicas", "parts", "computed")
        return vars(self) | {name: [facts.to_json() for facts in getattr(self, name)] for name in lists}


@dataclass(frozen=True)
class ChangedItems(Summary):
    """How many items were changed, renamed or deleted."""

    items: int


@dataclass(frozen=True)
class PurgedItems(Summary):
    """What was removed for good.

    Attributes:
        items: items.
        contents: different contents of them.
        vectors: vectors of the contents; :meth:`embedstore.Store.compact` removes their bytes from the disk.
        failures: failures of the same uris.
        runs: runs whose settings or results lost texts.
        heads: saved heads that were deleted, because they held copies of vectors or a class of purged items only.
        sheets: sheets of training images that were deleted from checkpoints.
    """

    items: int
    contents: int
    vectors: int
    failures: int
    runs: int
    heads: list[str]
    sheets: int


@dataclass(frozen=True)
class TableEdit(Summary):
    """What an edit from a table changed.

    Attributes:
        items: items that were changed.
        unknown: rows that name an item that the store does not have.
        notices: what a person should know about the table, one sentence each.
    """

    items: int
    unknown: int
    notices: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the counts."""
        return {"items": self.items, "unknown": self.unknown}


@dataclass(frozen=True)
class Compaction(Summary):
    """What a compaction did.

    Attributes:
        files_before: vector files before it.
        files_after: vector files after it.
        rows_dropped: vectors that no item needed.
        bytes_freed: bytes that were freed on disk.
        indexes: index files that were built again.
    """

    files_before: int
    files_after: int
    rows_dropped: int
    bytes_freed: int
    indexes: list[str]


@dataclass(frozen=True)
class DefaultSpace(Summary):
    """The space that is used from now on when none is named.

    Attributes:
        space: its name.
        without_vector: contents that have no vector in it yet.
        refitted: heads that were fitted again in it.
        skipped: heads that could not be fitted again, with the reason.
    """

    space: str
    without_vector: int
    refitted: list[str]
    skipped: list[str]


@dataclass(frozen=True)
class DroppedSpace(Summary):
    """How many vectors and bytes were removed with a space."""

    vectors: int
    bytes: int


@dataclass(frozen=True)
class Backup(Summary):
    """How many vector files and bytes a backup or a restored store has."""

    shards: int
    bytes: int


@dataclass(frozen=True)
class ArchiveCounts(Summary):
    """What an export or import of a whole store held.

    Attributes:
        tables: rows by table.
        vectors: vectors of all spaces.
        files: files of the archive; 0 for an import.
        bytes: bytes of the archive; 0 for an import.
    """

    tables: dict[str, int]
    vectors: int
    files: int = 0
    bytes: int = 0

    @classmethod
    def from_counts(cls, counts: dict[str, int]) -> ArchiveCounts:
        """Separate the rows of tables from the other counts."""
        other = {name: counts[name] for name in ("vectors", "files", "bytes") if name in counts}
        return cls({name: n for name, n in counts.items() if name not in other}, **other)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the tables next to the other counts."""
        return {**self.tables, "vectors": self.vectors, "files": self.files, "bytes": self.bytes}


@dataclass(frozen=True)
class ExportedClassifier(Summary):
    """A classifier that was written as one file.

    Attributes:
        path: the file.
        bytes: its size.
        classes: how many classes it has.
        images: on how many images it was compared with the store, in onnxruntime.
        max_difference: the largest difference of a probability on them.
    """

    path: str
    bytes: int
    classes: int
    images: int
    max_difference: float


@dataclass(frozen=True)
class PredictionSummary(Summary):
    """What a head predicted.

    Attributes:
        head: its name.
        items: items that have a prediction now.
        contents: different contents among them.
        labels: items by predicted class, the most frequent first.
        seconds: wall time.
    """

    head: str
    items: int
    contents: int
    labels: dict[str, int]
    seconds: float
