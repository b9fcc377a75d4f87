"""The names ``pred.NAME`` and ``pred.NAME.score``, which filters and queries read as columns of the items.

``pred.NAME`` is the class that a head predicted and ``pred.NAME.score`` its score, NULL where the head has no
prediction for the item's current content. For a head that predicts sets of classes (several labels per item, or
conformal sets) the first is a list, the most likely class first and empty if there is none, and the second the highest
score. For a head that predicts numbers the first is a number, the second how far its interval reaches on either side,
and ``pred.NAME.low`` and ``pred.NAME.high`` are the ends of the interval. Each name becomes one fixed lookup in the
table ``predictions``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import duckdb

from embedstore.errors import UnknownColumn, did_you_mean
from embedstore.storage.column_names import ITEMS, PREDICTIONS
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.storage.sql import fetch_column
from embedstore.storage.syntax_tree import Node, parse_select


@dataclass(frozen=True)
class PredictedColumn:
    """One predicted column: the head, and ``label``, ``score``, ``low`` or ``high``."""

    head: str
    field: str

    @property
    def name(self) -> str:
        """The name of the column in a result."""
        return self.head if self.field == "label" else self.field


@dataclass(frozen=True)
class PredictingHeads:
    """The heads that a text may name.

    Attributes:
        names: every head that has predicted something.
        set_valued: those of them that predict sets of classes.
        numeric: those of them that predict numbers.
    """

    names: Collection[str] = ()
    set_valued: Collection[str] = ()
    numeric: Collection[str] = ()

    def parse(self, names: Sequence[str], *, own_column: str | None = None) -> PredictedColumn:
        """Return the column of ``[NAME]`` or ``[NAME, "score"]``, the parts that follow ``pred``.

        Args:
            names: these parts.
            own_column: a column ``pred`` of the user's, which an old store may have.

        Raises:
            UnknownColumn: if no head of that name has predicted, or the field is another one.
        """
        head = next((h for h in self.names if h.lower() == names[0].lower()), None)
        if head is None:
            raise UnknownColumn(
                f"no head {names[0]!r} has predicted anything{self._hint(names[0])}; create pred.HEAD "
                f"with `embedstore predict STORE HEAD`"
                f"{'; there are ' + ', '.join(map(written_name, sorted(self.names))) if self.names else ''}"
                f"{f'; the column {own_column!r} of the items is {ITEMS}.{own_column}' if own_column else ''}"
            )
        field = names[1].lower() if len(names) == 2 else "label"
        fields = ("label", "score", "low", "high") if head in self.numeric else ("label", "score")
        if len(names) > 2 or field not in fields:
            listed = f"{', '.join(f'.{f}' for f in fields[:-1])} and .{fields[-1]}"
            raise UnknownColumn(f"pred.{head} has {listed}, not {'.'.join(names[1:])!r}")
        return PredictedColumn(head, field)

    def _hint(self, name: str) -> str:
        """Return how a head is written whose name goes on with a dash, which SQL reads as minus; else near names."""
        longer = sorted(h for h in self.names if h.lower().startswith(f"{name.lower()}-"))
        if longer:
            return f"; a name with a dash is written in quotes: {written_name(longer[0])}"
        return did_you_mean(name, self.names)

    def lookup(self, con: duckdb.DuckDBPyConnection, column: PredictedColumn, table: str = ITEMS) -> Node:
        """Return the tree of a scalar subquery that looks the column up.

        Args:
            con: any connection; it parses the text.
            column: the column.
            table: the name of the items in the query.
        """
        number = "TRY_CAST(label AS DOUBLE)"
        numeric = {"label": number, "score": "score", "low": f"{number} - score", "high": f"{number} + score"}
        labels = "coalesce(list(label ORDER BY score DESC, label) FILTER (WHERE label IS NOT NULL), [])"
        in_sets = column.head in self.set_valued
        value = {"label": labels, "score": "max(score)"}[column.field] if in_sets else column.field
        value = numeric[column.field] if column.head in self.numeric else value
        prefix = quote_identifier(table)
        sql = (
            f"SELECT (SELECT p.value FROM (SELECT item AS of_item, content AS of_content, {value} AS value FROM "
            f"predictions WHERE head = {quote_literal(column.head)} {'GROUP BY item, content' if in_sets else ''}) "
            f"AS p WHERE p.of_item = {prefix}.item AND p.of_content = {prefix}.content)"
        )
        node: Node = parse_select(con, sql)["statements"][0]["node"]["select_list"][0]
        return node


def written_name(head: str) -> str:
    """Return the name of a predicted column as it is written in a filter or query: ``pred.NAME``, quoted if need be."""
    return f"{PREDICTIONS}.{head if head.isidentifier() else quote_identifier(head)}"


def quote_hint(text: str) -> str:
    """Return the cure for a text that SQL cannot read because of the name of a head; nothing for other texts."""
    found = re.search(rf"\b{PREDICTIONS}\.(\d[\w-]*|\w+-[\w-]*)", text, re.IGNORECASE)
    if found is None:
        return ""
    return f"; the name of a head with a dash, or a digit in front, is written in quotes: {written_name(found[1])}"


def predicting_heads(con: duckdb.DuckDBPyConnection, known: Collection[str] = ()) -> PredictingHeads:
    """Return the heads that have predictions.

    Args:
        con: the open catalog.
        known: heads that count too although they have no predictions yet.
    """
    predicted = fetch_column(con, "SELECT DISTINCT head FROM predictions")
    set_valued = fetch_column(con, "SELECT head FROM heads WHERE (facts->>'sets')::BOOLEAN")
    numeric = fetch_column(con, "SELECT head FROM heads WHERE (facts->>'numbers')::BOOLEAN")
    return PredictingHeads({*predicted, *known}, set_valued, numeric)
