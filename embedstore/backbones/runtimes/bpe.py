"""CLIP's byte-pair encoding without torch: the same token ids as open_clip's own tokenizer, for any string.

A vocabulary is a file of merges in order of rank: the 48,894 that open_clip ships, or a network's own. Its ids are the
256 bytes, the 256 bytes that end a word, the merges, and the start and the end of a text, in this order (Radford et al.
2021, section 2.4).
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

from embedstore.storage.store_files import open_binary

MAX_MERGES = 49152 - 256 - 2  # as open_clip reads them
MAX_MERGES_BYTES = 16 << 20  # of the unpacked merges: open_clip's have 3 MB
BYTE_TOKENS = 512  # ids before those of the merges
START, END = "<start_of_text>", "<end_of_text>"
_WORD_PATTERN = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_PLAIN_ASCII = re.compile(r"[ -%'-~]*")  # printable, without &: nothing to repair and no entities
_NEVER_MERGED = 1 << 30  # the rank of a pair that is not in the vocabulary

Token = tuple[str, int]  # a piece of a word and its id


def tokenize(texts: Sequence[str], context_length: int, merges: Path | None = None) -> NDArray[np.int64]:
    """Return the token ids of texts.

    Args:
        texts: one string per row.
        context_length: ids per row; a longer text is cut and still ends with the end token.
        merges: the file of the network's own vocabulary; by default open_clip's.

    Returns:
        int64 ``(T, context_length)``, zeros after the end token.
    """
    vocabulary = load_vocabulary(merges)
    start, end = vocabulary.special_tokens[START], vocabulary.special_tokens[END]
    out = np.zeros((len(texts), context_length), np.int64)
    for row, text in zip(out, texts, strict=True):
        ids = [start, *vocabulary.encode(text), end]
        if len(ids) > context_length:
            ids = [*ids[: context_length - 1], end]
        row[: len(ids)] = ids
    return out


def is_cut(text: str, context_length: int, merges: Path | None = None) -> bool:
    """Return whether :func:`tokenize` cuts a text."""
    if len(text.encode()) + 2 <= context_length:  # a token has at least one byte
        return False
    return len(load_vocabulary(merges).encode(text)) + 2 > context_length


class Vocabulary:
    """Merges and their ranks.

    Args:
        merges: the content of the file: a heading, then one pair per line.

    Attributes:
        special_tokens: the ids of the start and the end of a text.
    """

    def __init__(self, merges: str) -> None:
        lines = merges.split("\n")[1 : MAX_MERGES + 1]
        self._ranks = {pair: rank for rank, pair in enumerate(lines)}
        self.special_tokens = {START: BYTE_TOKENS + len(lines), END: BYTE_TOKENS + len(lines) + 1}
        self._encode_word = cache(self._merge_word)

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without its start and end."""
        return [token_id for word in _word_pattern().findall(clean_text(text)) for token_id in self._encode_word(word)]

    def _merge_word(self, word: str) -> tuple[int, ...]:
        """Return the ids of one word: merge the pair of lowest rank, everywhere in the word, until none is left."""
        if word in self.special_tokens:
            return (self.special_tokens[word],)
        byte_tokens, ranks = _byte_tokens(), self._ranks
        parts = [byte_tokens[b] for b in word.encode("utf-8")]
        parts[-1] = (parts[-1][0] + "</w>", parts[-1][1] + 256)
        while len(parts) > 1:
            pairs = [f"{a} {b}" for (a, _), (b, _) in pairwise(parts)]
            best = min(pairs, key=lambda pair: ranks.get(pair, _NEVER_MERGED))
            if best not in ranks:
                break
            parts = _merge_pair(parts, pairs, best, BYTE_TOKENS + ranks[best])
        return tuple(token_id for _, token_id in parts)


@cache
def load_vocabulary(merges: Path | None) -> Vocabulary:
    """Return the vocabulary of a gzip file, or open_clip's; open_clip is located but not imported."""
    if merges is None:
        spec = find_spec("open_clip")
        if spec is None or not spec.submodule_search_locations:
            raise ModuleNotFoundError("No module named 'open_clip'", name="open_clip")
        merges = Path(spec.submodule_search_locations[0]) / "bpe_simple_vocab_16e6.txt.gz"
    return Vocabulary(_read_merges(merges))


def _read_merges(path: Path) -> str:
    """Return the text of a file of merges.

    Raises:
        ValueError: when it is larger than any vocabulary, or is not text.
        OSError: when it cannot be read.
    """
    with open_binary(path) as packed, gzip.open(packed) as f:
        data = f.read(MAX_MERGES_BYTES + 1)
    if len(data) > MAX_MERGES_BYTES:
        raise ValueError(f"{path} unpacks to more than {MAX_MERGES_BYTES >> 20} MiB")
    return data.decode("utf-8")


def clean_text(text: str) -> str:
    """Repair mojibake, resolve entities twice, collapse white space and convert to lower case."""
    if not _PLAIN_ASCII.fullmatch(text):
        import ftfy

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return " ".join(text.split()).lower()


@cache
def _word_pattern() -> re.Pattern[str]:
    """Return the pattern of a word; Python's own ``re`` has no Unicode classes."""
    import regex

    compiled: re.Pattern[str] = regex.compile(_WORD_PATTERN, regex.IGNORECASE)
    return compiled


def _merge_pair(parts: list[Token], pairs: list[str], best: str, token_id: int) -> list[Token]:
    """Return ``parts`` with every pair ``best`` replaced by one token, from the left."""
    out: list[Token] = []
    i = 0
    while i < len(parts):
        if i < len(pairs) and pairs[i] == best:
            out.append((parts[i][0] + parts[i + 1][0], token_id))
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out


@cache
def _byte_tokens() -> list[Token]:
    """Return, for each byte, how the file of merges writes it and its id."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]  # bytes that are written as themselves
    others = [b for b in range(256) if b not in printable]
    out: list[Token] = [("", 0)] * 256
    for token_id, byte in enumerate(printable + others):
        out[byte] = (chr(byte) if byte in printable else chr(256 + token_id - len(printable)), token_id)
    return out
