"""Encode texts, and say which of them are longer than the network reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Encoder
from embedstore.errors import QueryError
from embedstore.wording import counted

_SHOWN = 60  # characters of a text in a note


@dataclass(frozen=True)
class TextEncoder:
    """The text tower of a space.

    Attributes:
        encoder: what runs it.
        cut_texts: the texts so far whose end was not read.
    """

    encoder: Encoder
    cut_texts: list[str] = field(default_factory=list)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts to float32 ``(T, D)``, rows of length 1, and remember those that are cut.

        Raises:
            QueryError: if a text has halves of characters, which no file of text can hold.
        """
        for text in texts:
            require_characters(text)
        self.cut_texts.extend(self.encoder.cut_texts(texts))
        return self.encoder.encode_texts(texts)

    def notes(self) -> tuple[str, ...]:
        """Return one sentence if texts were cut, else nothing."""
        return cut_notes(self.cut_texts)


def require_characters(text: str) -> None:
    """Check that a text is made of whole characters.

    Raises:
        QueryError: if it has halves of characters: bytes of a terminal that are not UTF-8, or half of an emoji.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as e:
        shown = text[:_SHOWN].encode("ascii", "backslashreplace").decode()
        raise QueryError(
            f"the text '{shown}' is not valid text: character {e.start + 1} is {ascii(text[e.start])[1:-1]}, which "
            "stands for a byte that is not UTF-8 or for half of a character; write the text in UTF-8"
        ) from e


def cut_notes(texts: Sequence[str]) -> tuple[str, ...]:
    """Return one sentence about texts that are longer than the network reads; nothing if there are none."""
    different = list(dict.fromkeys(texts))
    if not different:
        return ()
    first = " ".join(different[0].split())
    shown = first if len(first) <= _SHOWN else f"{first[: _SHOWN - 1]}…"
    more = f" (and {counted(len(different) - 1, 'other')})" if len(different) > 1 else ""
    return (f"the text {shown!r}{more} is longer than the network reads: its end is ignored; shorten it",)
