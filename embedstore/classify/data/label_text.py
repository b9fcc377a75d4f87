"""Labels, groups and splits in the form in which they are compared, and what was written in several ways."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from embedstore.text_form import clean_name, known_split

MAX_LISTED_NAMES = 5  # names in a note


class NameCleaner:
    """Turn names into their one form, and remember which of them were written in several ways.

    Args:
        kind: what the names are, for the notes: ``label``, ``group``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._clean: dict[str, str | None] = {}

    def clean(self, value: Any) -> str | None:
        """Return a name in its one form; None if it is absent."""
        if value is None:
            return None
        text = str(value)
        if text not in self._clean:
            self._clean[text] = clean_name(text)
        return self._clean[text]

    def notes(self) -> list[str]:
        """Return one sentence if several spellings were read as one name."""
        spellings: dict[str, list[str]] = {}
        for text, name in self._clean.items():
            if name is not None:
                spellings.setdefault(name, []).append(text)
        several = {name: texts for name, texts in spellings.items() if len(texts) > 1}
        if not several:
            return []
        listed = "; ".join(f"{', '.join(map(ascii, sorted(several[n])))}" for n in sorted(several)[:MAX_LISTED_NAMES])
        more = f" and {len(several) - MAX_LISTED_NAMES} more" if len(several) > MAX_LISTED_NAMES else ""
        return [f"{len(several)} {self._kind}s are written in several ways and were read as one each: {listed}{more}"]


def unknown_splits(words: Iterable[str | None]) -> list[str]:
    """Return the words, sorted, that do not name a split."""
    return sorted({w for w in words if w is not None and known_split(w) is None})
