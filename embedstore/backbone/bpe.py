"""CLIP's byte-pair encoding without torch: the tokens that open_clip's own tokenizer gives, for any string.

The vocabulary is the file that open_clip ships: 48,894 merges in order of rank. Ids are the 256 bytes, the 256 bytes
that end a word, the merges, then the start and the end of a text (Radford et al. 2021, section 2.4).
"""

from __future__ import annotations

import gzip
import html
import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

MERGES = 49152 - 256 - 2
START, END = 512 + MERGES, 513 + MERGES
MARKS = {"<start_of_text>": START, "<end_of_text>": END}
VOCABULARY = END + 1
_WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PLAIN = re.compile(r"[ -%'-~]*")  # printable ASCII without &: repairing text and entities would change nothing
Part = tuple[str, int]  # a piece of a word and its id
_NONE = 1 << 30  # the rank of a pair that is not merged


def tokens(texts: Sequence[str], length: int) -> NDArray[np.int64]:
    """Texts as ids.

    Args:
        texts: one string a row.
        length: of a row; longer texts are cut, and still end with the end mark.

    Returns:
        int64 ``(T, length)``, zeros behind the end.
    """
    out = np.zeros((len(texts), length), np.int64)
    for row, text in zip(out, texts, strict=True):
        ids = [START, *encode(text), END]
        if len(ids) > length:
            ids = [*ids[: length - 1], END]
        row[: len(ids)] = ids
    return out


def encode(text: str) -> list[int]:
    """The ids of a text, without the marks."""
    out: list[int] = []
    for word in _pattern().findall(cleaned(text)):
        out += _merged(word)
    return out


def cleaned(text: str) -> str:
    """Mojibake repaired, entities resolved twice, white space made single, lower case."""
    if not _PLAIN.fullmatch(text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@cache
def _pattern() -> re.Pattern[str]:
    """What a word is; Python's own ``re`` knows no classes of letters."""
    import regex

    compiled: re.Pattern[str] = regex.compile(_WORDS, regex.IGNORECASE)
    return compiled


@cache
def _merged(word: str) -> tuple[int, ...]:
    """The ids of one word: the pair of lowest rank is joined, everywhere in the word, until none is left."""
    if word in MARKS:
        return (MARKS[word],)
    letters, ranks = _letters(), _ranks()
    parts = [letters[b] for b in word.encode("utf-8")]
    parts[-1] = (parts[-1][0] + "</w>", parts[-1][1] + 256)
    while len(parts) > 1:
        pairs = [f"{a} {b}" for (a, _), (b, _) in pairwise(parts)]
        best = min(pairs, key=lambda pair: ranks.get(pair, _NONE))
        if best not in ranks:
            break
        parts = _joined(parts, pairs, best, 512 + ranks[best])
    return tuple(number for _, number in parts)


def _joined(parts: list[Part], pairs: list[str], best: str, new: int) -> list[Part]:
    """``parts`` with every such pair replaced, from the left."""
    out: list[Part] = []
    i = 0
    while i < len(parts):
        if i < len(pairs) and pairs[i] == best:
            out.append((parts[i][0] + parts[i + 1][0], new))
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


@cache
def _letters() -> list[Part]:
    """How the file writes each byte, and its id."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
    hidden = [b for b in range(256) if b not in shown]
    out: list[Part] = [("", 0)] * 256
    for number, byte in enumerate(shown + hidden):
        out[byte] = (chr(byte) if byte in shown else chr(256 + number - len(shown)), number)
    return out


@cache
def _ranks() -> dict[str, int]:
    """The rank of every pair that is joined, named as in the file: both parts with a space between."""
    return dict(zip(_file().split("\n")[1 : MERGES + 1], range(MERGES), strict=True))


def _file() -> str:
    """The merges as text; open_clip is found but not imported."""
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
    path = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    return gzip.decompress(path.read_bytes()).decode("utf-8")
