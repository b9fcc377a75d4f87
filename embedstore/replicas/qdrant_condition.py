"""A condition as a filter of Qdrant, which knows no NULL: a comparison also requires that there is a value."""

from __future__ import annotations

import re
from typing import Any

from embedstore.storage.portable_filter import RANGES, AllOf, Comparison, Condition, Operator

COLUMNS = "items"  # the field of a point that has the columns
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # others mean a path
_BOUNDS = {Operator.LESS: "lt", Operator.AT_MOST: "lte", Operator.GREATER: "gt", Operator.AT_LEAST: "gte"}


def can_say(comparison: Comparison) -> bool:
    """Return whether Qdrant has a comparison: it has no order of texts."""
    is_text = any(isinstance(value, str) for value in comparison.values)
    return bool(_PLAIN_NAME.fullmatch(comparison.column)) and not (is_text and comparison.operator in RANGES)


def condition_filter(models: Any, condition: Condition) -> Any:
    """Return a filter.

    Args:
        models: the module ``models`` of the package qdrant_client.
        condition: the condition.
    """
    if isinstance(condition, Comparison):
        return _comparison(models, condition, f"{COLUMNS}.{condition.column}")
    parts = [condition_filter(models, part) for part in condition.parts]
    return models.Filter(must=parts) if isinstance(condition, AllOf) else models.Filter(should=parts)


def _comparison(models: Any, found: Comparison, key: str) -> Any:
    """Return the filter of a comparison."""
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    if found.operator is Operator.IS_NULL:
        return models.Filter(must=[empty])
    if found.operator is Operator.IS_NOT_NULL:
        return models.Filter(must_not=[empty])
    if found.operator in _BOUNDS:
        bounds = models.Range(**{_BOUNDS[found.operator]: found.values[0]})
        return models.Filter(must=[models.FieldCondition(key=key, range=bounds)])
    equal = [_equal(models, key, value) for value in found.values]
    if found.operator in (Operator.NOT_EQUAL, Operator.NOT_IN):
        return models.Filter(must_not=[*equal, empty])
    return models.Filter(should=equal) if equal else models.Filter(must=[models.HasIdCondition(has_id=[])])


def _equal(models: Any, key: str, value: Any) -> Any:
    """Return the condition that a field has a value; numbers with a fraction are matched by a range."""
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
