"""What an embedding run needs of a source, and what sources of local files have in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from embedstore.errors import ItemError
from embedstore.media.image.crop import Box, join_crop
from embedstore.sources.locations import read_location
from embedstore.sources.parts.part_uri import parse_part_uri
from embedstore.types import Failure, ImageRef


@dataclass
class ScanSummary:
    """What a scan left out.

    Attributes:
        skipped: how many names of each kind: litter, such as ``.DS_Store``, hidden names, suffixes of other files.
    """

    skipped: Counter[str] = field(default_factory=Counter)


class Scan(Iterator[ImageRef | Failure]):
    """One pass over a source.

    Args:
        entries: the references and failures.
        summary: filled while ``entries`` is read; complete once it has ended.
    """

    def __init__(self, entries: Iterator[ImageRef | Failure], summary: ScanSummary | None = None) -> None:
        self._entries = entries
        self.summary = summary or ScanSummary()

    def __next__(self) -> ImageRef | Failure:
        return next(self._entries)


class Source(Protocol):
    """Where images come from.

    Attributes:
        description: one line for the run's record.
        roots: absolute folders that the source covers completely: an item below one that a scan does not find is gone.
        archives: archives that the source covers completely, likewise.
        tables: rows of tables that the source covers completely, likewise: what their uris begin with, and what they
            contain.
        columns: the user's own columns, name to DuckDB type; asked for after the scan.
        overrides_metadata: whether its label, split and group replace those that the store holds.
        stated_columns: which of ``label``, ``split`` and ``group`` it has a column for.
        notices: what a person should know about the reading, one sentence each; complete after a scan.
        unit: what a person calls one of the things that a scan finds: a ``file``, or a ``row`` of a table.
    """

    @property
    def description(self) -> str: ...  # noqa: D102
    @property
    def roots(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def archives(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def tables(self) -> tuple[tuple[str, str], ...]: ...  # noqa: D102
    @property
    def columns(self) -> dict[str, str]: ...  # noqa: D102
    @property
    def overrides_metadata(self) -> bool: ...  # noqa: D102
    @property
    def stated_columns(self) -> Collection[str]: ...  # noqa: D102
    @property
    def notices(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102

    def scan(self) -> Scan:
        """Start a pass over every image, in the same order every time and in bounded memory."""

    def read(self, refs: Sequence[ImageRef]) -> Iterator[bytes | Failure]:
        """Yield for every reference the bytes of its file, or why they cannot be read. Safe on many threads."""

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` and the user's own columns, typed; called only where there are such columns."""


class OwnColumns(Protocol):
    """The user's own columns of a source.

    Attributes:
        columns: name to DuckDB type.
    """

    @property
    def columns(self) -> dict[str, str]: ...  # noqa: D102

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` as the store knows it and the columns, typed."""


class LocationSource:
    """A source of files that their uri locates; by itself it has no columns and covers no folder completely."""

    _own_columns: OwnColumns | None = None

    overrides_metadata = False  # what a user says of an item later outweighs the name of its folder
    roots: tuple[str, ...] = ()
    stated_columns: tuple[str, ...] = ()
    archives: tuple[str, ...] = ()
    tables: tuple[tuple[str, str], ...] = ()
    unit = "file"

    @property
    def columns(self) -> dict[str, str]:
        """The user's own columns, name to DuckDB type; complete after a scan."""
        return self._own_columns.columns if self._own_columns else {}

    @property
    def notices(self) -> Sequence[str]:
        """What a person should know about the reading."""
        return ()

    def read(self, refs: Sequence[ImageRef]) -> Iterator[bytes | Failure]:
        """Yield the bytes of every file, or why they cannot be read."""
        last_file, photo = "", b""  # crops of one photo come in a row
        for ref in refs:
            part = parse_part_uri(ref.path)
            try:
                if part is None or not isinstance(part.part, Box):
                    yield read_location(ref.path)
                    continue
                if part.file != last_file:
                    photo = read_location(part.file)
                    last_file = part.file
                yield join_crop(photo, part.part)
            except ItemError as e:
                yield Failure.from_ref(ref, e.reason, e.detail)

    def write_columns(self, parquet: Path) -> None:
        """Write ``uri`` as the store knows it and the user's own columns, typed; nothing where there are none."""
        if self._own_columns:
            self._own_columns.write_columns(parquet)
