"""Every image that a store knows, as a source: what another space of the same store is filled from."""

from __future__ import annotations

from collections.abc import Iterator

from embedstore.sources.local_files import stat_file
from embedstore.sources.plain import PlainFileSource
from embedstore.storage.sql import decode_path
from embedstore.storage.storage import Storage
from embedstore.types import Failure, ImageRef

_CHUNK = 32768

_KNOWN = """
CREATE OR REPLACE TABLE memory.main.present AS
SELECT row_number() OVER (ORDER BY item) - 1 AS n, uri, path, label, split, group_id
FROM items JOIN contents USING (content) WHERE present AND bytes IS DISTINCT FROM 0
"""


class StoreItemsSource(PlainFileSource):
    """The present items whose content came from a file.

    Args:
        storage: the store.
    """

    description = "the images of this store"
    skipped = 0

    def __init__(self, storage: Storage) -> None:
        self._con = storage.catalog.scratch.cursor()
        with storage.catalog.read() as con:
            con.execute(_KNOWN)
            self._rows = int(con.execute("SELECT count(*) FROM memory.main.present").fetchall()[0][0])

    def __len__(self) -> int:
        return self._rows

    def scan(self) -> Iterator[ImageRef | Failure]:
        """Every file as it is now."""
        for first in range(0, self._rows, _CHUNK):
            rows = self._con.execute(
                "SELECT uri, path, label, split, group_id FROM memory.main.present WHERE n >= ? AND n < ? ORDER BY n",
                [first, first + _CHUNK],
            ).fetchall()
            for uri, path, label, split, group in rows:
                yield stat_file(decode_path(uri, path), label, split, group)
        self._con.execute("DROP TABLE IF EXISTS memory.main.present")
