"""Words for people: how errors of other libraries become part of one line."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from embedstore.errors import BadBackbone
from embedstore.space import JsonScalar, Preprocess, override_preprocess


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of an error on one line, cut to ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def join_names(names: Sequence[str], limit: int = 8) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"


@contextmanager
def suppress_root_logging() -> Iterator[None]:
    """Keep a library's chatter off stderr, unless the program has set up logging of its own.

    open_clip logs through the root logger, which otherwise installs a handler that prints.
    """
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


def apply_preprocess_overrides(own: Preprocess, overrides: dict[str, JsonScalar]) -> Preprocess:
    """The network's own preprocessing with a person's overrides.

    Raises:
        BadBackbone: an unknown name, or a value that does not parse.
    """
    try:
        return override_preprocess(own, overrides)
    except ValueError as error:
        raise BadBackbone(f"--preprocess: {one_line(error)}") from error
