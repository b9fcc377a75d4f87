"""Small stores made of numbers, for tests that need no image."""

import hashlib

import numpy as np

from embedstore.space import Family, Space
from embedstore.storage.commit import CommitBatch
from embedstore.storage.item_columns import ItemRow
from embedstore.storage.storage import Storage
from embedstore.types import ContentInfo, ImageRef

SPACE = Space(family=Family.PRECOMPUTED, architecture="test", weights="", preprocess=None, dim=4, unit=False)

OTHER = Space(family=Family.PRECOMPUTED, architecture="other", weights="", preprocess=None, dim=3, unit=False)


def digest(n: int) -> str:
    """The content of item number n."""
    return hashlib.sha256(str(n).encode()).hexdigest()[:32]


def vector(n: int) -> np.ndarray:
    """The vector of item number n, exact in float16."""
    return np.array([1, n % 7, n % 11, n % 13], dtype=np.float32)


def other(n: int) -> np.ndarray:
    """The vector of item number n in the other space, exact in float32 only."""
    return np.array([n, 1 / 3, -n / 7], dtype=np.float32)


def batch(first: int, count: int) -> CommitBatch:
    """Items first … first + count - 1, each with its own content."""
    numbers = range(first, first + count)
    return CommitBatch(
        items=[ItemRow(ImageRef(f"/i/{n}.jpg", f"/i/{n}.jpg", n, n, f"c{n % 3}"), digest(n)) for n in numbers],
        content_info={digest(n): (n, ContentInfo(n, 1, "JPEG")) for n in numbers},
        digests=[digest(n) for n in numbers],
        vectors=[vector(n) for n in numbers],
    )


def make(path, *counts: int) -> Storage:
    """A store with one commit of each size."""
    storage = Storage.create(path)
    with storage.writer("test") as writer:
        writer.add_space(SPACE, name="test", dtype="float16", recipe=None)
        first = 1
        for count in counts:
            writer.commit(batch(first, count), space=storage.space())
            first += count
    return storage


def rows(storage: Storage) -> dict[str, list[float]]:
    """Every item's vector by uri: what the oracle compares."""
    with storage.catalog.read() as con:
        found = con.execute(
            'SELECT i.uri, v.shard, v."row" FROM items i JOIN vectors v ON v.content = i.content AND v.space = ? '
            "ORDER BY i.item",
            [SPACE.key],
        ).fetchall()
        vectors = storage.vector_reader_in(con, SPACE)
    positions = vectors.positions(np.array([f[1] for f in found], int), np.array([f[2] for f in found], int))
    return dict(zip([f[0] for f in found], vectors.read_float32(positions).tolist(), strict=True)) if found else {}


def expected(count: int) -> dict[str, list[float]]:
    """What :func:`rows` gives for items 1 … count."""
    return {f"/i/{n}.jpg": vector(n).tolist() for n in range(1, count + 1)}
