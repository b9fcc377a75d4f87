"""What must hold of a store after whatever was done to it: every row, not a sample."""

from pathlib import Path

from embedstore.storage.commit import CommitBatch
from embedstore.storage.integrity.verify import verify
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import batch, expected, rows


def acknowledged(folder: Path) -> int:
    """The last number that the job wrote down."""
    path = folder / "acknowledged"
    lines = path.read_text().split() if path.exists() else []
    return int(lines[-1]) if lines else 0


def missing(storage: Storage, first: int, count: int) -> CommitBatch:
    """The next items, with vectors for those contents that have none yet: recovery may have taken theirs back."""
    whole = batch(first, count)
    known = {c.replace("-", "") for (c,) in storage.sql("SELECT content::VARCHAR FROM vectors")[1]}
    kept = [i for i, d in enumerate(whole.digests) if d not in known]
    return CommitBatch(
        items=whole.items,
        image_info=whole.image_info,
        digests=[whole.digests[i] for i in kept],
        vectors=[whole.vectors[i] for i in kept],
    )


def check(folder: Path, least: int, size: int) -> list[str]:
    """Open, compare every row, verify every byte, go on, compare again.

    Args:
        folder: holds the store ``s``. least: rows that were acknowledged. size: rows of a commit.

    Returns:
        What recovery said.
    """
    storage = Storage.open(folder / "s")
    with storage.writer("after") as writer:
        found = rows(storage)
        assert len(found) >= least, f"{least} rows were acknowledged, {len(found)} are there"
        assert len(found) % size == 0, f"{len(found)} rows are not a number of commits of {size}"
        assert found == expected(len(found))
        items = storage.sql("SELECT count(*), count(DISTINCT uri), count(DISTINCT item) FROM items")[1][0]
        assert items == (len(found),) * 3
        writer.commit(missing(storage, len(found) + 1, size), space=storage.space())
    again = Storage.open(folder / "s")
    assert rows(again) == expected(len(found) + size)
    report = verify(again)
    assert report.damage == []
    assert not list((folder / "s").rglob("*.tmp"))
    return storage.notices
