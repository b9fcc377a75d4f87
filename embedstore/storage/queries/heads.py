"""Queries of the tables ``heads`` and ``predictions``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import numpy as np
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged
from embedstore.json_objects import parse_json_object
from embedstore.storage.queries.streams import StreamTables
from embedstore.storage.sql import fetch_value, object_array, scratch_tables, utc_now

NO_LABEL = "none"  # the name under which items without a label are counted


def head_rows(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str, str, dict[str, Any], datetime]]:
    """Return ``(name, space key, label, kind, metadata, created)`` of every head, oldest first.

    Raises:
        StoreDamaged: if the catalog does not describe a head.
    """
    query = "SELECT head, space, label, kind, facts, created FROM heads ORDER BY created, head"
    return [_head_row(row) for row in con.execute(query).fetchall()]


def _head_row(row: tuple[Any, ...]) -> tuple[str, str, str, str, dict[str, Any], datetime]:
    """Return a row of the table with its metadata parsed; the values may be anybody's."""
    *texts, facts, created = row
    try:
        metadata = parse_json_object(facts)
        if not all(isinstance(text, str) for text in (*texts, metadata["digest"])) or not isinstance(created, datetime):
            raise TypeError("a value has another type")
    except (ValueError, TypeError, KeyError) as e:
        raise StoreDamaged(
            f"the catalog does not describe head {row[0]!r:.80} ({type(e).__name__}: {e!s:.80}); "
            "restore it from a backup"
        ) from e
    name, space, label, kind = texts
    return name, space, label, kind, metadata, created


def insert_head(
    con: duckdb.DuckDBPyConnection, name: str, *, space: str, label: str, kind: str, metadata: dict[str, Any]
) -> None:
    """Insert a head in place of one of that name, whatever its case, and delete the old one's predictions."""
    delete_head(con, name)
    con.execute(
        "INSERT INTO heads BY NAME SELECT ? AS head, ? AS space, ? AS label, ? AS kind, ?::JSON AS facts, "
        "?::TIMESTAMP AS created",
        [name, space, label, kind, json.dumps(metadata), utc_now()],
    )


def delete_head(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Delete a head and its predictions, whatever the case of its name."""
    con.execute("DELETE FROM heads WHERE lower(head) = lower(?)", [name])
    con.execute("DELETE FROM predictions WHERE lower(head) = lower(?)", [name])


@dataclass(frozen=True)
class PredictionStage:
    """Predictions of the contents of a stream, held in a table of the private connection until they are written.

    Attributes:
        stream: the contents and items that are predicted.
        labels: the text of each code; None is "no label". Empty where numbers are predicted.
        table: the name of the table.
    """

    stream: StreamTables
    labels: Sequence[str | None]
    table: str
    _con: duckdb.DuckDBPyConnection

    def append(self, n: NDArray[np.int64], codes: NDArray[np.int32], scores: NDArray[np.float64]) -> None:
        """Add predictions.

        Args:
            n: int64 ``(B,)``, numbers of contents in the stream.
            codes: int32 ``(B,)``, places in :attr:`labels`.
            scores: float64 ``(B,)``, probabilities.
        """
        block = {"n": n, "code": codes, "score": scores}  # noqa: F841 - read by SQL
        self._con.execute(f"INSERT INTO {self.table} SELECT n, code, score, NULL FROM block")

    def append_numbers(self, n: NDArray[np.int64], numbers: NDArray[np.float64], reaches: NDArray[np.float64]) -> None:
        """Add predicted numbers.

        Args:
            n: int64 ``(B,)``, numbers of contents in the stream.
            numbers: float64 ``(B,)``.
            reaches: float64 ``(B,)``, how far the interval of each number reaches on either side.
        """
        block = {"n": n, "number": numbers, "reach": reaches}  # noqa: F841 - read by SQL
        self._con.execute(f"INSERT INTO {self.table} SELECT n, NULL, reach, number FROM block")


@contextmanager
def open_prediction_stage(
    con: duckdb.DuckDBPyConnection, stream: StreamTables, labels: Sequence[str | None]
) -> Iterator[PredictionStage]:
    """Open an empty stage in the private connection; its table is dropped at the end."""
    with scratch_tables(con, "predictions") as (table,):
        con.execute(f"CREATE TABLE {table} (n BIGINT, code INTEGER, score DOUBLE, number DOUBLE)")
        yield PredictionStage(stream, labels, table, con)


def replace_predictions(
    con: duckdb.DuckDBPyConnection, head: str, stage: PredictionStage
) -> tuple[int, dict[str, int]]:
    """Write staged predictions in place of what the head predicted for the same items.

    Returns:
        The number of items, and the number of rows per label, most frequent first; rows without a label count as
        :data:`NO_LABEL`. Predicted numbers are not counted.
    """
    items = stage.stream.items
    codes = {"code": np.arange(len(stage.labels), dtype=np.int32), "label": object_array(stage.labels)}  # noqa: F841 - read by SQL
    of_items = f"FROM predictions WHERE head = ? AND item IN (SELECT item FROM {items})"
    con.execute(f"DELETE {of_items}", [head])
    con.execute(
        "INSERT INTO predictions BY NAME SELECT ? AS head, i.item, "
        "coalesce(s.number::VARCHAR, c.label::VARCHAR) AS label, s.score, i.content "
        f"FROM {stage.table} s JOIN {stage.stream.contents} v USING (n) "
        f"JOIN {items} i ON i.content = v.content LEFT JOIN codes c ON c.code = s.code ORDER BY i.item, s.score DESC",
        [head],
    )
    n_items = fetch_value(con, f"SELECT count(DISTINCT item) {of_items}", [head])
    if not stage.labels:
        return n_items, {}
    counts = con.execute(
        f"SELECT coalesce(label, '{NO_LABEL}'), count(*) {of_items} GROUP BY 1 ORDER BY 2 DESC, 1", [head]
    ).fetchall()
    return n_items, dict(counts)
