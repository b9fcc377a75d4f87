"""Folders, files and globs given together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.errors import SourceError
from embedstore.sources.files import Files, Glob
from embedstore.sources.folder import Folder
from embedstore.sources.folder_labels import NO_SPLIT
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
        """Yield every file once, add up what the parts skipped, and check that all parts are in splits or none is."""
        in_split: dict[bool, str] = {}  # whether an image is in a split: the part that has the first such image
        for i, part in enumerate(self._parts):
            preferred = [p for j, p in enumerate(self._parts) if _takes_precedence(p, part, earlier=j < i)]
            scan = part.scan()
            for entry in scan:
                if not any(p.contains(entry.path) for p in preferred):
                    if isinstance(entry, ImageRef):
                        in_split.setdefault(entry.split is not None, part.description)
                    yield entry
            summary.skipped.update(scan.summary.skipped)
        if len(in_split) > 1:
            raise SourceError(f"{in_split[False]} is given with {in_split[True]}, which names splits: {NO_SPLIT}")


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
