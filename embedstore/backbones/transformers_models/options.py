"""What ``--preprocess`` may change of how texts and sounds are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from embedstore.errors import BadBackbone, did_you_mean
from embedstore.modality import LongText, SequenceInput
from embedstore.space import JsonScalar

AnyInput = TypeVar("AnyInput", bound=SequenceInput)


def _whole_text(value: Any) -> str:
    """Return a value as text.

    Raises:
        ValueError: if it has halves of characters.
    """
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"the prompt {text!a} is not valid text; write it in UTF-8") from error
    return text


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "max_length": int,
    "long": LongText,
    "prompt": _whole_text,
    "query_prompt": _whole_text,
    "window": float,
    "hop": float,
}


def parse_overrides(reading: AnyInput, overrides: Mapping[str, JsonScalar], names: Sequence[str]) -> AnyInput:
    """Return how items are read, with the user's overrides.

    Args:
        reading: the model's own way.
        overrides: values by name, as the user wrote them.
        names: what can be changed.

    Raises:
        BadBackbone: when a name is unknown or a value does not parse.
    """
    for name in overrides:
        if name not in names:
            hint = did_you_mean(name, names)
            raise BadBackbone(f"--preprocess has no {name!r} for {reading.modality.plural}: {', '.join(names)}{hint}")
    try:
        return replace(reading, **{name: _PARSERS[name](value) for name, value in overrides.items()})
    except (TypeError, ValueError) as error:
        raise BadBackbone(f"--preprocess: {error}") from error
