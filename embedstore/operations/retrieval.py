"""Evaluate retrieval over labels or captions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Tower
from embedstore.classify.data.captions import CaptionedItems, load_captions
from embedstore.classify.data.features import Features
from embedstore.classify.data.near_duplicates import NearDuplicateOptions
from embedstore.classify.data.slices import load_slices
from embedstore.classify.data.task import require_classes
from embedstore.classify.retrieval.captions import CaptionPairs, retrieve_captions
from embedstore.classify.retrieval.directions import RetrievalSettings
from embedstore.classify.retrieval.labels import retrieve_labels
from embedstore.classify.retrieval.report import RetrievalReport
from embedstore.errors import BadOption, BadVectors
from embedstore.operations.evaluate import features
from embedstore.operations.query_encoder import encoder
from embedstore.operations.session import Session
from embedstore.operations.text_encoder import TextEncoder
from embedstore.storage.spaces import SpaceRecord
from embedstore.text_form import clean_split

EACH_ITEM = "each item in turn"


@dataclass(frozen=True)
class RetrievalOptions:
    """What is retrieved, and how it is reported.

    Attributes:
        captions: a column of texts; None evaluates a label.
        caption_vectors: ``(T, D)``, one per caption, instead of the text tower.
        ks: the ranks of the figures.
        queries: the split that queries; None makes every item a query.
        by: a column that R@1 is split by.
        near_duplicates: how copies are found.
    """

    captions: str | None = None
    caption_vectors: NDArray[Any] | None = None
    ks: Sequence[int] = (1, 5, 10)
    queries: str | None = None
    by: str | None = None
    near_duplicates: NearDuplicateOptions = field(default_factory=NearDuplicateOptions)

    def check(self, label: str | None, separator: str | None) -> None:
        """Refuse options that do not go together.

        Raises:
            BadOption: if a rank is below 1 or there is none, or an option of labels is given with captions, or one of
                captions without them.
        """
        if not self.ks or min(self.ks) < 1:
            raise BadOption(f"ks must be ranks of at least 1, such as 1, 5, 10, not {list(self.ks)}")
        if self.captions is None:
            if self.caption_vectors is not None:
                raise BadOption("caption_vectors are vectors of captions: give captions, the column of the texts")
            return
        given = {"label": label, "separator": separator, "queries": self.queries}
        if wrong := [name for name, value in given.items() if value is not None]:
            raise BadOption(f"captions find their own image: leave out {' and '.join(wrong)}, or captions")


def retrieval(
    session: Session,
    label: str | None,
    *,
    where: str | None,
    space: str | None,
    separator: str | None,
    options: RetrievalOptions,
) -> RetrievalReport:
    """Evaluate retrieval; see :meth:`embedstore.Store.retrieval`."""
    options.check(label, separator)
    record = session.space(space)
    run: dict[str, Any] = {"label": label, "captions": options.captions, "where": where, "queries": options.queries}
    run |= {"ks": list(options.ks), "by": options.by}

    def evaluate() -> RetrievalReport:
        start = time.perf_counter()
        by = None if options.by is None else load_slices(session.storage, options.by, where=where)
        settings = RetrievalSettings(sorted(set(options.ks)), by)
        if options.captions is not None:
            return _captions(session, record, where, options, settings, start)
        data = features(session, label or "label", where=where, space=record.key, separator=separator)
        return _labels(data, options, settings, start)

    return session.recorded("retrieval", record, run, evaluate)


def _labels(data: Features, options: RetrievalOptions, settings: RetrievalSettings, start: float) -> RetrievalReport:
    split = None if options.queries is None else clean_split(options.queries)
    data = options.near_duplicates.join(require_classes(data, "retrieval"))
    found = retrieve_labels(data, split, settings)
    return RetrievalReport(
        relevance=f"the same {data.label}",
        space=data.space,
        queries=split or EACH_ITEM,
        directions=(found,),
        n_unlabeled=data.n_unlabeled,
        near_duplicate_thresholds=data.near_duplicates.thresholds if data.near_duplicates else {},
        notes=data.label_notes,
        seconds=time.perf_counter() - start,
    )


def _captions(
    session: Session,
    record: SpaceRecord,
    where: str | None,
    options: RetrievalOptions,
    settings: RetrievalSettings,
    start: float,
) -> RetrievalReport:
    items = load_captions(session.storage, record, str(options.captions), where=where)
    pairs = CaptionPairs.of(items.captions)
    notes: tuple[str, ...] = ()
    if options.caption_vectors is None:
        towers = TextEncoder(encoder(session, record, Tower.TEXT))
        vectors = _encoded(towers.encode_texts, pairs.texts)
        notes = towers.notes()
    else:
        vectors = _given_vectors(options.caption_vectors, items, pairs, record)
    data = options.near_duplicates.join(items.features)
    return RetrievalReport(
        relevance=f"a text of {options.captions} that belongs to the image",
        space=record.name,
        queries=EACH_ITEM,
        directions=retrieve_captions(data, pairs, vectors, settings),
        n_unlabeled=items.n_without_caption,
        near_duplicate_thresholds=data.near_duplicates.thresholds if data.near_duplicates else {},
        notes=notes,
        seconds=time.perf_counter() - start,
    )


def _encoded(encode: Callable[[Sequence[str]], NDArray[np.float32]], texts: Sequence[str]) -> NDArray[np.float32]:
    """Encode texts in blocks."""
    return np.concatenate([encode(texts[i : i + 256]) for i in range(0, len(texts), 256)])


def _given_vectors(
    vectors: NDArray[Any], items: CaptionedItems, pairs: CaptionPairs, record: SpaceRecord
) -> NDArray[np.float32]:
    """Return the vector of each different text, of vectors that are in the order of all captions.

    Raises:
        BadVectors: if there is not one finite vector of the space's dimension per caption.
    """
    texts = [text for own in items.captions for text in own]
    shape = (len(texts), record.space.dim)
    if vectors.shape != shape or vectors.dtype.kind not in "fiu" or not np.isfinite(vectors).all():
        raise BadVectors(
            f"caption_vectors must be finite numbers {shape}, one row per caption (the items in order, the captions of "
            f"each in theirs), not {vectors.dtype} {vectors.shape}"
        )
    place = {text: row for row, text in reversed(list(enumerate(texts)))}
    return np.asarray(vectors[[place[text] for text in pairs.texts]], np.float32)
