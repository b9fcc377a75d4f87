"""What has to be done: the scan of a source compared with the catalog, in bounded memory.

Planning reads no image and writes nothing to the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.modality import Modality
from embedstore.pipeline.content_set import ContentSet, MissingItems
from embedstore.pipeline.read_order import ReadOrder
from embedstore.sources.source import Scan, Source
from embedstore.storage.commit import FailureRow
from embedstore.storage.inbox.inbox import KNOWN, MISSING
from embedstore.storage.queries import embedding
from embedstore.storage.queries import inbox as inbox_queries
from embedstore.storage.storage import Storage
from embedstore.storage.writer import Writer
from embedstore.types import Failure, ImageRef

QUERY_ROWS = 4096  # files to read that one query returns
CHUNK_ROWS = 32768  # references compared with the catalog at once: about 15 MB, and one pass over the items' names


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One file to read.

    Attributes:
        ref: the file, as the scan found it.
        item: the id of the item that has this uri, or whose file was found under this new name; None is a new item.
    """

    ref: ImageRef
    item: int | None


@dataclass(frozen=True)
class PlanCounts:
    """What a scan found; every reference and failure is in exactly one of the next four counts.

    Attributes:
        scanned: references and failures.
        todo: files to read.
        unchanged: files whose size and mtime are as before, with a vector in the space.
        known_failures: files that failed before and have not changed since.
        new_failures: entries that the scan itself could not use.
        skipped: what the scan left out, by kind; it is in no other count.
        unit: what one of them is called.
    """

    scanned: int
    todo: int
    unchanged: int
    known_failures: int
    new_failures: int
    skipped: dict[str, int]
    unit: str = "file"


class FilesToRead(Protocol):
    """What the stages "read" and "decode" need of a plan.

    Attributes:
        counts: what the scan found.
    """

    counts: PlanCounts

    def todo(self, chunk_rows: int) -> Iterator[list[PlannedFile]]:
        """Yield the files to read in their order, at most ``chunk_rows`` at a time."""

    def known(self, digests: Sequence[str]) -> set[str]:
        """Return which contents have a vector in the space."""

    def learn(self, digests: Sequence[str]) -> None:
        """Remember contents that get a vector in this run."""

    def claim_renamed(self, digests: Sequence[str | None]) -> list[int | None]:
        """Return for every file a missing item with the same content, or None."""


class EmbedPlan:
    """The files that a run has to read, and what is known about the others.

    One thread at a time may call ``known``, ``learn`` and ``claim_renamed``; another may call the rest meanwhile.

    Args:
        storage: the store that holds the plan's tables.
        counts: what the scan found.
        known: the contents with a vector in the space, ``S16``, ascending.
        missing: the items whose files the scan did not find.
    """

    def __init__(self, storage: Storage, counts: PlanCounts, known: NDArray[np.bytes_], missing: MissingItems) -> None:
        self.counts = counts
        self._con = storage.catalog.scratch.cursor()
        self._known_before, self._known, self._missing = known, ContentSet(known), missing

    def todo(self, chunk_rows: int) -> Iterator[list[PlannedFile]]:
        """Yield the files to read in their order, at most ``chunk_rows`` at a time."""
        con = self._con.cursor()
        query_rows = max(chunk_rows, QUERY_ROWS // chunk_rows * chunk_rows)
        for first in range(0, self.counts.todo, query_rows):
            files = [PlannedFile(ref, item) for ref, item in embedding.todo_files(con, first, query_rows)]
            yield from (files[n : n + chunk_rows] for n in range(0, len(files), chunk_rows))

    def scan_failures(self, chunk_rows: int) -> Iterator[list[FailureRow]]:
        """Yield the failures of the scan that the catalog does not hold, at most ``chunk_rows`` at a time."""
        con = self._con.cursor()
        for first in range(0, self.counts.new_failures + self.counts.known_failures, chunk_rows):
            yield embedding.new_scan_failures(con, first, chunk_rows)

    def known(self, digests: Sequence[str]) -> set[str]:
        """Return which contents have a vector in the space."""
        return self._known.present(digests)

    def learn(self, digests: Sequence[str]) -> None:
        """Remember contents that get a vector in this run: later files with the same bytes need no decoding."""
        self._known.add(digests)

    def claim_renamed(self, digests: Sequence[str | None]) -> list[int | None]:
        """Find new files that are missing items under another name.

        Args:
            digests: the contents of the files; None for a file that cannot be renamed.

        Returns:
            For every file a missing item with the same content, or None. Each item is returned once.
        """
        return self._missing.claim(digests)

    def update_items(self, writer: Writer, *, overrides_metadata: bool, stated: Collection[str] = ()) -> int:
        """Mark items present whose files were found again, and optionally take over the scan's metadata.

        Args:
            writer: the writer of the store.
            overrides_metadata: whether the scan's label, split and group replace those that are stored.
            stated: which of these the source has a column for.

        Returns:
            How many stored values stay because their cells are empty.
        """
        with writer.transaction() as con:
            kept = embedding.update_metadata(con, stated) if overrides_metadata else 0
            embedding.mark_present(con)
        return kept

    def mark_missing(self, writer: Writer) -> int:
        """Mark the items whose files were not found as not present, and return how many there are.

        Failures of files that are gone are forgotten.
        """
        embedding.remove_missing_items(self._con, self._missing.claimed())
        with writer.transaction() as con:
            embedding.forget_gone_failures(con)
            notices = embedding.mark_missing(con)
        writer.notify(notices)
        return embedding.missing_count(self._con)

    def write_tables(self, folder: Path) -> None:
        """Write the missing items and the contents with a vector as files of a plan of parts."""
        inbox_queries.write_missing(self._con, folder / MISSING)
        (folder / KNOWN).write_bytes(self._known_before.tobytes())

    def close(self) -> None:
        """Drop the plan's tables."""
        embedding.drop_tables(self._con)


def build_plan(
    storage: Storage,
    space: str,
    scan: Scan,
    *,
    source: Source,
    decoder_version: str,
    modality: Modality,
    order: ReadOrder = ReadOrder.SCAN,
) -> EmbedPlan:
    """Compare a scan with the catalog chunk by chunk, in the memory of one chunk.

    Args:
        storage: the store.
        space: the key of the space that is filled.
        scan: what the source finds; it is read once.
        source: what is scanned: the folders, archives and tables that it covers completely.
        decoder_version: failures of another version are tried again.
        modality: what the space embeds.
        order: in which the files are read.
    """
    counts: Counter[str] = Counter()
    with storage.catalog.read() as con:
        embedding.create_tables(con)
        while chunk := list(islice(scan, CHUNK_ROWS)):
            counts["scanned"] += len(chunk)
            if refs := [r for r in chunk if isinstance(r, ImageRef)]:
                first = counts["todo"]
                counts.update(embedding.compare_refs(con, refs, space=space, decoder=decoder_version, first=first))
            if failures := [f for f in chunk if isinstance(f, Failure)]:
                first = counts["new"] + counts["known"]
                new, known = embedding.add_scan_failures(con, failures, decoder=decoder_version, first=first)
                counts.update(new=new, known=known)
        embedding.find_missing_items(
            con, source.roots, source.archives, source.tables, modality=modality, decoder=decoder_version
        )
        known_contents, missing = np.empty(0, "S16"), MissingItems(np.empty(0, "S16"), np.empty(0, np.int64))
        if counts["todo"]:
            known_contents = embedding.known_contents(con, space)
            missing = MissingItems(*embedding.missing_contents(con))
            if order is ReadOrder.SPREAD:
                embedding.spread_todo(con)
    return EmbedPlan(
        storage,
        PlanCounts(
            scanned=counts["scanned"],
            todo=counts["todo"],
            unchanged=counts["unchanged"],
            known_failures=counts["failed"] + counts["known"],
            new_failures=counts["new"],
            skipped=dict(scan.summary.skipped),
            unit=source.unit,
        ),
        known_contents,
        missing,
    )
