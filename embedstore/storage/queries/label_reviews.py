"""Labels that a person has confirmed. They are runs, so a store of an older version holds them as well."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from embedstore.storage.storage import Storage

OPERATION = "confirm_labels"


def label_digest(label: str) -> str:
    """Return what stands for a label in the record: a later label of the item is another one, and needs a review."""
    return hashlib.sha256(label.encode()).hexdigest()[:16]


def confirmed_labels(storage: Storage, column: str) -> dict[int, str]:
    """Return the digest of the label that was confirmed last, by item.

    Args:
        storage: the store.
        column: the column of the labels.
    """
    query = (
        "SELECT (pair->>0)::BIGINT, pair->>1 "
        "FROM (SELECT run, unnest(from_json(result->'items', '[\"JSON\"]')) AS pair FROM runs "
        "WHERE verb = ? AND lower(settings->>'label') = lower(?)) ORDER BY run"
    )
    return {int(item): digest for item, digest in storage.sql(query, [OPERATION, column])[1]}
