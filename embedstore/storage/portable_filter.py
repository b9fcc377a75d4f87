"""What of a filter another database can say: comparisons of its columns with constants, IN, IS NULL, AND, OR and NOT.

A filter matches where it is true, and neither where it is false nor where it is NULL. NOT is therefore moved down to
the comparisons, which SQL's three-valued logic allows: what is left has no NOT, and a comparison with NULL matches
nothing. A part that cannot be said is left out where the rest stays a condition that every match fulfills.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias

import duckdb

from embedstore.storage.column_names import ITEMS, find_item_column
from embedstore.storage.syntax_tree import Node, parse_select

MAX_INTEGER = 1 << 53  # beyond it a database that compares numbers as doubles rounds
MAX_DIGITS = 15  # of a decimal, which every database then reads as the same double
_INTEGERS = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT")


class Operator(StrEnum):
    """How a column is compared."""

    EQUAL = "="
    NOT_EQUAL = "<>"
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    IN = "in"
    NOT_IN = "not in"
    IS_NULL = "is null"
    IS_NOT_NULL = "is not null"


_O = Operator
RANGES = (_O.LESS, _O.AT_MOST, _O.GREATER, _O.AT_LEAST)
_COMPARISONS = {
    "COMPARE_EQUAL": _O.EQUAL, "COMPARE_NOTEQUAL": _O.NOT_EQUAL, "COMPARE_LESSTHAN": _O.LESS,
    "COMPARE_LESSTHANOREQUALTO": _O.AT_MOST, "COMPARE_GREATERTHAN": _O.GREATER,
    "COMPARE_GREATERTHANOREQUALTO": _O.AT_LEAST,
}  # fmt: skip
_SWAPPED = {_O.LESS: _O.GREATER, _O.GREATER: _O.LESS, _O.AT_MOST: _O.AT_LEAST, _O.AT_LEAST: _O.AT_MOST}
_NEGATED = {
    _O.EQUAL: _O.NOT_EQUAL, _O.LESS: _O.AT_LEAST, _O.AT_MOST: _O.GREATER, _O.IN: _O.NOT_IN, _O.IS_NULL: _O.IS_NOT_NULL,
}  # fmt: skip
_NEGATED |= {after: before for before, after in _NEGATED.items()}


@dataclass(frozen=True)
class Comparison:
    """A comparison of a column with constants; it matches no row where the column is NULL, but for ``IS_NULL``.

    Attributes:
        column: the column.
        operator: how it is compared.
        values: the constants: one, several for ``IN`` and ``NOT_IN``, none for the tests of NULL. An ``IN`` without
            any matches nothing.
    """

    column: str
    operator: Operator
    values: tuple[Any, ...] = ()


@dataclass(frozen=True)
class AllOf:
    """A row matches if it matches every part."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True)
class AnyOf:
    """A row matches if it matches a part."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = "Comparison | AllOf | AnyOf"


@dataclass(frozen=True)
class PortableFilter:
    """The part of a filter that a vector database can evaluate.

    Attributes:
        condition: every match fulfills it.
        is_whole: only matches fulfill it.
        columns: the columns that it names.
    """

    condition: Condition
    is_whole: bool
    columns: frozenset[str]


def portable_filter(
    con: duckdb.DuckDBPyConnection,
    where: str,
    columns: Mapping[str, str],
    can_say: Callable[[Comparison], bool] = lambda _: True,
) -> PortableFilter | None:
    """Return what another database can say of a filter, None if it is nothing.

    Args:
        con: a connection, whose parser is used.
        where: a filter; one that is none has nothing to say.
        columns: the DuckDB type of each column that the other database has, by name.
        can_say: whether the other database has a comparison.
    """
    tree = parse_select(con, f"SELECT 1 FROM items WHERE ({where}\n)")
    if tree["error"] or len(tree["statements"]) != 1:
        return None  # what is wrong with it is found where it is compiled
    translation = _Translation(columns, can_say)
    condition = translation.translate(tree["statements"][0]["node"]["where_clause"], negate=False)
    if condition is None:
        return None
    return PortableFilter(condition, translation.is_whole, frozenset(translation.named))


class _Translation:
    """From a syntax tree to a condition."""

    def __init__(self, columns: Mapping[str, str], can_say: Callable[[Comparison], bool]) -> None:
        self.is_whole, self.named = True, set[str]()
        self._columns, self._can_say = columns, can_say

    def translate(self, node: Node, *, negate: bool) -> Condition | None:
        """Return the condition of a node or of its negation, None if nothing of it can be said."""
        kind = node["type"]
        if kind == "OPERATOR_NOT":
            return self.translate(node["children"][0], negate=not negate)
        if kind in ("CONJUNCTION_AND", "CONJUNCTION_OR"):
            parts = [self.translate(child, negate=negate) for child in node["children"]]
            return self._all(parts) if (kind == "CONJUNCTION_AND") != negate else self._any(parts)
        if kind == "COMPARE_BETWEEN":
            ends = ((_O.AT_LEAST, node["lower"]), (_O.AT_MOST, node["upper"]))
            parts = [self._comparison(node["input"], [end], operator, negate=negate) for operator, end in ends]
            return self._any(parts) if negate else self._all(parts)
        return self._leaf(node, negate=negate)

    def _all(self, parts: list[Condition | None]) -> Condition | None:
        """Return the condition of a conjunction; a part that cannot be said is left out."""
        said = tuple(part for part in parts if part is not None)
        self.is_whole = self.is_whole and len(said) == len(parts)
        return AllOf(said) if said else None

    def _any(self, parts: list[Condition | None]) -> Condition | None:
        """Return the condition of a disjunction, all of which has to be said."""
        said = tuple(part for part in parts if part is not None)
        self.is_whole = self.is_whole and len(said) == len(parts)
        return AnyOf(said) if len(said) == len(parts) else None

    def _leaf(self, node: Node, *, negate: bool) -> Condition | None:
        """Return a comparison."""
        kind, children = node["type"], node.get("children", [])
        if kind in _COMPARISONS:
            return self._two_sides(node["left"], node["right"], _COMPARISONS[kind], negate=negate)
        if kind in ("COMPARE_IN", "COMPARE_NOT_IN"):
            return self._comparison(children[0], children[1:], _O.IN, negate=negate != (kind == "COMPARE_NOT_IN"))
        if kind in ("OPERATOR_IS_NULL", "OPERATOR_IS_NOT_NULL"):
            return self._comparison(children[0], [], _O.IS_NULL, negate=negate != (kind == "OPERATOR_IS_NOT_NULL"))
        if node["class"] == "COLUMN_REF" and self._kind(node) == "BOOLEAN":
            return self._said(Comparison(str(self._column(node)), _O.EQUAL, (not negate,)))
        self.is_whole = False
        return None

    def _two_sides(self, left: Node, right: Node, operator: Operator, *, negate: bool) -> Condition | None:
        """Return a comparison with a constant on either side."""
        if left["class"] == "CONSTANT":
            left, right, operator = right, left, _SWAPPED.get(operator, operator)
        return self._comparison(left, [right], operator, negate=negate)

    def _comparison(self, column: Node, constants: list[Node], operator: Operator, *, negate: bool) -> Condition | None:
        """Return a comparison of a column with constants."""
        kind = self._kind(column)
        values = [_constant(node, kind) for node in constants]
        if kind is None or any(value is _UNSAID for value in values):
            self.is_whole = False
            return None
        found = Comparison(str(self._column(column)), _NEGATED[operator] if negate else operator, tuple(values))
        return self._said(_without_null(found))

    def _said(self, comparison: Comparison) -> Condition | None:
        """Return a comparison if the other database has it."""
        ordered = self._columns[comparison.column] != "BOOLEAN" or comparison.operator not in RANGES
        if not (ordered and self._can_say(comparison)):
            self.is_whole = False
            return None
        self.named.add(comparison.column)
        return comparison

    def _column(self, node: Node) -> str | None:
        """Return the column that a node names, None if the other database lacks it."""
        names = node["column_names"] if node["class"] == "COLUMN_REF" else []
        names = names[1:] if len(names) == 2 and names[0].lower() == ITEMS else names
        return find_item_column(names[0], self._columns) if len(names) == 1 else None

    def _kind(self, node: Node) -> str | None:
        """Return the type of the column that a node names, None if it cannot be compared elsewhere."""
        column = self._column(node)
        kind = None if column is None else self._columns[column]
        return kind if kind in ("VARCHAR", "BOOLEAN", "DOUBLE", *_INTEGERS) else None


_UNSAID = object()


def _constant(node: Node, kind: str | None) -> Any:
    """Return a constant of the type of its column, None for NULL, ``_UNSAID`` if it is anything else."""
    literal = node.get("literal", {}) if node["class"] == "CONSTANT" else {}
    form, text = literal.get("kind"), literal.get("text", "")
    if form == "NULL_LITERAL":
        return None
    if form == "STRING" and kind == "VARCHAR":
        return _UNSAID if "\x00" in text else text
    if form == "BOOLEAN" and kind == "BOOLEAN":
        return text == "true"
    if form == "INTEGER" and kind in ("DOUBLE", *_INTEGERS) and abs(int(text)) < MAX_INTEGER:
        return float(text) if kind == "DOUBLE" else int(text)
    if form == "NUMERIC" and kind == "DOUBLE" and sum(c.isdigit() for c in text) <= MAX_DIGITS:
        return float(text)
    return _UNSAID


def _without_null(comparison: Comparison) -> Comparison:
    """Return a comparison whose constants are not NULL: one with NULL matches nothing, one in a list nothing more."""
    if None not in comparison.values:
        return comparison
    if comparison.operator is _O.IN:
        return replace(comparison, values=tuple(value for value in comparison.values if value is not None))
    return replace(comparison, operator=_O.IN, values=())
