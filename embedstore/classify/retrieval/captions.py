"""Captions that find their image, and images that find one of their captions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import FloatArray, IntArray, unit_rows
from embedstore.classify.data.features import Features
from embedstore.classify.retrieval.directions import Queries, RetrievalSettings, evaluate_direction
from embedstore.classify.retrieval.ranking import Judgment
from embedstore.classify.retrieval.report import RetrievalDirection

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text to image", "image to text"


@dataclass(frozen=True)
class CaptionPairs:
    """Texts, and the items that they describe.

    Attributes:
        texts: the different texts ``(T,)``.
        places: for each text the places of its items among the rows of the features.
    """

    texts: list[str]
    places: list[list[int]]

    @classmethod
    def of(cls, captions: Sequence[Sequence[str]]) -> CaptionPairs:
        """Collect the captions of every row; a text that several rows have is one text.

        Args:
            captions: the texts of each row.
        """
        places: dict[str, list[int]] = {}
        for row, texts in enumerate(captions):
            for text in texts:
                places.setdefault(text, []).append(row)
        return cls(list(places), list(places.values()))


@dataclass(frozen=True)
class _Images:
    """The images of the captions: rows of one vector are one image.

    Attributes:
        rows: int64 ``(N,)``, the first row of each image.
        of_rows: int64 ``(M,)``, the image of each row.
    """

    rows: IntArray
    of_rows: IntArray

    @classmethod
    def of(cls, X: FloatArray) -> _Images:
        """Find the different vectors: items of one content have the same."""
        packed = np.ascontiguousarray(X).view(np.dtype((np.void, X.dtype.itemsize * X.shape[1]))).ravel()
        _, rows, of_rows = np.unique(packed, return_index=True, return_inverse=True)
        return cls(rows.astype(np.int64), of_rows.astype(np.int64))


def retrieve_captions(
    data: Features, pairs: CaptionPairs, text_vectors: FloatArray, settings: RetrievalSettings
) -> tuple[RetrievalDirection, RetrievalDirection]:
    """Evaluate both directions; any caption of an image counts.

    Rows of one vector (the same content) are one image with all their captions, and a text that several images have is
    right for all of them. Near-duplicates of a text's image that do not have the text are no candidates for it.

    Args:
        data: the rows with a caption, with near-duplicates joined into the groups or not.
        pairs: their texts.
        text_vectors: float32 ``(T, D)``, of the texts.
        settings: the ranks and the column.

    Raises:
        LabelError: if whatever a query may find is relevant to it, as with one image.
    """
    images = _Images.of(data.X)
    exact = data.groups if data.exact_groups is None else data.exact_groups
    described = _incidence(pairs, images.of_rows)
    near, same = (_described_groups(pairs, groups, images.rows) for groups in (data.groups, exact))
    image_vectors, unit_texts = unit_rows(data.X[images.rows]), unit_rows(text_vectors)
    first = np.array([p[0] for p in pairs.places], np.int64)

    def judge_images(s: slice) -> Judgment:
        return _dense(described[s]), _dense(near[s]) & ~_dense(same[s])

    def judge_texts(s: slice) -> Judgment:
        return _dense(described[:, s].T), _dense(near[:, s].T) & ~_dense(same[:, s].T)

    texts = Queries(unit_texts, data.ids[first], data.groups[first])
    pictures = Queries(image_vectors, data.ids[images.rows], data.groups[images.rows])
    return (
        evaluate_direction(TEXT_TO_IMAGE, texts, image_vectors, judge_images, settings),
        evaluate_direction(IMAGE_TO_TEXT, pictures, unit_texts, judge_texts, settings),
    )


def _dense(matrix: Any) -> NDArray[np.bool_]:
    return np.asarray(matrix.toarray() > 0)


def _described_groups(pairs: CaptionPairs, groups: IntArray, rows: IntArray) -> Any:
    """Return which images are in a group that each text describes, a sparse matrix ``(T, N)``."""
    codes = np.unique(groups, return_inverse=True)[1]
    of_texts = _incidence(pairs, codes)
    return of_texts[:, codes[rows]].tocsc()


def _incidence(pairs: CaptionPairs, codes: IntArray) -> Any:
    """Return which codes the rows of each text have, a sparse matrix ``(T, codes)``."""
    from scipy.sparse import csc_matrix

    rows = np.repeat(np.arange(len(pairs.texts)), [len(p) for p in pairs.places])
    columns = codes[np.concatenate([np.asarray(p, np.int64) for p in pairs.places])]
    return csc_matrix((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(pairs.texts), int(codes.max()) + 1))
