"""Labels, groups and splits in the form in which they are compared, and what was written in several ways."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from embedstore.text_form import clean_name, known_split
from embedstore.wording import counted

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
        """Return a sentence if several spellings were read as one name, and one if names differ only in case."""
        return self._merged() + self._case_twins()

    def _merged(self) -> list[str]:
        spellings: dict[str, list[str]] = {}
        for text, name in self._clean.items():
            if name is not None:
                spellings.setdefault(name, []).append(text)
        several = {name: texts for name, texts in spellings.items() if len(texts) > 1}
        if not several:
            return []
        what = f"{self._kind}s are written in several ways and were read as one each"
        return [f"{len(several)} {what}: {_listed([several[n] for n in sorted(several)])}"]

    def _case_twins(self) -> list[str]:
        folded: dict[str, set[str]] = {}
        for name in self._clean.values():
            if name is not None:
                folded.setdefault(name.casefold(), set()).add(name)
        twins = [sorted(names) for _, names in sorted(folded.items()) if len(names) > 1]
        if not twins:
            return []
        what = f"{self._kind}s differ in upper and lower case only and count as different ones"
        return [f"{sum(map(len, twins))} {what}: {_listed(twins)}"]


def unlabeled_notes(count: int, label: str) -> tuple[str, ...]:
    """Return one sentence on items without this label, which were left out; nothing if there are none."""
    if not count:
        return ()
    return (counted(count, f"item has no {label} and was left out", f"items have no {label} and were left out"),)


def without_vector_notes(count: int, space: str) -> list[str]:
    """Return one sentence on labeled items without a vector in a space; nothing if there are none."""
    if not count:
        return []
    who = counted(count, "labeled item has no vector", "labeled items have no vector")
    left_out = f"{who} in space {space} and {'was' if count == 1 else 'were'} left out"
    return [
        f"{left_out}; `embedstore failures STORE` says why, or `embedstore reembed STORE --space {shlex.quote(space)}` "
        f"embeds {'it' if count == 1 else 'them'}"
    ]


def _listed(spellings: list[list[str]]) -> str:
    """Return the first spellings as text; ASCII, so that no two of them look alike."""
    shown = "; ".join(", ".join(map(ascii, sorted(names))) for names in spellings[:MAX_LISTED_NAMES])
    more = len(spellings) - MAX_LISTED_NAMES
    return shown + (f" and {more} more" if more > 0 else "")


def unknown_splits(words: Iterable[str | None]) -> list[str]:
    """Return the words, sorted, that do not name a split."""
    return sorted({w for w in words if w is not None and known_split(w) is None})
