"""Every operation that is not a plain commit: its input, its code, and what must hold afterwards."""

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
from embedstore.storage import compact, item_changes, migrations
from embedstore.storage import purge as purging
from embedstore.storage.commit import CommitBatch
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.register import Registrar
from embedstore.storage.integrity.backup import backup, restore
from embedstore.storage.integrity.repair import repair
from embedstore.storage.integrity.verify import verify
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.layout import Layout
from embedstore.storage.shard import Shard, read_shard_header
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import read_archive as reading
from embedstore.storage.transfer import write_archive as writing
from tests.conftest import ROOT
from tests.golden.make import VECTORS
from tests.helpers.parts import make_store_with_results, result, write_plan
from tests.helpers.vector_stores import OTHER, SPACE, digest, expected, make, other, rows, vector

PREAMBLE = (
    "import sys\nfrom pathlib import Path\nfrom embedstore.storage.storage import Storage\nhere = Path(sys.argv[1])\n"
)


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        prepare: creates its input in a folder.
        code: the code that a new process runs.
        check_acknowledged: checks that the result exists once the operation has ended, before any recovery.
        check_state: checks that the store is consistent wherever the operation ended, and runs it again.
    """

    prepare: Callable[[Path], object]
    code: str
    check_acknowledged: Callable[[Path], None]
    check_state: Callable[[Path], None]


def open_and_compare(path: Path, wanted: dict[str, list[float]]) -> Storage:
    """Open a store for writing, compare every row, and verify every byte."""
    storage = Storage.open(path)
    with storage.writer("check"):
        assert rows(storage) == wanted
    report = verify(storage)
    assert report.damage == []
    return storage


MIGRATIONS = sorted(Path(migrations.__file__).parent.glob("m[0-9][0-9][0-9]_*.py"))


def copy_golden_store(folder: Path) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "v1", folder / "s")


def check_migration_done(folder: Path) -> None:
    assert Storage.open(folder / "s").sql('SELECT max(migration) FROM "schema"')[1] == [(len(MIGRATIONS),)]


def check_migration(folder: Path) -> None:
    storage = Storage.open(folder / "s")
    with storage.writer("again"):
        pass
    space = storage.space()
    assert storage.sql('SELECT migration FROM "schema" ORDER BY 1')[1] == [(n + 1,) for n in range(len(MIGRATIONS))]
    assert np.array_equal(load_features(storage, space, "uri").X, VECTORS)
    assert storage.sql("SELECT count(*), count(DISTINCT item) FROM items")[1] == [(5, 5)]
    assert verify(storage).damage == []


SECOND_SPACE = (
    PREAMBLE
    + """
from tests.helpers.parts import make_store_with_results
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


def check_second_space_done(folder: Path) -> None:
    assert Storage.open(folder / "s").sql("SELECT count(*) FROM vectors GROUP BY space")[1] == [(16,), (16,)]


def check_second_space(folder: Path) -> None:
    storage = open_and_compare(folder / "s", expected(16))
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
    open_and_compare(folder / "s", expected(16))


INDEX = (
    PREAMBLE
    + """
from embedstore.search.index.build import IndexTarget, build_index
storage = Storage.open(here / "s")
build_index(storage, storage.space(), IndexTarget(recall=1.0, kind="flat"))
"""
)


def nearest(storage: Storage, n: int) -> list[tuple[float, int]]:
    return [(h.score, h.item) for h in Searcher(storage).search(storage.space(), vector(n), SearchOptions(k=8)).hits]


def brute_force_nearest(n: int, items: range) -> list[tuple[float, int]]:
    q = (vector(n) / np.linalg.norm(vector(n).astype(np.float64))).astype(np.float32).astype(np.float64)
    found = []
    for i in items:
        v = vector(i).astype(np.float64)
        found.append((float((v * q).sum() / np.sqrt((v * v).sum())), i))
    return sorted(found, key=lambda f: (-f[0], f[1]))[:8]


def check_index_done(folder: Path) -> None:
    assert [i.usable for i in build.list_indexes(Storage.open(folder / "s"))] == [True]


def check_index(folder: Path) -> None:
    for _ in range(2):
        storage = open_and_compare(folder / "s", expected(16))
        assert nearest(storage, 3) == brute_force_nearest(3, range(1, 17))
        assert all(i.usable for i in build.list_indexes(storage) if i.why is None)
        build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    assert [i.usable for i in build.list_indexes(storage)] == [True]
    repair(folder / "s")
    assert not [p for p in (folder / "s").rglob("*") if p.suffix in (".tmp", ".new")]


X = np.array([vector(n) for n in range(1, 17)], np.float32)


def fitted_head(seed: int) -> NearestPrototype:
    return NearestPrototype().fit(X, np.array([f"c{(n + seed) % 3}" for n in range(16)]))


def make_store_with_head(folder: Path) -> None:
    storage = make(folder / "s", 8, 8)
    registry.save_head(
        storage, storage.space(), "kind", fitted_head(0), label="label", kind="prototype", metadata={"seed": 0}
    )


HEAD = (
    PREAMBLE
    + """
from embedstore.classify.registry import save_head
from tests.reliability.operations import fitted_head
storage = Storage.open(here / "s")
save_head(storage, storage.space(), "kind", fitted_head(1), label="label", kind="prototype", metadata={"seed": 1})
"""
)


def check_head_done(folder: Path) -> None:
    row, found = registry.load_head(Storage.open(folder / "s"), "kind")
    assert row.metadata["seed"] == 1
    assert np.array_equal(found.predict_proba(X), fitted_head(1).predict_proba(X))


def check_head(folder: Path) -> None:
    storage = open_and_compare(folder / "s", expected(16))
    row, found = registry.load_head(storage, "kind")
    assert np.array_equal(found.predict_proba(X), fitted_head(row.metadata["seed"]).predict_proba(X))
    registry.save_head(
        storage, storage.space(), "kind", fitted_head(1), label="label", kind="prototype", metadata={"seed": 1}
    )
    assert np.array_equal(registry.load_head(storage, "kind")[1].predict_proba(X), fitted_head(1).predict_proba(X))
    assert [p.name for p in (folder / "s" / "heads").iterdir()] == ["kind"]


def make_store_to_compact(folder: Path) -> None:
    storage = make(folder / "s", 8, 8, 8)
    with storage.writer("fewer") as writer:
        purging.purge(writer, ItemSelection(items=[2, 9]))
        item_changes.delete(writer, ItemSelection(items=[17]))


COMPACT = (
    PREAMBLE
    + """
from embedstore.storage import compact
storage = Storage.open(here / "s")
with storage.writer("compact") as writer:
    compact.compact(storage, writer)
"""
)


def check_compact_done(folder: Path) -> None:
    assert not {digest(n) for n in (2, 9, 17)} & {c for p in folder.rglob("*.vec") for c in Shard(p).contents}


def check_compact(folder: Path) -> None:
    wanted = {u: v for u, v in expected(24).items() if u not in ("/i/2.jpg", "/i/9.jpg", "/i/17.jpg")}
    storage = open_and_compare(folder / "s", wanted)
    with storage.writer("again") as writer:
        compact.compact(storage, writer)
    open_and_compare(folder / "s", wanted)
    stored = [c for p in (folder / "s").rglob("*.vec") if "quarantine" not in p.parts for c in Shard(p).contents]
    assert sorted(stored) == sorted(digest(int(u[3:-4])) for u in wanted), "purged vectors are not on the disk any more"


BACKUP = (
    PREAMBLE
    + """
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.register import Registrar
from embedstore.storage.integrity.backup import backup, restore
backup(Storage.open(here / "s"), here / "b")
restore(here / "b", here / "r")
"""
)


def check_backup_done(folder: Path) -> None:
    assert [rows(Storage.open(folder / name)) for name in "br"] == [expected(16)] * 2


def check_backup(folder: Path) -> None:
    open_and_compare(folder / "s", expected(16))
    for name, again in (("b", lambda: backup(Storage.open(folder / "s"), folder / "b")),
                        ("r", lambda: restore(folder / "b", folder / "r"))):  # fmt: skip
        if not (folder / name).exists():
            again()
        assert rows(Storage.open(folder / name)) == expected(16)
        assert verify(Storage.open(folder / name)).damage == []
    assert sorted(p.name for p in folder.iterdir()) == ["b", "r", "s"]


EXPORT = (
    PREAMBLE
    + """
from embedstore.storage.transfer import read_archive, write_archive
write_archive.write_archive(Storage.open(here / "s"), here / "e")
read_archive.read_archive(here / "e", here / "i")
"""
)


def check_export_done(folder: Path) -> None:
    assert (folder / "e" / "export.json").exists()
    assert rows(Storage.open(folder / "i")) == expected(16)


def check_export(folder: Path) -> None:
    open_and_compare(folder / "s", expected(16))
    if not (folder / "e").exists():
        writing.write_archive(Storage.open(folder / "s"), folder / "e")
    if not (folder / "i").exists():
        reading.read_archive(folder / "e", folder / "i")
    open_and_compare(folder / "i", expected(16))
    assert {"e", "i", "s"} <= {p.name for p in folder.iterdir()}


DAMAGED_OFFSET = 300 * 8  # a byte of row 300, in the second of three blocks of 256 rows


def make_damaged_store(folder: Path) -> None:
    """Create a store of 600 rows and change one byte."""
    storage = make(folder / "s", 600)
    path = storage.layout.shard_file(SPACE.key, 1)
    data = bytearray(path.read_bytes())
    data[read_shard_header(path).data_offset + DAMAGED_OFFSET] ^= 1
    path.write_bytes(data)


REPAIR = PREAMBLE + "from embedstore.storage.integrity.repair import repair\nrepair(here / 's')\n"


def check_repair_done(folder: Path) -> None:
    assert verify(Storage.open(folder / "s")).ok


def check_repair(folder: Path) -> None:
    repair(folder / "s")
    open_and_compare(folder / "s", {u: v for n, (u, v) in enumerate(expected(600).items()) if not 256 <= n < 512})
    shutil.rmtree(folder.with_name("damaged again"), ignore_errors=True)
    make_damaged_store(folder.with_name("damaged again"))
    (wanted,) = folder.with_name("damaged again").rglob("*.vec")
    kept = [p.read_bytes() for p in (folder / "s" / "quarantine").glob("*.vec*")]
    assert wanted.read_bytes() in kept, "the damaged file is kept"
    shutil.rmtree(folder.with_name("damaged again"))


REGISTER = (
    PREAMBLE
    + """
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.inbox.register import Registrar
storage = Storage.open(here / "s")
inbox = Inbox(storage.layout, storage.space().key)
with storage.writer("register parts") as writer:
    registrar = Registrar(writer, inbox)
    registrar.register_waiting()
    registrar.finish()
"""
)


def check_register_done(folder: Path) -> None:
    storage = Storage.open(folder / "s")
    assert rows(storage) == expected(32)
    assert storage.sql("SELECT verb, count(*) FROM runs GROUP BY ALL ORDER BY ALL")[1] == [
        ("embed", 1),
        ("register", 3),
    ]


def check_register(folder: Path) -> None:
    storage = Storage.open(folder / "s")
    inbox = Inbox(storage.layout, SPACE.key)
    if inbox.has_plan():
        with storage.writer("again") as writer:
            registrar = Registrar(writer, inbox)
            registrar.register_waiting()
            assert registrar.total.torn == []
            assert registrar.finish()
    check_register_done(folder)
    inbox.remove()  # what a removal that was cut off left: litter, which the next plan removes
    assert not inbox.folder.exists()
    open_and_compare(folder / "s", expected(32))


PUT_RESULT = (
    PREAMBLE
    + """
from embedstore.storage.inbox.inbox import Inbox
from embedstore.storage.layout import find_store
from tests.helpers.parts import result
from tests.helpers.vector_stores import SPACE
from embedstore.storage.disk_errors import disk_errors
inbox = Inbox(find_store(here / "s"), SPACE.key)
with disk_errors("write a result"):
    inbox.begin(1)
    inbox.put_result(inbox.read_plan(), result(1, size=8, first=9))
"""
)


def make_store_with_plan(folder: Path) -> None:
    make(folder / "s", 8)
    write_plan(folder / "s", parts=1, size=8, first=9)


def check_put_result_done(folder: Path) -> None:
    (waiting,) = Inbox(Layout((folder / "s").absolute()), SPACE.key).waiting()
    assert waiting.part == 1


def check_put_result(folder: Path) -> None:
    """The part has a whole result or none, and a second worker ends it."""
    storage = Storage.open(folder / "s")
    inbox = Inbox(storage.layout, SPACE.key)
    if not inbox.is_done(1):
        inbox.put_result(inbox.read_plan(), result(1, size=8, first=9))
    with storage.writer("register") as writer:
        registrar = Registrar(writer, inbox)
        registrar.register_waiting()
        assert (registrar.total.torn, registrar.finish()) == ([], True)
    open_and_compare(folder / "s", expected(16))


OPERATIONS = {
    "result of a part": Operation(make_store_with_plan, PUT_RESULT, check_put_result_done, check_put_result),
    "register parts": Operation(
        lambda f: make_store_with_results(f / "s"), REGISTER, check_register_done, check_register
    ),
    "migration": Operation(
        copy_golden_store,
        PREAMBLE + "with Storage.open(here / 's').writer('migrate'): pass\n",
        check_migration_done,
        check_migration,
    ),
    "a second space": Operation(
        lambda f: make(f / "s", 8, 8), SECOND_SPACE, check_second_space_done, check_second_space
    ),
    "index build": Operation(lambda f: make(f / "s", 8, 8), INDEX, check_index_done, check_index),
    "head save": Operation(make_store_with_head, HEAD, check_head_done, check_head),
    "compact": Operation(make_store_to_compact, COMPACT, check_compact_done, check_compact),
    "backup and restore": Operation(lambda f: make(f / "s", 8, 8), BACKUP, check_backup_done, check_backup),
    "export and import": Operation(lambda f: make(f / "s", 8, 8), EXPORT, check_export_done, check_export),
    "repair": Operation(make_damaged_store, REPAIR, check_repair_done, check_repair),
}
