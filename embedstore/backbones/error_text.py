"""Turn errors of other libraries and long lists into one line of text."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def one_line(error: BaseException, limit: int = 300) -> str:
    """Return the text of an error on one line, cut to ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"


def join_names(names: Sequence[str], limit: int = 8) -> str:
    """Return the first names of a list and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"


@contextmanager
def suppress_root_logging() -> Iterator[None]:
    """Keep a library's messages off stderr, unless the program has configured logging.

    open_clip logs through the root logger, which otherwise installs a handler that prints.
    """
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
