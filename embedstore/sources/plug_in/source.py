"""What a plug-in reads, as a source."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from embedstore.errors import EmbedstoreError, PluginError, SourceError, SourceNotFound
from embedstore.sources.columns import CollectedColumns
from embedstore.sources.folder_labels import sidecar_split
from embedstore.sources.local_files import existing_path
from embedstore.sources.plug_in.protocol import SourceItem, SourcePlugIn
from embedstore.sources.plug_in.registry import owns_item, source_plug_in
from embedstore.sources.source import LocationSource, Scan
from embedstore.sources.uris import scheme_of
from embedstore.text_form import clean_name
from embedstore.types import Failure, FailureReason, ImageRef


def open_plug_in(names: Sequence[str], *, labels: bool, splits: bool) -> PlugInSource | None:
    """Return the names as the source of a plug-in; None if no plug-in reads them.

    Args:
        names: what a user named.
        labels: take the labels that it states.
        splits: take the splits that it states.

    Raises:
        SourceNotFound: if a file does not exist.
        SourceError: if a plug-in reads some of the names only.
        PluginError: if a plug-in cannot be loaded.
    """
    found = [source_plug_in(name) for name in names]
    plug_in = next((p for p in found if p is not None), None)
    if plug_in is None:
        return None
    for name, other in zip(names, found, strict=True):
        if other is not plug_in:
            raise SourceError(
                f"{names[found.index(plug_in)]} is read by the plug-in {plug_in.name!r} and {name} is not; embed them "
                "one after the other"
            )
    return PlugInSource(plug_in, names, labels=labels, splits=splits)


class PlugInSource(LocationSource):
    """The items of the names that a plug-in reads.

    Args:
        plug_in: the plug-in.
        names: the names of its schemes, or of files with its suffixes.
        labels: take the labels that it states.
        splits: take the splits that it states.

    Raises:
        SourceNotFound: if a file does not exist.
    """

    def __init__(
        self, plug_in: SourcePlugIn, names: Sequence[str], *, labels: bool = True, splits: bool = True
    ) -> None:
        self._plug_in = plug_in
        self._labels, self._splits = labels, splits
        self._names = [name if scheme_of(name) else _existing_file(name) for name in names]
        self._own_columns = self._collected = CollectedColumns()
        self.description = self._names[0] if len(names) == 1 else f"{len(names)} sources, first {self._names[0]}"
        self.roots: tuple[str, ...] = tuple(name.rstrip("/") for name in self._names if scheme_of(name))
        self.tables: tuple[tuple[str, str], ...] = tuple((f"{n}#", "#") for n in self._names if not scheme_of(n))

    def scan(self) -> Scan:
        """Start a pass over the items of every name."""
        return Scan(self._entries())

    def _entries(self) -> Iterator[ImageRef | Failure]:
        """Yield the reference of every item; the second item of a uri is a failure."""
        seen: set[int] = set()  # hashes: uris would be most of the memory of a scan
        for name in self._names:
            for item in self._items(name):
                if hash(item.uri) in seen:
                    detail = "an earlier item of the source has the same uri"
                    uri = f"{item.uri}#{len(seen)}"
                    yield Failure(uri, uri, item.size, item.version, FailureReason.SUPERSEDED, detail)
                    continue
                seen.add(hash(item.uri))
                yield self._reference(item)

    def _items(self, name: str) -> Iterator[SourceItem]:
        """Yield what the plug-in finds; raise what it raises as an error of the source."""
        try:
            for item in self._plug_in.scan(name):
                if not isinstance(item, SourceItem) or not owns_item(self._plug_in, item.uri):
                    raise PluginError(
                        f"the source plug-in {self._plug_in.name!r} gives {str(item)[:80]!r}, which is not an item "
                        "with a uri of its own; repair or uninstall its package"
                    )
                yield item
        except EmbedstoreError:
            raise
        except FileNotFoundError as e:
            raise SourceNotFound(f"{name} does not exist: {e}") from e
        except Exception as e:  # whatever the code of a plug-in raises
            text = " ".join(f"{type(e).__name__}: {e}".split())
            raise SourceError(f"{name} cannot be listed by the source plug-in {self._plug_in.name!r}: {text}") from e

    def _reference(self, item: SourceItem) -> ImageRef:
        """Return the reference of an item, and keep its columns."""
        self._collected.add(item.uri, item.columns)
        return ImageRef(
            item.uri,
            item.uri,
            int(item.size),
            int(item.version),
            clean_name(item.label) if self._labels else None,
            sidecar_split(item.uri, item.split) if self._splits else None,
            clean_name(item.group),
        )


def _existing_file(name: str) -> str:
    """Return the absolute path of a file; raise SourceNotFound if there is none."""
    path = existing_path(os.path.expanduser(name))  # noqa: PTH111 - Path drops the trailing components
    if not Path(path).is_file():
        raise SourceNotFound(f"{name} does not exist (looked in {Path.cwd()})")
    return os.path.abspath(path)  # noqa: PTH100
