"""CLIP's byte-pair encoding without torch: the tokens that open_clip's own tokenizer gives, for any string.

A vocabulary is a file of merges in order of rank: the 48,894 that open_clip ships, or a network's own. Ids are the 256
bytes, the 256 bytes that end a word, the merges, then the start and the end of a text (Radford et al. 2021, section
2.4).
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

MAX_MERGES = 49152 - 256 - 2  # at most, as open_clip reads them
BYTE_TOKENS = 512  # ids before the merges: of the bytes, and of the bytes that end a word
START, END = "<start_of_text>", "<end_of_text>"
_WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PLAIN = re.compile(r"[ -%'-~]*")  # printable ASCII without &: repairing text and entities would change nothing
Token = tuple[str, int]  # a piece of a word and its id
_NONE = 1 << 30  # the rank of a pair that is not merged


def tokenize(texts: Sequence[str], context_length: int, merges: Path | None = None) -> NDArray[np.int64]:
    """Texts as ids.

    Args:
        texts: one string a row.
        length: of a row; longer texts are cut, and still end with the end mark.
        merges: the network's own vocabulary; by default open_clip's.

    Returns:
        int64 ``(T, length)``, zeros behind the end.
    """
    known = load_vocabulary(merges)
    out = np.zeros((len(texts), context_length), np.int64)
    for row, text in zip(out, texts, strict=True):
        ids = [known.special_tokens[START], *known.encode(text), known.special_tokens[END]]
        if len(ids) > context_length:
            ids = [*ids[: context_length - 1], known.special_tokens[END]]
        row[: len(ids)] = ids
    return out


class Vocabulary:
    """Merges and their ranks.

    Args:
        merges: the text of the file: a heading, then one pair a line.

    Attributes:
        marks: the ids of the start and the end of a text.
    """

    def __init__(self, merges: str) -> None:
        lines = merges.split("\n")[1 : MAX_MERGES + 1]
        self._ranks = {pair: rank for rank, pair in enumerate(lines)}
        self.special_tokens = {START: BYTE_TOKENS + len(lines), END: BYTE_TOKENS + len(lines) + 1}
        self._merged = cache(self._word)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without the marks."""
        return [number for word in _pattern().findall(clean_text(text)) for number in self._merged(word)]

    def _word(self, word: str) -> tuple[int, ...]:
        """The ids of one word: the pair of lowest rank is joined, everywhere in the word, until none is left."""
        if word in self.special_tokens:
            return (self.special_tokens[word],)
        letters, ranks = _letters(), self._ranks
        parts = [letters[b] for b in word.encode("utf-8")]
        parts[-1] = (parts[-1][0] + "</w>", parts[-1][1] + 256)
        while len(parts) > 1:
            pairs = [f"{a} {b}" for (a, _), (b, _) in pairwise(parts)]
            best = min(pairs, key=lambda pair: ranks.get(pair, _NONE))
            if best not in ranks:
                break
            parts = _joined(parts, pairs, best, BYTE_TOKENS + ranks[best])
        return tuple(number for _, number in parts)


@cache
def load_vocabulary(merges: Path | None) -> Vocabulary:
    """The vocabulary of a file (gzip), or open_clip's; open_clip is found but not imported."""
    if merges is None:
        spec = find_spec("open_clip")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
        merges = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    return Vocabulary(gzip.decompress(merges.read_bytes()).decode("utf-8"))


def clean_text(text: str) -> str:
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


def _joined(parts: list[Token], pairs: list[str], best: str, new: int) -> list[Token]:
    """``parts`` with every such pair replaced, from the left."""
    out: list[Token] = []
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
def _letters() -> list[Token]:
    """How the file writes each byte, and its id."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that stand for themselves
    hidden = [b for b in range(256) if b not in shown]
    out: list[Token] = [("", 0)] * 256
    for number, byte in enumerate(shown + hidden):
        out[byte] = (chr(byte) if byte in shown else chr(256 + number - len(shown)), number)
    return out
