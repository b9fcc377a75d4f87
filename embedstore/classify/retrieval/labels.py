"""Items that find items of the same label: each in turn, or those of one split among the others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.classify.data.features import Features
from embedstore.classify.data.split_leaks import SplitNearDuplicates, split_near_duplicates
from embedstore.classify.data.splits import TrainTestSplit
from embedstore.classify.retrieval.directions import Queries, RetrievalSettings, evaluate_direction
from embedstore.classify.retrieval.ranking import Judgment
from embedstore.classify.retrieval.report import RetrievalDirection
from embedstore.errors import LabelError
from embedstore.wording import counted

IMAGE_TO_IMAGE = "item to item"
Rows = NDArray[np.int64]


def retrieve_labels(data: Features, split: str | None, settings: RetrievalSettings) -> RetrievalDirection:
    """Evaluate how well items find others of their label.

    Items of the query's own group (its copies, and those of one declared group) are no candidates: neither found nor
    missed. With several labels per item, an item is relevant that has one of the query's.

    Args:
        data: labeled rows, with near-duplicates joined into the groups or not.
        split: the split whose items are queries, the others being the gallery; None makes every item a query.
        settings: the ranks and the column.

    Raises:
        LabelError: if there is no query or no gallery, no query has a relevant item, or all that it may find is.
    """
    is_query = np.ones(len(data), bool) if split is None else data.splits == split
    gallery = np.flatnonzero(is_query if split is None else ~is_query)
    rows = np.flatnonzero(is_query)
    if not len(rows) or not len(gallery):
        have = sorted({str(s) for s in data.splits.tolist() if s is not None})
        raise LabelError(
            f"{counted(len(rows), 'labeled item has', 'labeled items have')} the split {split!r} and {len(gallery)} "
            "do not; queries are searched among "
            f"the others (splits: {', '.join(have) or 'none'}); leave out queries to use each item in turn"
        )
    labels = _indicators(data)
    of_queries, of_gallery = labels[rows], labels[gallery].T.tocsc()

    def judge(s: slice) -> Judgment:
        relevant = (of_queries[s] @ of_gallery).toarray() > 0
        return relevant, data.groups[rows[s]][:, None] == data.groups[gallery]

    unit = unit_rows(data.X)
    near = None if split is None else _near_duplicates(data, split, gallery, rows)
    queries = Queries(unit[rows], data.ids[rows], data.groups[rows], near)
    found = evaluate_direction(IMAGE_TO_IMAGE, queries, unit[gallery], judge, settings)
    if not found.n_queries:
        raise LabelError(
            f"no item has another one of its label {data.label!r} to find, copies and groups left out; label more, or "
            "give another column"
        )
    return found


def _near_duplicates(data: Features, split: str, gallery: Rows, rows: Rows) -> SplitNearDuplicates | None:
    """Return the near-duplicates of the queries in the gallery, none of which is a candidate."""
    exact = data.groups if data.exact_groups is None else data.exact_groups
    is_equal = np.isin(exact[gallery], exact[rows])
    sides = TrainTestSplit(gallery[~is_equal], rows, split, int(is_equal.sum()), leaks=gallery[is_equal])
    return split_near_duplicates(data, sides, drop=True)[1]


def _indicators(data: Features) -> Any:
    """Return which labels each row has, a sparse 0-1 matrix ``(N, labels)``."""
    from scipy.sparse import csr_matrix

    sets = data.y.tolist() if data.multilabel else [(label,) for label in data.y.tolist()]
    names = {label: i for i, label in enumerate(sorted({str(v) for labels in sets for v in labels}))}
    columns = [names[str(v)] for labels in sets for v in labels]
    ends = np.cumsum([0, *(len(labels) for labels in sets)])
    return csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(sets), max(len(names), 1)))
