"""The one form in which names are compared: labels, classes, groups, splits; and what counts as no name at all.

Two texts that look equal are one name: white space is trimmed and every run of it is one space, invisible characters
are left out, and letters are composed (Unicode normal form C, UAX #15). Upper and lower case stay different, except in
the names of splits.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from embedstore.types import Split

# as pandas, NumPy, spreadsheets and databases write "no value"; not "NA", which is a country and a class
ABSENT_WORDS = ("nan", "NaN", "NAN", "NaT", "<NA>", "None", "NULL", "null", r"\N", "#N/A", "N/A", "n/a")

# They take no space on the screen: soft hyphen, zero-width space, word joiner, byte-order mark, marks of direction.
_INVISIBLE = "\u00ad\u200b\u2060\ufeff\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_WHITE_SPACE = (  # every character for which str.isspace is true
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_REMOVE_INVISIBLE = str.maketrans("", "", _INVISIBLE)
_BLANKS = f"[{_WHITE_SPACE}{_INVISIBLE}]*"
ABSENT_PATTERN = f"{_BLANKS}({'|'.join(map(re.escape, ABSENT_WORDS))})?{_BLANKS}"  # for Python and for DuckDB (RE2)
_ABSENT = re.compile(ABSENT_PATTERN)

SPLIT_WORDS: dict[Split, tuple[str, ...]] = {
    Split.TRAIN: ("train", "training", "trainset", "trainingset"),
    Split.VAL: ("val", "valid", "validation", "validate", "dev", "devel", "development", "valset", "validationset",
                "devset"),
    Split.TEST: ("test", "testing", "testset", "eval", "evaluation", "evalset", "holdout", "heldout"),
}  # fmt: skip
UNASSIGNED = "unassigned"  # names a file of items that are in no split, next to files of splits
_SPLITS = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_SEPARATORS = re.compile(r"[-_. ]")
_YEAR = re.compile(r"(19|20)\d\d$")  # train2017
_NUMBER = re.compile(r"\d+$")  # validation2


def clean_text(text: str) -> str:
    """Return a text in the form in which names are compared."""
    return " ".join(unicodedata.normalize("NFC", text.translate(_REMOVE_INVISIBLE)).split())


def is_unicode(text: str) -> bool:
    """Return whether a text is Unicode throughout; Python makes half characters of bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_absent(value: Any) -> bool:
    """Return whether a value says nothing: None, NaN, NaT, pandas' NA, blank text, or a word for one of these."""
    if value is None:
        return True
    if isinstance(value, str):
        return _ABSENT.fullmatch(value) is not None
    if isinstance(value, list | tuple | dict | set):
        return False
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT differ from themselves
    except (TypeError, ValueError):  # pandas' NA has no truth value
        return type(value).__name__ == "NAType"


def clean_name(value: Any) -> str | None:
    """Return a label, class or group as text in its one form; None if the value is absent."""
    return None if is_absent(value) else clean_text(str(value)) or None


def known_split(word: str) -> Split | None:
    """Return the split that a word names, whatever its case, white space and separators; None for any other word.

    A year may follow, as in ``train2017``.
    """
    plain = _SEPARATORS.sub("", clean_text(word).casefold())
    return _SPLITS.get(plain) or _SPLITS.get(_YEAR.sub("", plain))


def resembles_split(word: str) -> bool:
    """Return whether a word is the name of a split and a number, as ``validation2``, and so names none."""
    plain = _SEPARATORS.sub("", clean_text(word).casefold())
    return known_split(word) is None and _NUMBER.sub("", plain) in _SPLITS


def clean_split(word: str | None) -> str | None:
    """Return the split that a word names; None if it is absent, the word itself if it is not understood.

    Stores of earlier versions may hold words such as ``dev``.
    """
    name = clean_name(word)
    split = known_split(name) if name else None
    return split.value if split else name


def split_words() -> str:
    """Return the names of splits that are understood, for a message."""
    return "; ".join(f"{split.value} ({', '.join(words[1:])})" for split, words in SPLIT_WORDS.items())
