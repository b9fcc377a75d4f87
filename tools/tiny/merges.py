"""A byte-pair vocabulary from the captions, in the format of open_clip's own (Sennrich et al. 2016)."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import regex
from open_clip.tokenizer import bytes_to_unicode

WORD = regex.compile(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
FREQUENT = 20  # words told at least as often as this become one token


def learn(captions: Iterable[str]) -> list[tuple[str, str]]:
    """Merges until every frequent word is one token, most frequent pairs first; ties by the alphabet."""
    counts = Counter(w for c in captions for w in WORD.findall(c.lower()))
    letters = bytes_to_unicode()
    words = {
        word: [letters[b] for b in word.encode()[:-1]] + [letters[word.encode()[-1]] + "</w>"]
        for word, n in counts.items()
        if n >= FREQUENT
    }
    merges = []
    while any(len(parts) > 1 for parts in words.values()):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in words.items():
            for pair in pairwise(parts):
                pairs[pair] += counts[word]
        best = max(pairs, key=lambda p: (pairs[p], p))
        merges.append(best)
        words = {word: _merged(parts, best) for word, parts in words.items()}
    return merges


def write(file: Path, merges: list[tuple[str, str]]) -> None:
    """The merges, one a line after a heading; the same bytes every time."""
    text = "\n".join(["#version: embedstore tiny", *(" ".join(m) for m in merges)])
    file.write_bytes(gzip.compress(text.encode(), mtime=0))


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """The parts of a word with every occurrence of the pair made one."""
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out
