"""Folders, files and globs given together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.records import Failure, ImageRef
from embedstore.source.folder import Folder
from embedstore.source.listed import Files, Glob
from embedstore.source.plain import Plain

Part = Files | Glob | Folder
_RANK = {Files: 0, Glob: 1, Folder: 2}  # the more exactly a file was named, the better its label is known


class Several(Plain):
    """Several sources as one; a file that two of them name comes once, from the one that names it more exactly.

    Args:
        parts: at least two.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
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
            before = [p for j, p in enumerate(self._parts) if (_RANK[type(p)], j) < (_RANK[type(part)], i)]
            for found in part.scan():
                if not any(p.claims(found.path) for p in before):
                    yield found
