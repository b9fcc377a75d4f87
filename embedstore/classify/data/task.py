"""What a label is: a class, a quantity, or a level on an ordered scale; and whether its texts are numbers."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import LabelError, did_you_mean
from embedstore.storage.quoting import quote_identifier, quote_literal
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.classify.data.features import Features

AUTO = "auto"
MAX_CLASS_NUMBERS = 20  # so many different whole numbers are always classes
_SMALLEST, _LARGEST = 1e-100, 1e100  # the squares of such numbers, and sums of them, are numbers again
_SPARSE = 0.5  # identifiers are scattered over their range, ages and years are not
# As people and DuckDB write numbers. A leading zero (007) marks a code, not a quantity.
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)


class Task(StrEnum):
    """What is predicted."""

    CLASSIFICATION = "classification"  # a class; with several labels per item any number of them
    REGRESSION = "regression"  # a number
    ORDINAL = "ordinal"  # one of a few numbers whose order and distance count, such as a grade


def parse_numbers(texts: NDArray[np.object_]) -> NDArray[np.float64] | None:
    """Return texts as numbers, float64 ``(N,)``, or None if one of them is no number.

    Args:
        texts: the labels ``(N,)``; infinity is a number here, a code with a leading zero is not.
    """
    values: dict[str, float] = {}
    for text in set(texts.tolist()):
        if not isinstance(text, str) or not _NUMBER.fullmatch(text):
            return None
        values[text] = float(text)
    return np.array([values[text] for text in texts.tolist()], np.float64)


def with_task(data: Features, requested: str = AUTO) -> Features:
    """Return the rows with their task; a quantity or a level has its numbers, and infinite ones are left out.

    With ``auto``, labels that are not all numbers are classes. Numbers with a fraction are a quantity. Whole numbers
    are classes if there are at most 20 different ones, or if each is that of at least two items and they look like
    numbers or identifiers of classes: every number from 0 or 1 to the largest occurs, or fewer than half of the numbers
    in their range do. Other whole numbers are a quantity. What was chosen for numbers is added to the notes.

    Args:
        data: labeled rows.
        requested: ``auto`` or a member of :class:`Task`.

    Raises:
        LabelError: if there is no such task, the labels are not numbers where numbers are needed, no finite number
            is left, or the largest one is too large or too small to compute with.
    """
    known = [AUTO, *(t.value for t in Task)]
    if requested not in known:
        raise LabelError(f"task must be {', '.join(known[:-1])} or {known[-1]}, not {requested!r}{_near(requested)}")
    if requested == Task.CLASSIFICATION or (requested == AUTO and data.multilabel):
        return data
    numbers = None if data.multilabel else parse_numbers(data.y)
    if requested == AUTO:
        return data if numbers is None else _choose(data, numbers)
    if numbers is None:
        raise LabelError(_not_numbers(data, requested))
    return _numeric(data, numbers, Task(requested))


def require_classes(data: Features, verb: str) -> Features:
    """Return the rows if their labels are classes.

    Args:
        data: labeled rows.
        verb: what needs classes, for the message.

    Raises:
        LabelError: if they are a quantity by the rule of :func:`with_task`.
    """
    numeric = with_task(data)
    if numeric.task is Task.CLASSIFICATION:
        return data
    middle = float(np.median(numeric.numbers)) if numeric.numbers is not None else 0.0
    assignment = shlex.quote(f"high_{data.label}={quote_identifier(data.label)}::DOUBLE >= {middle:.6g}")
    different = counted(len(set(data.y.tolist())), "different one", "different ones")
    raise LabelError(
        f"{verb} needs classes, and {data.label!r} holds numbers ({different}); make "
        f"classes of ranges, for example `embedstore edit STORE --where true --add-columns --set {assignment}`, and "
        f"give that column; `embedstore probe STORE {shlex.quote(data.label)}` predicts the number itself"
    )


def _near(requested: str) -> str:
    return did_you_mean(str(requested), [t.value for t in Task])


def _choose(data: Features, numbers: NDArray[np.float64]) -> Features:
    """Return the rows with the task that their numbers suggest, and a note that says which."""
    finite = numbers[np.isfinite(numbers)]
    values, counts = np.unique(finite, return_counts=True)
    is_whole = bool((values == np.rint(values)).all())
    kind = f"{data.label} holds {len(values):,} different {'whole numbers' if is_whole else 'numbers'}"
    if is_whole and (len(values) <= MAX_CLASS_NUMBERS or _are_class_numbers(values, counts)):
        note = f"{kind} and is read as classes; --task regression or --task ordinal reads it as numbers"
        return replace(data, label_notes=(*data.label_notes, note))
    note = f"{kind} and is read as a quantity; --task classification reads it as classes"
    return _numeric(replace(data, label_notes=(*data.label_notes, note)), numbers, Task.REGRESSION)


def _are_class_numbers(values: NDArray[np.float64], counts: NDArray[np.int64]) -> bool:
    """Return whether whole numbers, each at least twice, look like numbers or identifiers of classes."""
    share_of_range = len(values) / (values[-1] - values[0] + 1)
    is_numbering = values[0] in (0, 1) and share_of_range == 1
    return bool(counts.min() > 1 and (is_numbering or share_of_range < _SPARSE))


def _numeric(data: Features, numbers: NDArray[np.float64], task: Task) -> Features:
    """Return the rows with finite numbers."""
    finite = np.isfinite(numbers)
    if not finite.any():
        raise LabelError(f"every {data.label!r} is infinite; {task.value} needs finite numbers")
    if not finite.all():
        left_out = int((~finite).sum())
        infinite = f"an infinite {data.label} and"
        note = counted(left_out, f"item has {infinite} was left out", f"items have {infinite} were left out")
        data = replace(data, label_notes=(*data.label_notes, note)).take(np.flatnonzero(finite))
    _check_range(data, numbers[finite])
    return replace(data, task=task, numbers=numbers[finite])


def _check_range(data: Features, numbers: NDArray[np.float64]) -> None:
    """Refuse numbers whose squares are infinite, or all 0 though the numbers are not."""
    largest = float(np.abs(numbers).max())
    if largest and not _SMALLEST <= largest <= _LARGEST:
        raise LabelError(
            f"the largest {data.label!r} is {largest:.3g} without its sign, and only numbers from {_SMALLEST:g} to "
            f"{_LARGEST:g} can be computed with; leave out what is wrong with --where, or scale the numbers"
        )


def _not_numbers(data: Features, requested: str) -> str:
    if data.multilabel:
        return (
            f"{requested} needs one number per item, and an item may have several {data.label!r}; leave out --task, or "
            "give a column of numbers"
        )
    example = next(text for text in data.y.tolist() if not isinstance(text, str) or not _NUMBER.fullmatch(text))
    case = (
        f"{data.label}_number=CASE {quote_identifier(data.label)} WHEN {quote_literal(str(example))} THEN 1 ELSE 2 END"
    )
    assignment = shlex.quote(case)
    return (
        f"{requested} needs numbers, and {data.label!r} holds {example!r}; leave out --task, or add a column of "
        f"numbers, for example `embedstore edit STORE --where true --add-columns --set {assignment}`, and give it"
    )
