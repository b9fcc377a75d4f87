"""Create the golden store of the current format: ``python -m tests.golden.make vN``. A published one never changes."""

import sys
from pathlib import Path

import numpy as np

import embedstore as es
from embedstore.storage.commit import CommitBatch, FailureRow
from embedstore.types import Failure, FailureReason

VECTORS = np.array([[3, 4], [4, 3], [-3, 4], [0, 1], [1, 0]], dtype=np.float32)
TABLE = {
    "uri": ["/golden/a.jpg", "/golden/b.jpg", "/golden/é.jpg", "/golden/d.jpg", "/golden/e.jpg"],
    "label": ["cat", "cat", "dog", "dog", None],
    "split": ["train", "val", "train", "val", None],
    "group": ["g1", "g1", None, None, None],
    "year": [2019, 2020, 2021, 2022, 2023],
}


def main(path: Path) -> None:
    """Create a store with five items in two commits, one failure, a column of the user's own and computed columns."""
    store = es.create(path)
    first = {k: v[:3] for k, v in TABLE.items()}
    rest = {k: v[3:] for k, v in TABLE.items()}
    store.add_vectors(VECTORS[:3], first, space="golden")
    store.add_vectors(VECTORS[3:], rest, space="golden")
    failure = Failure("/golden/bad.jpg", "/golden/bad.jpg", 7, 8, FailureReason.CORRUPT, "made for the golden store")
    storage = store._session.storage
    with storage.writer("golden") as writer:
        writer.commit(CommitBatch(failures=[FailureRow(failure)]), space=storage.space(), decoder="golden")
    store.duplicates(0.95, write_columns=True)
    store.cluster(2)


if __name__ == "__main__":
    main(Path(__file__).parent / sys.argv[1])
