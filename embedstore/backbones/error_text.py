"""Words for people: how errors of other libraries become part of one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedstore.errors import BadBackbone
from embedstore.space import Preprocess, Value, overridden


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, cut to ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def several(names: Sequence[str], n: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more if names else "none"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's chatter off stderr, unless the program has set up logging of its own.

    open_clip logs through the root logger, which otherwise installs a handler that prints.
    """
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def adjusted(own: Preprocess, overrides: dict[str, Value]) -> Preprocess:
    """The network's own preprocessing with a person's overrides.

    Raises:
        BadBackbone: an unknown name, or a value that does not parse.
    """
    try:
        return overridden(own, overrides)
    except ValueError as error:
        raise BadBackbone(f"--preprocess: {one_line(error)}") from error
