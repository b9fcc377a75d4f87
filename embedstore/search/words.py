"""A lexical index of one column: BM25 scores of its texts, by the library bm25s.

A word is a run of letters, digits and underscores, in Unicode's compatible form and without case. No word is left out
and none is stemmed, as the language is not known; common words have low scores by themselves.
"""

from __future__ import annotations

import json
import re
import unicodedata
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.resources import memory_share

MAX_BYTES = 2 << 30  # of memory while an index is made, and of its file
_WORD_BYTES = 48  # that one word of a text takes while an index is made
_WORD = re.compile(r"\w+")
K1, B = 1.5, 0.75  # of BM25: the middle of what Robertson and Zaragoza (2009) recommend


@dataclass(frozen=True, eq=False)
class WordIndex:
    """The BM25 scores of a column, by word.

    Attributes:
        items: int64 ``(n,)`` ids of the items whose text has a word, ascending.
        places: the number of each word.
        starts: int64 ``(words + 1,)``: the scores of word w are at ``starts[w]`` to ``starts[w + 1]``.
        documents: int32 ``(m,)`` places in ``items``.
        scores: float32 ``(m,)``, above 0.
    """

    items: NDArray[np.int64]
    places: dict[str, int]
    starts: NDArray[np.int64]
    documents: NDArray[np.int32]
    scores: NDArray[np.float32]

    def rank(self, text: str, allowed: NDArray[np.bool_] | None, count: int) -> NDArray[np.int64]:
        """Return the items with the highest scores above 0, best first, equal scores by ascending id.

        Args:
            text: the query.
            allowed: bool, one per entry of ``items``: which may be returned; None for all.
            count: how many items at most.
        """
        scores = self._scores(split_words(text))
        if allowed is not None:
            scores[~allowed] = 0
        found = np.flatnonzero(scores)
        if len(found) > count:
            least = np.partition(scores[found], -count)[-count]
            found = found[scores[found] >= least]
        return self.items[found[np.lexsort((found, -scores[found]))][:count]]

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a query that no text has."""
        return [word for word in dict.fromkeys(split_words(text)) if word not in self.places]

    def _scores(self, words: list[str]) -> NDArray[np.float32]:
        """Return the score of every text: float32 ``(n,)``."""
        known = [self.places[word] for word in words if word in self.places]
        if not known:
            return np.zeros(len(self.items), np.float32)
        scores: NDArray[np.float32] = self._library.get_scores_from_ids(known)
        return scores

    @cached_property
    def _library(self) -> Any:
        """The library's object over these arrays."""
        library = _new_library()
        library.scores = {
            "data": self.scores, "indices": self.documents, "indptr": self.starts, "num_docs": len(self.items)
        }  # fmt: skip
        library.nonoccurrence_array = None
        return library


def split_words(text: str) -> list[str]:
    """Return the words of a text in their order."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def build_word_index(column: str, texts: Iterable[tuple[int, str]]) -> WordIndex:
    """Make the index of some texts.

    Args:
        column: their column, for messages.
        texts: id and text of each item, by ascending id.

    Raises:
        QueryError: if they have more words than fit into the memory of this process.
    """
    limit = memory_share(MAX_BYTES, 4) // _WORD_BYTES
    items, places, count = array("q"), dict[str, int](), 0
    numbers: list[array[int]] = []
    for item, text in texts:
        words = array("i", (places.setdefault(word, len(places)) for word in split_words(text)))
        count += len(words)
        if count > limit:
            raise QueryError(
                f"column {column} has more than {limit:,} words, and an index of them does not fit into the memory of "
                "this process; search a column of shorter texts, or by vectors alone"
            )
        if words:  # a text without words is no document: it would change the mean length
            items.append(item)
            numbers.append(words)
    return _index(np.array(items, np.int64), numbers, places)


def _index(items: NDArray[np.int64], numbers: list[array[int]], places: dict[str, int]) -> WordIndex:
    """Let the library compute the scores."""
    if not places:
        return WordIndex(items, {}, np.zeros(1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    library = _new_library()
    scores = library.build_index_from_ids(list(places.values()), numbers, show_progress=False)
    starts, documents = scores["indptr"].astype(np.int64), scores["indices"].astype(np.int32)
    return WordIndex(items, places, starts, documents, scores["data"].astype(np.float32))


def _new_library() -> Any:
    """Return an empty BM25 with Lucene's formula, whose scores are never negative."""
    import bm25s

    return bm25s.BM25(k1=K1, b=B, method="lucene", backend="numpy", csc_backend="numpy")


def to_bytes(index: WordIndex, fingerprint: str) -> bytes:
    """Return an index as a safetensors file.

    Args:
        index: the index.
        fingerprint: the fingerprint of the texts that it was made of.
    """
    from safetensors.numpy import save

    words = np.frombuffer(json.dumps(list(index.places)).encode(), np.uint8)
    arrays = {"items": index.items, "starts": index.starts, "documents": index.documents, "scores": index.scores}
    return bytes(save({**arrays, "words": words, "fingerprint": np.frombuffer(fingerprint.encode(), np.uint8)}))


def from_bytes(data: bytes, fingerprint: str) -> WordIndex | None:
    """Return the index in a file, None if it was made of other texts. The file may come from somebody else.

    Raises:
        ValueError: if it is damaged, or its numbers do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        if arrays["fingerprint"].tobytes() != fingerprint.encode():
            return None
        words = json.loads(arrays["words"].tobytes())
        index = WordIndex(
            arrays["items"], {word: n for n, word in enumerate(words)}, arrays["starts"], arrays["documents"],
            arrays["scores"],
        )  # fmt: skip
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    _require_consistent(index, len(words))
    return index


def _require_consistent(index: WordIndex, words: int) -> None:
    """Require that an index names no place outside of its arrays.

    Raises:
        ValueError: if it does.
    """
    kinds = [str(array.dtype) for array in (index.items, index.starts, index.documents, index.scores)]
    shapes = [array.shape for array in (index.starts, index.scores, index.items)]
    expected = [(words + 1,), (len(index.documents),), (len(index.items),)]
    if kinds != ["int64", "int64", "int32", "float32"] or shapes != expected or len(index.places) != words:
        raise ValueError("its arrays have other types or shapes")
    bounds = np.concatenate([[0], index.starts, [len(index.documents)]])
    places = index.documents
    if (np.diff(bounds) < 0).any() or (np.diff(index.items) <= 0).any():
        raise ValueError("its numbers do not ascend")
    if len(places) and not (places.min() >= 0 and places.max() < len(index.items)):
        raise ValueError("it names texts that it does not have")
    if not np.isfinite(index.scores).all() or (index.scores < 0).any():
        raise ValueError("its scores are not numbers from 0")
