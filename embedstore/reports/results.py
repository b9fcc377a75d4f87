"""What the Python face returns: lists that convert to tables and show themselves in a notebook."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from embedstore.errors import MissingExtra, QueryError
from embedstore.storage import durable_files
from embedstore.types import Hit

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True)
class Hits(Sequence[Hit]):
    """The answer of a search, best first.

    Attributes:
        hits: the hits. query: what was asked, in words. space: the name of the space searched.
        seconds: wall time of the search, without loading a backbone.
        plan: how they were found: way, counts, estimated and measured milliseconds.
        notes: what a person should know, e.g. an index that was passed by.
    """

    hits: tuple[Hit, ...]
    query: str
    space: str
    seconds: float
    plan: dict[str, Any] = dataclasses.field(default_factory=dict)
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
        """Plain values: ``{"query", "space", "seconds", "hits": [{"rank", "score", "item", "uri", …}]}``."""
        return {
            "query": self.query,
            "space": self.space,
            "seconds": round(self.seconds, 4),
            "notes": list(self.notes),
            "hits": [_flat(h) for h in self.hits],
        }

    def rows(self) -> list[dict[str, Any]]:
        """One flat mapping a hit, the user's own columns beside ours."""
        return [_flat(h) for h in self.hits]

    def save(self, path: str | Path) -> None:
        """Write the hits as ``.csv``, ``.parquet`` or ``.jsonl``; see :func:`save_rows`."""
        save_rows(self.rows(), Path(path))

    def html(self) -> str:
        """A contact sheet as one self-contained page."""
        from embedstore.reports import contact_sheet  # it imports Pillow

        return contact_sheet.contact_sheet_html(self.hits, self.query)

    def png(self, path: str | Path) -> None:
        """A contact sheet as a PNG file."""
        from embedstore.reports import contact_sheet  # it imports Pillow

        contact_sheet.contact_sheet_png(self.hits, Path(path))

    def _repr_html_(self) -> str:
        from embedstore.reports import contact_sheet  # it imports Pillow

        return contact_sheet.contact_sheet_fragment(self.hits)

    def df(self) -> pd.DataFrame:
        """As a pandas DataFrame, one row a hit."""
        return to_dataframe([_flat(h) for h in self.hits])

    def arrow(self) -> pa.Table:
        """As a pyarrow Table, one row a hit."""
        return to_arrow_table([_flat(h) for h in self.hits])


@dataclass(frozen=True)
class SqlResult(Sequence[tuple[Any, ...]]):
    """The answer of a query in SQL.

    Attributes:
        names: of the columns. rows: their values.
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
        """One object a row."""
        return [{n: to_json_value(v) for n, v in zip(self.column_names, row, strict=True)} for row in self.rows]

    def df(self) -> pd.DataFrame:
        """As a pandas DataFrame."""
        return to_dataframe([dict(zip(self.column_names, row, strict=True)) for row in self.rows])

    def arrow(self) -> pa.Table:
        """As a pyarrow Table."""
        return to_arrow_table([dict(zip(self.column_names, row, strict=True)) for row in self.rows])


def save_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as a table, whole or not at all.

    Args:
        rows: mappings with the same keys. path: ``.csv``, ``.parquet`` or ``.jsonl``.

    Raises:
        QueryError: another suffix, or nothing to write.
    """
    if path.suffix not in (".csv", ".parquet", ".jsonl"):
        raise QueryError(f"results are written as .csv, .parquet or .jsonl, not {path.name!r}")
    if not rows:
        raise QueryError(f"nothing was found; {path} is not written")
    path.parent.mkdir(parents=True, exist_ok=True)
    with durable_files.atomic_path(path) as temporary:
        if path.suffix == ".csv":
            with temporary.open("w", newline="", encoding="utf-8") as f:
                table_writer = csv.DictWriter(f, list(rows[0]))
                table_writer.writeheader()
                table_writer.writerows(rows)
        else:
            lines = (json.dumps({k: to_json_value(v) for k, v in row.items()}, ensure_ascii=False) for row in rows)
            temporary.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            if path.suffix == ".parquet":
                _as_parquet(temporary)


def _as_parquet(path: Path) -> None:
    """Turn JSON lines into Parquet, in place; a column's type is that of its values."""
    from embedstore.storage import connection

    made = path.with_suffix(".parquet.tmp")
    with connection.connect() as con:
        con.read_json(str(path), format="newline_delimited", sample_size=-1).write_parquet(str(made))
    made.replace(path)


def to_json_value(value: Any) -> Any:
    """A value that JSON can hold: NaN and infinity are null, dates and other types are text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, dict):
        return {str(k): to_json_value(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(v) for v in value]
    return str(value)


def to_dataframe(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a pandas DataFrame.

    Raises:
        MissingExtra: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as e:
        raise MissingExtra("pandas is not installed; run `pip install embedstore[frames]`") from e
    return pd.DataFrame(rows)


def to_arrow_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as a pyarrow Table.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
    except ImportError as e:
        raise MissingExtra("pyarrow is not installed; run `pip install embedstore[frames]`") from e
    return pa.Table.from_pylist(rows)


def _flat(hit: Hit) -> dict[str, Any]:
    """A hit as one row; the user's own columns stand beside ours."""
    row = {f.name: getattr(hit, f.name) for f in dataclasses.fields(hit) if f.name != "columns"}
    row["score"] = round(hit.score, 6)
    return row | {k: to_json_value(v) for k, v in hit.columns.items()}
