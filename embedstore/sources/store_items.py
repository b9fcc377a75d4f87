"""The items that a store knows, as a source: what another space is filled from, and what a repair embeds again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.modality import Modality
from embedstore.sources.locations import stat_location
from embedstore.sources.source import LocationSource, Scan
from embedstore.storage.queries import source_items
from embedstore.storage.storage import Storage
from embedstore.types import Failure, ImageRef

CHUNK_ROWS = 32768


class StoreItemsSource(LocationSource):
    """The present items of a store.

    Args:
        storage: the store.
        contents: take the items with these contents only, digests of 32 hexadecimal digits; by default all items
            whose content came from a file.
        modality: take the items of this modality.
    """

    unit = "item"

    def __init__(
        self, storage: Storage, contents: Sequence[str] | None = None, *, modality: Modality = Modality.IMAGE
    ) -> None:
        self.description = f"the {modality.plural} of this store" if contents is None else "vectors that were lost"
        self._con = storage.catalog.scratch.cursor()
        with storage.catalog.read() as con:
            self._count = source_items.stage_present_items(con, contents, modality=modality)

    def __len__(self) -> int:
        return self._count

    def scan(self) -> Scan:
        """Start a pass over the files as they are now; a source of this kind is scanned once."""
        return Scan(self._entries())

    def _entries(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every file, or why there is none."""
        for first in range(0, self._count, CHUNK_ROWS):
            for path, label, split, group in source_items.staged_items(self._con, first, CHUNK_ROWS):
                yield stat_location(path, label, split, group)
        source_items.drop_staged_items(self._con)
