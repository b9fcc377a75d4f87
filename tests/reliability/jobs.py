"""Every kind of work that is not a plain commit: what it works on, its code, and what must hold of it after."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedstore.classify import registry
from embedstore.classify.data.features import load_features
from embedstore.classify.heads.prototype import NearestPrototype
from embedstore.search.execute import Searcher
from embedstore.search.index import build
from embedstore.search.options import SearchOptions
from embedstore.storage import compact, item_changes
from embedstore.storage.commit import CommitBatch
from embedstore.storage.integrity.backup import backup, restore
from embedstore.storage.integrity.repair import repair
from embedstore.storage.integrity.verify import verify
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.shard import Shard, read_shard_header
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import read_archive as reading
from embedstore.storage.transfer import write_archive as writing
from tests.conftest import ROOT
from tests.golden.make import VECTORS
from tests.helpers.vector_stores import OTHER, SPACE, digest, expected, make, other, rows, vector

OPEN = (
    "import sys\nfrom pathlib import Path\nfrom embedstore.storage.storage import Storage\nhere = Path(sys.argv[1])\n"
)


@dataclass(frozen=True)
class Job:
    """One kind of work.

    Attributes:
        prepare: makes what it works on. code: the work, in a process of its own.
        done: once it was acknowledged, it is there. Before anything is mended; gets the folder.
        check: whole, whenever it ended; then the work is done again. Gets the folder.
    """

    prepare: Callable[[Path], object]
    code: str
    done: Callable[[Path], None]
    check: Callable[[Path], None]


def whole(path: Path, wanted: dict[str, list[float]]) -> Storage:
    """Open for writing, compare every row, verify every byte."""
    storage = Storage.open(path)
    with storage.writer("after"):
        assert rows(storage) == wanted
    report = verify(storage)
    assert report.damage == []
    return storage


def golden(folder: Path) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "v1", folder / "s")


def is_new(folder: Path) -> None:
    assert Storage.open(folder / "s").sql('SELECT max(migration) FROM "schema"')[1] == [(3,)]


def migrated(folder: Path) -> None:
    storage = Storage.open(folder / "s")
    with storage.writer("again"):
        pass
    space = storage.space()
    assert storage.sql('SELECT migration FROM "schema" ORDER BY 1')[1] == [(1,), (2,), (3,)]
    assert np.array_equal(load_features(storage, space, "uri").X, VECTORS)
    assert storage.sql("SELECT count(*), count(DISTINCT item) FROM items")[1] == [(5, 5)]
    assert verify(storage).damage == []


SECOND = (
    OPEN
    + """
from tests.helpers.vector_stores import OTHER, SPACE, digest, other
from embedstore.storage.commit import CommitBatch
storage = Storage.open(here / "s")
with storage.writer("a second model") as writer:
    writer.add_space(OTHER, name="other", dtype="float32", recipe=None)
    for first in (1, 9):
        numbers = range(first, first + 8)
        made = CommitBatch(digests=[digest(n) for n in numbers], vectors=[other(n) for n in numbers])
        writer.commit(made, space=storage.space("other"))
"""
)


def has_both(folder: Path) -> None:
    assert Storage.open(folder / "s").sql("SELECT count(*) FROM vectors GROUP BY space")[1] == [(16,), (16,)]


def second_space(folder: Path) -> None:
    storage = whole(folder / "s", expected(16))
    with storage.writer("again") as writer:
        writer.add_space(OTHER, name="other", dtype="float32", recipe=None)
        have = {
            c.replace("-", "")
            for (c,) in storage.sql("SELECT content::VARCHAR FROM vectors WHERE space = ?", [OTHER.key])[1]
        }
        left = [n for n in range(1, 17) if digest(n) not in have]
        if left:
            made = CommitBatch(digests=[digest(n) for n in left], vectors=[other(n) for n in left])
            writer.commit(made, space=storage.space("other"))
    assert [s.name for s in storage.spaces()] == ["test", "other"]
    found = storage.sql('SELECT content::VARCHAR, shard, "row" FROM vectors WHERE space = ?', [OTHER.key])[1]
    held = storage.vector_reader(OTHER)
    got = held.read_float32(held.positions(np.array([f[1] for f in found]), np.array([f[2] for f in found])))
    assert {f[0].replace("-", ""): v.tolist() for f, v in zip(found, got, strict=True)} == {
        digest(n): other(n).tolist() for n in range(1, 17)
    }
    whole(folder / "s", expected(16))


INDEX = (
    OPEN
    + """
from embedstore.search.index.build import IndexTarget, build_index
storage = Storage.open(here / "s")
build_index(storage, storage.space(), IndexTarget(recall=1.0, kind="flat"))
"""
)


def nearest(storage: Storage, n: int) -> list[tuple[float, int]]:
    return [(h.score, h.item) for h in Searcher(storage).search(storage.space(), vector(n), SearchOptions(k=8)).hits]


def brute(n: int, items: range) -> list[tuple[float, int]]:
    q = (vector(n) / np.linalg.norm(vector(n).astype(np.float64))).astype(np.float32).astype(np.float64)
    found = []
    for i in items:
        v = vector(i).astype(np.float64)
        found.append((float((v * q).sum() / np.sqrt((v * v).sum())), i))
    return sorted(found, key=lambda f: (-f[0], f[1]))[:8]


def has_index(folder: Path) -> None:
    assert [i["usable"] for i in build.list_indexes(Storage.open(folder / "s"))] == [True]


def indexed(folder: Path) -> None:
    for _ in range(2):
        storage = whole(folder / "s", expected(16))
        assert nearest(storage, 3) == brute(3, range(1, 17))
        assert all(i["usable"] for i in build.list_indexes(storage) if i.get("why") is None)
        build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    assert [i["usable"] for i in build.list_indexes(storage)] == [True]
    repair(folder / "s")
    assert not [p for p in (folder / "s").rglob("*") if p.suffix in (".tmp", ".new")]


X = np.array([vector(n) for n in range(1, 17)], np.float32)


def head(seed: int) -> NearestPrototype:
    return NearestPrototype().fit(X, np.array([f"c{(n + seed) % 3}" for n in range(16)]))


def one_head(folder: Path) -> None:
    storage = make(folder / "s", 8, 8)
    registry.save_head(storage, storage.space(), "kind", head(0), label="label", kind="prototype", metadata={"seed": 0})


HEAD = (
    OPEN
    + """
from embedstore.classify.registry import save_head
from tests.reliability.jobs import head
storage = Storage.open(here / "s")
save_head(storage, storage.space(), "kind", head(1), label="label", kind="prototype", metadata={"seed": 1})
"""
)


def has_head(folder: Path) -> None:
    row, found = registry.load_head(Storage.open(folder / "s"), "kind")
    assert row.metadata["seed"] == 1
    assert np.array_equal(found.predict_proba(X), head(1).predict_proba(X))


def kept(folder: Path) -> None:
    storage = whole(folder / "s", expected(16))
    row, found = registry.load_head(storage, "kind")
    assert np.array_equal(found.predict_proba(X), head(row.metadata["seed"]).predict_proba(X))
    registry.save_head(storage, storage.space(), "kind", head(1), label="label", kind="prototype", metadata={"seed": 1})
    assert np.array_equal(registry.load_head(storage, "kind")[1].predict_proba(X), head(1).predict_proba(X))
    assert [p.name for p in (folder / "s" / "heads").iterdir()] == ["kind"]


def shrunk(folder: Path) -> None:
    storage = make(folder / "s", 8, 8, 8)
    with storage.writer("fewer") as writer:
        item_changes.purge(writer, ItemSelection(items=[2, 9]))
        item_changes.delete(writer, ItemSelection(items=[17]))


COMPACT = (
    OPEN
    + """
from embedstore.storage import compact
storage = Storage.open(here / "s")
with storage.writer("compact") as writer:
    compact.compact(storage, writer)
"""
)


def is_compact(folder: Path) -> None:
    assert not {digest(n) for n in (2, 9, 17)} & {c for p in folder.rglob("*.vec") for c in Shard(p).contents}


def compacted(folder: Path) -> None:
    wanted = {u: v for u, v in expected(24).items() if u not in ("/i/2.jpg", "/i/9.jpg", "/i/17.jpg")}
    storage = whole(folder / "s", wanted)
    with storage.writer("again") as writer:
        compact.compact(storage, writer)
    whole(folder / "s", wanted)
    stored = [c for p in (folder / "s").rglob("*.vec") if "quarantine" not in p.parts for c in Shard(p).contents]
    assert sorted(stored) == sorted(digest(int(u[3:-4])) for u in wanted), "what was forgotten left the disk"


BACKUP = (
    OPEN
    + """
from embedstore.storage.integrity.backup import backup, restore
backup(Storage.open(here / "s"), here / "b")
restore(here / "b", here / "r")
"""
)


def has_copies(folder: Path) -> None:
    assert [rows(Storage.open(folder / name)) for name in "br"] == [expected(16)] * 2


def copied(folder: Path) -> None:
    whole(folder / "s", expected(16))
    for name, again in (("b", lambda: backup(Storage.open(folder / "s"), folder / "b")),
                        ("r", lambda: restore(folder / "b", folder / "r"))):  # fmt: skip
        if not (folder / name).exists():
            again()
        assert rows(Storage.open(folder / name)) == expected(16)
        assert verify(Storage.open(folder / name)).damage == []
    assert sorted(p.name for p in folder.iterdir()) == ["b", "r", "s"]


EXPORT = (
    OPEN
    + """
from embedstore.storage.transfer import read_archive, write_archive
write_archive.write_archive(Storage.open(here / "s"), here / "e")
read_archive.read_archive(here / "e", here / "i")
"""
)


def has_export(folder: Path) -> None:
    assert (folder / "e" / "export.json").exists()
    assert rows(Storage.open(folder / "i")) == expected(16)


def exported(folder: Path) -> None:
    whole(folder / "s", expected(16))
    if not (folder / "e").exists():
        writing.write_archive(Storage.open(folder / "s"), folder / "e")
    if not (folder / "i").exists():
        reading.read_archive(folder / "e", folder / "i")
    whole(folder / "i", expected(16))
    assert {"e", "i", "s"} <= {p.name for p in folder.iterdir()}


RUINED = 300 * 8  # a byte of row 300: the second of three blocks of 256


def ruined(folder: Path) -> None:
    """A store of 600 rows of which one byte is another."""
    storage = make(folder / "s", 600)
    path = storage.layout.shard_file(SPACE.key, 1)
    data = bytearray(path.read_bytes())
    data[read_shard_header(path).data_offset + RUINED] ^= 1
    path.write_bytes(data)


REPAIR = OPEN + "from embedstore.storage.integrity.repair import repair\nrepair(here / 's')\n"


def is_mended(folder: Path) -> None:
    assert verify(Storage.open(folder / "s")).ok


def mended(folder: Path) -> None:
    repair(folder / "s")
    whole(folder / "s", {u: v for n, (u, v) in enumerate(expected(600).items()) if not 256 <= n < 512})
    ruined(folder.with_name("once more"))
    (wanted,) = folder.with_name("once more").rglob("*.vec")
    kept = [p.read_bytes() for p in (folder / "s" / "quarantine").glob("*.vec*")]
    assert wanted.read_bytes() in kept, "the damaged file is kept"
    shutil.rmtree(folder.with_name("once more"))


JOBS = {
    "migration": Job(golden, OPEN + "with Storage.open(here / 's').writer('migrate'): pass\n", is_new, migrated),
    "a second space": Job(lambda f: make(f / "s", 8, 8), SECOND, has_both, second_space),
    "index build": Job(lambda f: make(f / "s", 8, 8), INDEX, has_index, indexed),
    "head save": Job(one_head, HEAD, has_head, kept),
    "compact": Job(shrunk, COMPACT, is_compact, compacted),
    "backup and restore": Job(lambda f: make(f / "s", 8, 8), BACKUP, has_copies, copied),
    "export and import": Job(lambda f: make(f / "s", 8, 8), EXPORT, has_export, exported),
    "repair": Job(ruined, REPAIR, is_mended, mended),
}
