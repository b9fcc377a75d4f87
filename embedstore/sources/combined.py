"""Folders, files and globs given together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.sources.files import Files, Glob
from embedstore.sources.folder import Folder
from embedstore.sources.plain import PlainFileSource
from embedstore.types import Failure, ImageRef

LocalSource = Files | Glob | Folder


class CombinedSource(PlainFileSource):
    """Several sources as one; a file that two of them name comes once, from the one that names it more exactly.

    Args:
        parts: at least two.
    """

    def __init__(self, parts: Sequence[LocalSource]) -> None:
        self._parts = tuple(parts)
        self.description = ", ".join(p.description for p in parts)
        self.roots: tuple[str, ...] = tuple(root for p in parts for root in p.roots)

    @property
    def skipped(self) -> int:
        """Operating-system litter that the last scan passed over."""
        return sum(p.skipped for p in self._parts)

    def scan(self) -> Iterator[ImageRef | Failure]:
        """The parts in the order given."""
        for i, part in enumerate(self._parts):
            before = [p for j, p in enumerate(self._parts) if _comes_before(p, part, earlier=j < i)]
            for found in part.scan():
                if not any(p.contains(found.path) for p in before):
                    yield found


def _comes_before(one: LocalSource, other: LocalSource, *, earlier: bool) -> bool:
    """Of a file that both name, ``one`` gives it: the one that names it more exactly, of two globs the earlier.

    Two folders never name one file: a folder within another was left out, unless only a link leads there, and
    neither a folder nor a glob follows links.
    """
    if isinstance(one, Files):
        return not isinstance(other, Files)
    if isinstance(one, Folder):
        return False
    if isinstance(other, Glob):
        return earlier
    return isinstance(other, Folder) and one.reaches_without_links(other.root)
