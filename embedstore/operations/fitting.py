"""Whether anything in a collection fits a text."""

from __future__ import annotations

import threading

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Tower
from embedstore.modality import Modality
from embedstore.operations.query_encoder import encoder
from embedstore.operations.session import Session
from embedstore.operations.text_encoder import TextEncoder
from embedstore.search.cut_off import REFERENCES, alpha_of, cut_off
from embedstore.search.space_rows import MatchingRows
from embedstore.storage.queries import counts
from embedstore.storage.spaces import SpaceRecord

_BLOCK_ROWS = 16384
USUAL_STRICTNESS = 0.5
_GROWTH = 0.1  # of a collection from which the best scores are found again


class Fitting:
    """The cut-offs of one store, per space. Threads may share it.

    Args:
        session: the open store.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._references: dict[str, NDArray[np.float32]] = {}
        self._best: dict[str, tuple[int, NDArray[np.float32]]] = {}  # vectors, best scores
        self._lock = threading.Lock()

    def cut_off(self, space: str | None, strictness: float | None) -> float | None:
        """Return the least score with which an item fits a text; None where the space reads no text, or all shall fit.

        The first call in a space encodes the reference texts and searches for each; later ones look it up, until the
        collection has grown or shrunk by a tenth.

        Args:
            space: the space.
            strictness: from 0 (everything fits) to 1; at 0.5 an absent text has a hit in at most 5% of cases. None is
                0.5, and 0 among texts: a broad collection of texts mentions many of the references.
        """
        record = self._session.space(space)
        if strictness is None:
            strictness = 0.0 if record.space.modality is Modality.TEXT else USUAL_STRICTNESS
        alpha = alpha_of(strictness)
        if alpha is None or not record.space.text:
            return None
        with self._lock:
            return cut_off(self._best_scores(record), alpha)

    def _best_scores(self, record: SpaceRecord) -> NDArray[np.float32]:
        """Return the best score of each reference text."""
        storage = self._session.storage
        with storage.catalog.read() as con:
            count = counts.vectors_by_space(con).get(record.key, 0)
        known = self._best.get(record.key)
        if known is not None and abs(count - known[0]) <= _GROWTH * known[0]:
            return known[1]
        matching = MatchingRows.load(storage, record, None)
        references, read_rows = self._reference_vectors(record), matching.reader()
        best = np.full(len(references), -1.0, np.float32)
        for begin in range(0, len(matching), _BLOCK_ROWS):
            rows = np.arange(begin, min(len(matching), begin + _BLOCK_ROWS))
            best = np.maximum(best, (read_rows(rows) @ references.T).max(axis=0))
        self._best[record.key] = count, best
        return best

    def _reference_vectors(self, record: SpaceRecord) -> NDArray[np.float32]:
        """Return the vectors of the reference texts; they are encoded once."""
        if record.key not in self._references:
            text = TextEncoder(encoder(self._session, record, Tower.TEXT))
            self._references[record.key] = np.asarray(text.encode_texts(list(REFERENCES)), np.float32)
        return self._references[record.key]
