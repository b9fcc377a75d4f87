"""Images that a program holds in memory, next to files that it names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.sources.locations import stat_location
from embedstore.sources.source import LocationSource, Scan
from embedstore.types import Failure, ImageRef

NamedImage = tuple[str, bytes | None]  # its name, and its encoded bytes, or None where the name is a path or uri


class MemoryImages(LocationSource):
    """Images in memory and files, in the order in which they are given.

    Args:
        images: the images; names of images in memory are unique.
    """

    description = "images in memory"

    def __init__(self, images: Sequence[NamedImage]) -> None:
        self._images = images
        self._data = {name: data for name, data in images if data is not None}

    def scan(self) -> Scan:
        """Start a pass over every image."""
        return Scan(
            stat_location(name) if data is None else ImageRef(name, name, len(data), 0) for name, data in self._images
        )

    def read(self, refs: Sequence[ImageRef]) -> Iterator[bytes | Failure]:
        """Yield the bytes of every image, or why they cannot be read."""
        for ref in refs:
            if ref.uri in self._data:
                yield self._data[ref.uri]
            else:
                yield from super().read([ref])
