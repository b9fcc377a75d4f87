"""Sources of different kinds given together, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from embedstore.sources.archives.source import ArchiveSource
from embedstore.sources.source import LocationSource, Scan, ScanSummary, Source
from embedstore.types import Failure, ImageRef


class ChainedSource(LocationSource):
    """Several sources whose files differ, in the order given.

    Args:
        parts: at least one; the archives are one part, and only they may have columns.
    """

    def __init__(self, parts: Sequence[Source]) -> None:
        self._parts = tuple(parts)
        self._described = next((p for p in parts if isinstance(p, ArchiveSource)), None)
        self.description = ", ".join(part.description for part in parts)
        self.roots: tuple[str, ...] = tuple(root for part in parts for root in part.roots)
        self.archives: tuple[str, ...] = tuple(archive for part in parts for archive in part.archives)
        self.tables: tuple[tuple[str, str], ...] = tuple(table for part in parts for table in part.tables)

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about the reading of the parts."""
        return [notice for part in self._parts for notice in part.notices]

    @property
    def columns(self) -> dict[str, str]:
        """The columns of the archives; complete after a scan."""
        return self._described.columns if self._described else {}

    def scan(self) -> Scan:
        """Start a pass over the parts in the order given."""
        summary = ScanSummary()
        return Scan(self._entries(summary), summary)

    def write_columns(self, parquet: Path) -> None:
        """Write the columns of the archives."""
        if self._described:
            self._described.write_columns(parquet)

    def _entries(self, summary: ScanSummary) -> Iterator[ImageRef | Failure]:
        """Yield the files of every part, and add up what the parts skipped."""
        for part in self._parts:
            scan = part.scan()
            yield from scan
            summary.skipped.update(scan.summary.skipped)
