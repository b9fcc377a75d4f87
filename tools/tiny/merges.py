"""A byte-pair vocabulary from the captions (Sennrich et al. 2016), in open_clip's format."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import regex
from open_clip.tokenizer import bytes_to_unicode

WORD = regex.compile(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
MIN_WORD_COUNT = 20  # words with at least this many occurrences become one token


def learn(captions: Iterable[str]) -> list[tuple[str, str]]:
    """Return merges until every frequent word is one token, most frequent pairs first, ties in alphabetical order."""
    counts = Counter(w for c in captions for w in WORD.findall(c.lower()))
    letters = bytes_to_unicode()
    words = {
        word: [letters[b] for b in word.encode()[:-1]] + [letters[word.encode()[-1]] + "</w>"]
        for word, n in counts.items()
        if n >= MIN_WORD_COUNT
    }
    merges = []
    while any(len(parts) > 1 for parts in words.values()):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        words = {word: _merge(parts, best) for word, parts in words.items()}
    return merges


def write(file: Path, merges: list[tuple[str, str]]) -> None:
    """Write the merges, one per line after a header; the bytes are the same every time."""
    text = "\n".join(["#version: embedstore tiny", *(" ".join(m) for m in merges)])
    file.write_bytes(gzip.compress(text.encode(), mtime=0))


def _merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Return the parts of a word with every occurrence of the pair merged."""
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out
