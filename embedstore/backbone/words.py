"""Words for people: how errors of other libraries become part of one line."""

from __future__ import annotations

from embedstore.errors import BadBackbone
from embedstore.space import Preprocess, Value, overridden


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, cut to ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def adjusted(own: Preprocess, overrides: dict[str, Value]) -> Preprocess:
    """The network's own preprocessing with a person's overrides.

    Raises:
        BadBackbone: an unknown name, or a value that does not parse.
    """
    try:
        return overridden(own, overrides)
    except ValueError as error:
        raise BadBackbone(f"--preprocess: {one_line(error)}") from error
