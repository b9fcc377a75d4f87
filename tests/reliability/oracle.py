"""Check what must hold of a store after any interruption: every row, not a sample."""

from pathlib import Path

from embedstore.storage.commit import CommitBatch
from embedstore.storage.integrity.verify import verify
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import batch, expected, rows


def acknowledged_rows(folder: Path) -> int:
    """Return how many rows the job acknowledged last."""
    path = folder / "acknowledged"
    lines = path.read_text().split() if path.exists() else []
    return int(lines[-1]) if lines else 0


def missing_batch(storage: Storage, first: int, count: int) -> CommitBatch:
    """Return the next items, with vectors for contents that have none: recovery may have registered theirs already."""
    whole = batch(first, count)
    known = {c.replace("-", "") for (c,) in storage.sql("SELECT content::VARCHAR FROM vectors")[1]}
    kept = [i for i, d in enumerate(whole.digests) if d not in known]
    return CommitBatch(
        items=whole.items,
        content_info=whole.content_info,
        digests=[whole.digests[i] for i in kept],
        vectors=[whole.vectors[i] for i in kept],
    )


def check_store(folder: Path, least: int, size: int) -> list[str]:
    """Open a store, compare every row, add a commit, compare again and verify every byte.

    Args:
        folder: the folder of the store ``s``.
        least: rows that were acknowledged.
        size: rows per commit.

    Returns:
        The notices of recovery.
    """
    storage = Storage.open(folder / "s")
    with storage.writer("after") as writer:
        found = rows(storage)
        assert len(found) >= least, f"{least} rows were acknowledged, {len(found)} exist"
        assert len(found) % size == 0, f"{len(found)} rows are not whole commits of {size}"
        assert found == expected(len(found))
        items = storage.sql("SELECT count(*), count(DISTINCT uri), count(DISTINCT item) FROM items")[1][0]
        assert items == (len(found),) * 3
        writer.commit(missing_batch(storage, len(found) + 1, size), space=storage.space())
    again = Storage.open(folder / "s")
    assert rows(again) == expected(len(found) + size)
    report = verify(again)
    assert report.damage == []
    assert not list((folder / "s").rglob("*.tmp"))
    return storage.notices
