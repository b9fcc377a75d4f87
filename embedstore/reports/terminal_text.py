"""Text of strangers on a terminal: characters that a terminal obeys, hides or reorders are shown as escapes.

A file name, a label or an error text can hold escape sequences (which clear the screen, set the title or write to the
clipboard), line breaks, and marks that reverse the direction of what follows. :func:`visible` shows them; the streams
of :func:`guarded_streams` do it for whatever is printed without it.
"""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_HIDDEN = {
    "Cc",
    "Cf",
    "Cs",
    "Co",
    "Cn",
    "Zl",
    "Zp",
}  # controls, formats, surrogates, no characters, separators of lines
_JOINERS = "\u200c\u200d"  # needed in Persian and in emoji; they neither hide nor reorder anything


def visible(text: str) -> str:
    """Return text on one line in which every character can be seen: the others are escaped as in Python."""
    return text if text.isascii() and text.isprintable() else "".join(map(_visible, text))


def visible_lines(text: str) -> str:
    """Return text with its line breaks and tabs, and every other invisible character escaped."""
    return re.sub(r"[^\n\t]+", lambda part: visible(part[0]), text)


def visible_json(document: str) -> str:
    """Return the same JSON document with invisible characters inside strings escaped as JSON has it."""
    return "".join(c if c == "\n" or not _is_hidden(c) else _json_escape(c) for c in document)


class GuardedStream:
    """A text stream of a terminal to which invisible characters are written as escapes.

    Args:
        raw: the stream itself, for what draws on the terminal on purpose.
    """

    def __init__(self, raw: TextIO) -> None:
        self.raw = raw

    def write(self, text: str) -> int:
        """Write text; a carriage return before it, with which a progress bar begins, is kept."""
        begin = "\r" if text.startswith("\r") else ""
        self.raw.write(begin + visible_lines(text[len(begin) :]))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # a library that finds it writes around this class
            raise AttributeError(name)
        return getattr(self.raw, name)


@contextmanager
def guarded_streams() -> Iterator[None]:
    """Guard stderr, and stdout where it is a terminal. What is piped or written to a file is exact."""
    stdout, stderr = sys.stdout, sys.stderr
    if stderr is not None:
        sys.stderr = cast("TextIO", GuardedStream(stderr))
    if stdout is not None and stdout.isatty():
        sys.stdout = cast("TextIO", GuardedStream(stdout))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = stdout, stderr


def raw_stream(stream: TextIO) -> TextIO:
    """Return the stream behind a guarded one, for what draws on the terminal on purpose."""
    return stream.raw if isinstance(stream, GuardedStream) else stream


def _is_hidden(character: str) -> bool:
    """Return whether a terminal would obey, hide or reorder for a character."""
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def _visible(character: str) -> str:
    """Return a character, or its escape as in Python."""
    return repr(character)[1:-1] if _is_hidden(character) else character


def _json_escape(character: str) -> str:
    """Return a character as JSON escapes it: one or two UTF-16 code units."""
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
