"""Results of searches and SQL queries: sequences that convert to tables and show themselves in a notebook."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from embedstore.storage import durable_files
from embedstore.storage.column_names import shown_names
from embedstore.tables import Record, Table, to_json_value
from embedstore.types import Hit

if TYPE_CHECKING:
    from embedstore.reports.item_images import ImageReader
    from embedstore.search.planner import SearchPlan

HIT_FIELDS = tuple(f.name for f in dataclasses.fields(Hit) if f.name != "columns")


@dataclass(frozen=True)
class Hits(Table, Sequence[Hit]):
    """The hits of a search, best first.

    Attributes:
        hits: The hits.
        query: The query in words.
        space: The name of the space that was searched.
        seconds: Wall time of the search, without the time to load a backbone.
        plan: How the hits were found, with estimated and measured milliseconds.
        read_images: Reads the images that a contact sheet shows.
        notes: Messages for the user, e.g. that an index was ignored.
    """

    hits: tuple[Hit, ...]
    query: str
    space: str
    seconds: float
    plan: SearchPlan
    read_images: ImageReader = dataclasses.field(repr=False, compare=False)
    notes: tuple[str, ...] = ()

    @overload
    def __getitem__(self, i: int) -> Hit: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[Hit]: ...
    def __getitem__(self, i: int | slice) -> Hit | Sequence[Hit]:
        return self.hits[i]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def to_json(self) -> dict[str, Any]:
        """Return plain values: ``{"query", "space", "seconds", "notes", "hits": [{"rank", "score", …}]}``."""
        return {
            "query": self.query,
            "space": self.space,
            "seconds": round(self.seconds, 4),
            "notes": list(self.notes),
            "hits": self.records(),
        }

    def records(self) -> list[Record]:
        """Return one flat mapping per hit, with the user's own columns next to ours.

        A column of the user's with the name of one of ours (rank, score, …) is called ``items.NAME``.
        """
        return [{name: to_json_value(value) for name, value in record.items()} for record in self.typed_records()]

    def typed_records(self) -> list[Record]:
        """Return the records with values as the catalog has them: dates, decimals and others are not text."""
        columns = self.hits[0].columns if self.hits else {}
        names = shown_names(columns, HIT_FIELDS)
        return [_hit_record(hit, names) for hit in self.hits]

    def html(self) -> str:
        """Return a contact sheet as one self-contained page."""
        from embedstore.reports import contact_sheet  # it imports Pillow

        return contact_sheet.contact_sheet_html(self.hits, self.query, self.read_images)

    def png(self, path: str | Path) -> None:
        """Write a contact sheet as a PNG file. Missing parent folders are created."""
        from embedstore.reports import contact_sheet  # it imports Pillow

        durable_files.write_output(Path(path), contact_sheet.contact_sheet_png(self.hits, self.read_images))

    def _repr_html_(self) -> str:
        from embedstore.reports import contact_sheet  # it imports Pillow

        return contact_sheet.contact_sheet_fragment(self.hits, self.read_images)


@dataclass(frozen=True)
class SqlResult(Table, Sequence[tuple[Any, ...]]):
    """The rows of an SQL query.

    Attributes:
        column_names: The names of the columns; of two with the same name the second becomes ``NAME_1``.
        rows: The values, one tuple per row.
    """

    column_names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @overload
    def __getitem__(self, i: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, i: slice) -> Sequence[tuple[Any, ...]]: ...
    def __getitem__(self, i: int | slice) -> tuple[Any, ...] | Sequence[tuple[Any, ...]]:
        return self.rows[i]

    def __len__(self) -> int:
        return len(self.rows)

    def to_json(self) -> list[dict[str, Any]]:
        """Return one JSON object per row."""
        return [{name: to_json_value(value) for name, value in record.items()} for record in self.records()]

    def records(self) -> list[Record]:
        """Return one mapping per row, with values as DuckDB gives them."""
        return [dict(zip(self.column_names, row, strict=True)) for row in self.rows]


def _hit_record(hit: Hit, names: Mapping[str, str]) -> Record:
    """Return a hit as one flat mapping.

    Args:
        hit: the hit.
        names: the name in the record of each of the user's own columns.
    """
    record = {name: getattr(hit, name) for name in HIT_FIELDS}
    record["score"] = round(hit.score, 6)
    return record | {names[column]: value for column, value in hit.columns.items()}
