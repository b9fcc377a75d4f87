"""The files of contents whose vectors were lost, as a source: what a repair embeds again, and nothing beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from embedstore.sources.local_files import stat_file
from embedstore.sources.plain import PlainFileSource
from embedstore.storage.sql import decode_path, object_array
from embedstore.storage.storage import Storage
from embedstore.types import Failure, ImageRef


class MissingVectorsSource(PlainFileSource):
    """The present items of some contents.

    Args:
        storage: the store.
        contents: digests, 32 hexadecimal digits each.
    """

    description = "vectors that were lost"
    skipped = 0

    def __init__(self, storage: Storage, contents: Sequence[str]) -> None:
        rows = {"content": object_array(contents)}  # noqa: F841 - read by SQL
        with storage.catalog.read() as con:
            self._items = con.execute(
                "SELECT uri, path, label, split, group_id FROM items WHERE present "
                "AND content IN (SELECT content::UUID FROM rows) ORDER BY item"
            ).fetchall()

    def __len__(self) -> int:
        return len(self._items)

    def scan(self) -> Iterator[ImageRef | Failure]:
        """Every file as it is now."""
        for uri, path, label, split, group in self._items:
            yield stat_file(decode_path(uri, path), label, split, group)
