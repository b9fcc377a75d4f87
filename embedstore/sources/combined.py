"""Folders, files and globs given together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.sources.files import Files, Glob
from embedstore.sources.folder import Folder
from embedstore.sources.source import LocationSource, Scan, ScanSummary
from embedstore.types import Failure, ImageRef

LocalSource = Files | Glob | Folder


class CombinedSource(LocationSource):
    """Several sources as one; a file that two of them contain comes once, from the more specific one.

    Args:
        parts: at least two.
    """

    def __init__(self, parts: Sequence[LocalSource]) -> None:
        self._parts = tuple(parts)
        self.description = ", ".join(p.description for p in parts)
        self.roots: tuple[str, ...] = tuple(root for p in parts for root in p.roots)

    def scan(self) -> Scan:
        """Start a pass over the parts in the order given."""
        summary = ScanSummary()
        return Scan(self._entries(summary), summary)

    def _entries(self, summary: ScanSummary) -> Iterator[ImageRef | Failure]:
        """Yield every file once, and add up what the parts skipped."""
        for i, part in enumerate(self._parts):
            preferred = [p for j, p in enumerate(self._parts) if _takes_precedence(p, part, earlier=j < i)]
            scan = part.scan()
            for entry in scan:
                if not any(p.contains(entry.path) for p in preferred):
                    yield entry
            summary.skipped.update(scan.summary.skipped)


def _takes_precedence(one: LocalSource, other: LocalSource, *, earlier: bool) -> bool:
    """Return whether ``one`` gives a file that both contain: the more specific one does, of two globs the earlier.

    Two folders never contain the same file: a folder within another was left out, unless only a link leads there, and
    neither a folder nor a glob follows links.
    """
    if isinstance(one, Files):
        return not isinstance(other, Files)
    if isinstance(one, Folder):
        return False
    if isinstance(other, Glob):
        return earlier
    return isinstance(other, Folder) and one.reaches_without_links(other.root)
