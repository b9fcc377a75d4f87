"""Classify images that are not items of the store."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads, registry
from embedstore.errors import BadOption, ItemError
from embedstore.operations.encode import NewItems, encode_images, open_images
from embedstore.operations.session import Session
from embedstore.pipeline.unstored import UnstoredImage
from embedstore.reports.classified import ClassifiedImage, ClassifiedImages, FileReader, NearestItem
from embedstore.reports.progress import Progress
from embedstore.search.options import SearchOptions
from embedstore.sources.locations import read_location
from embedstore.sources.source import Source
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.spaces import SpaceRecord
from embedstore.types import Failure, Hit, ImageRef

MOST_PROBABLE = 5  # classes that a result lists
MAX_EVIDENCE = 100
_BLOCK = 1024  # images that are predicted at once


def classify(
    session: Session, images: NewItems, *, head: str, evidence: int, space: str | None, progress: Progress
) -> ClassifiedImages:
    """Classify images without storing them; see :meth:`embedstore.Store.classify`."""
    if not 0 <= evidence <= MAX_EVIDENCE:
        raise BadOption(f"evidence is a number of items from 0 to {MAX_EVIDENCE}, not {evidence}")
    begin = time.perf_counter()
    named = session.space(space) if space else None
    record, estimator = registry.load_head(session.storage, head, space=named)
    own_space = session.space(record.space_key)
    modality = own_space.space.modality
    opened = open_images(images, modality)
    of_encoder: list[str] = []
    encoded = encode_images(session, own_space, opened, progress=progress, notify=of_encoder.append)
    nearest = _Evidence(session, own_space, record.label, evidence)
    classified: list[ClassifiedImage] = []
    while block := list(islice(encoded, _BLOCK)):
        classified += _classify_block(estimator, block, nearest)
    reader = file_reader(opened.source, opened.refs)
    if images.table.text_column is not None:
        classified = [replace(image, text=_text(reader(image.image))) for image in classified]
    seconds = time.perf_counter() - begin
    result = ClassifiedImages(record.name, tuple(classified), seconds, record.label, own_space.name, reader)
    return replace(result, plural=modality.plural, notices=(*opened.notices, *of_encoder))


def file_reader(source: Source, refs: list[ImageRef]) -> FileReader:
    """Return what reads the file of a classified image or of an item by its uri; None where it cannot be read."""
    by_uri = {ref.uri: ref for ref in refs}

    def read(uri: str) -> bytes | None:
        if uri in by_uri:
            data = next(source.read([by_uri[uri]]))
            return None if isinstance(data, Failure) else data
        try:
            return read_location(uri)
        except ItemError:
            return None

    return read


def _text(data: bytes | None) -> str:
    """Return the text of a row; empty where there is none."""
    return (data or b"").decode("utf-8", "replace")


class _Evidence:
    """Finds the labeled items that are nearest to images.

    Args:
        session: the open store.
        space: the space of the head.
        label: the column that the head predicts.
        count: items per image.
    """

    def __init__(self, session: Session, space: SpaceRecord, label: str, count: int) -> None:
        self._session, self._space, self._count = session, space, count
        self._label = label
        self._where = f"{quote_identifier(label)} IS NOT NULL"

    def find(self, vectors: list[NDArray[np.float32]]) -> list[tuple[NearestItem, ...]]:
        """Return the labeled items that are nearest to each vector, best first."""
        if not self._count:
            return [()] * len(vectors)
        options = SearchOptions(k=self._count, where=self._where)
        found = self._session.searcher.search_many(self._space, vectors, options)
        return [tuple(NearestItem(h.item, h.uri, self._label_of(h), h.score) for h in hits) for hits in found]

    def _label_of(self, hit: Hit) -> Any:
        """Return the value of a hit in the column that the head predicts."""
        own = {"label": hit.label, "split": hit.split}
        return own[self._label] if self._label in own else hit.columns[self._label]


def _classify_block(estimator: Any, block: list[UnstoredImage], nearest: _Evidence) -> Iterator[ClassifiedImage]:
    """Yield the predictions of one block, in order."""
    vectors = [image.vector for image in block if image.vector is not None]
    predict = _numbers if registry.predicts_numbers(estimator) else _classes
    evidence = nearest.find(vectors) if vectors else []
    following = zip(predict(estimator, np.stack(vectors)) if vectors else (), evidence, strict=True)
    for image in block:
        if image.vector is None:
            yield ClassifiedImage(image.uri, failure=_reason(image))
        else:
            predicted, items = next(following)
            yield replace(predicted, image=image.uri, evidence=items)


def _classes(estimator: Any, X: NDArray[np.float32]) -> Iterator[ClassifiedImage]:
    """Yield the classes of each row with their probabilities."""
    proba = heads.probabilities(estimator, X)
    classes = [str(c) for c in estimator.classes_]
    for p, member in zip(proba, registry.predicted_members(estimator, proba), strict=True):
        order = np.argsort(-p, kind="stable")[:MOST_PROBABLE]
        labels = tuple(classes[i] for i in np.flatnonzero(member))
        yield ClassifiedImage("", labels, float(p.max()), tuple((classes[i], float(p[i])) for i in order))


def _numbers(estimator: Any, X: NDArray[np.float32]) -> Iterator[ClassifiedImage]:
    """Yield the number of each row with its interval."""
    for number, low, high in zip(estimator.predict(X), *estimator.predict_interval(X), strict=True):
        yield ClassifiedImage("", number=float(number), interval=(float(low), float(high)))


def _reason(image: UnstoredImage) -> str:
    """Return why an image has no prediction, in one line."""
    return f"{image.failure.reason}: {image.failure.detail}" if image.failure else "it has no vector"
