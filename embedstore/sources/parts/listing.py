"""The pages and moments of a file, kept in the store: a rescan of a file that did not change does not open it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from embedstore.errors import StoreError
from embedstore.media.extraction.pdf import MAX_PAGES
from embedstore.sources.parts.part_uri import Moment, Page
from embedstore.storage.durable_files import atomic_write
from embedstore.types import ImageRef

FORMAT = 1
MAX_SECONDS = 1e9  # that a uri can hold
Parts = list[Page] | list[Moment]


class PartListings:
    """The listings of one scan.

    Args:
        folder: the folder of the store's listings; None keeps none.
        wanted: what is listed, such as ``pages``.
    """

    def __init__(self, folder: Path | None, wanted: str) -> None:
        self._folder, self._wanted = folder, wanted

    def load(self, ref: ImageRef) -> Parts | None:
        """Return what was kept for this state of a file; None if there is nothing that is whole."""
        if self._folder is None:
            return None
        with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
            content = json.loads(self._file(ref).read_text(encoding="utf-8"))
            if content["file"] == self._head(ref):
                return _parts(content)
        return None

    def save(self, ref: ImageRef, parts: Parts) -> None:
        """Keep a listing; a store that cannot be written goes without."""
        if self._folder is None:
            return
        moments = [part.seconds for part in parts if isinstance(part, Moment)]
        content = {"file": self._head(ref)} | ({"moments": moments} if moments else {"pages": len(parts)})
        with suppress(OSError, StoreError):
            self._folder.mkdir(exist_ok=True)
            with atomic_write(self._file(ref)) as out:
                out.write(json.dumps(content).encode())

    def _head(self, ref: ImageRef) -> list[Any]:
        """Return which state of which file a listing is of."""
        return [FORMAT, ref.uri, self._wanted, ref.size, ref.mtime_ns]

    def _file(self, ref: ImageRef) -> Path:
        """Return the file that holds a listing."""
        name = sha256(f"{ref.uri}#{self._wanted}".encode()).hexdigest()[:32]
        return (self._folder or Path()) / f"{name}.json"


def _parts(content: Mapping[str, Any]) -> Parts | None:
    """Return what a listing holds; None if it holds what no file has."""
    if "pages" in content:
        count = int(content["pages"])
        return [Page(n) for n in range(1, count + 1)] if 0 < count <= MAX_PAGES else None
    times = [float(t) for t in content["moments"]]
    return [Moment(t) for t in times] if all(0 <= t < MAX_SECONDS for t in times) else None
