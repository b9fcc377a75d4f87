"""Predictions that a test writes down itself, without a head that computes them."""

import json
from collections.abc import Mapping, Sequence

from embedstore.store import Store


def put_predictions(
    store: Store, head: str, labels: Mapping[int, Sequence[tuple[str, float]]], *, sets: bool = False
) -> None:
    """Store a head and its predictions, ``{item: [(label, score), …]}``; an empty list is a set without labels."""
    storage, space = store._session.storage, store.spaces[0].key
    with storage.writer("predict") as writer, writer.transaction() as con:
        facts = json.dumps({"classes": ["cat", "dog"], "digest": "0" * 64, "sets": sets})

        con.execute("INSERT INTO heads VALUES (?, ?, 'label', 'logistic', ?, now())", [head, space, facts])
        for item, pairs in labels.items():
            for label, score in pairs or [(None, None)]:
                con.execute(
                    "INSERT INTO predictions BY NAME SELECT ? AS head, item, ?::VARCHAR AS label, ?::DOUBLE AS score, "
                    "content FROM items WHERE item = ?",
                    [head, label, score, item],
                )
