"""The captions of items: one text, or a list of texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedstore.classify.data.features import Features, load_features
from embedstore.errors import LabelError
from embedstore.storage import filters as item_filter
from embedstore.storage.queries.features import feature_columns, label_column
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.text_form import is_absent


@dataclass(frozen=True)
class CaptionedItems:
    """Items with their captions.

    Attributes:
        features: the vectors and groups of the items that have a caption.
        captions: the texts of each, in the order of its list.
        n_without_caption: items that have none.
    """

    features: Features
    captions: list[list[str]]
    n_without_caption: int


def load_captions(storage: Storage, space: SpaceRecord, column: str, *, where: str | None = None) -> CaptionedItems:
    """Load every present item that has a caption and a vector.

    Args:
        storage: the store.
        space: the space.
        column: a column of texts or of lists of texts.
        where: a filter, as in search.

    Raises:
        UnknownColumn: if the items have no such column, or the filter names an unknown one.
        BadFilter: if the filter is not valid.
        LabelError: if no item has both.
    """
    data = load_features(storage, space, column, where=where)
    with storage.catalog.read() as con, item_filter.filter_errors(con, where):
        found = label_column(con, column)
        if found is None:
            raise LabelError(f"the column {column!r} was removed while it was read; run the command again")
        rows = feature_columns(con, found, space=space.key, condition=item_filter.compile_filter(con, where))
    texts = {i: _texts(v) for i, v in zip(rows.item.tolist(), rows.label.tolist(), strict=True)}
    captions = [texts.get(item, []) for item in data.ids.tolist()]
    kept = np.flatnonzero([bool(c) for c in captions])
    if not len(kept):
        raise LabelError(f"no item has a text in {column!r}; give another column of captions")
    without = data.n_unlabeled + len(data) - len(kept)
    return CaptionedItems(data.take(kept), [captions[i] for i in kept.tolist()], without)


def _texts(value: Any) -> list[str]:
    """Return the texts of a value that are not absent."""
    values = value if isinstance(value, list) else [value]
    return [str(v).strip() for v in values if not is_absent(v)]
