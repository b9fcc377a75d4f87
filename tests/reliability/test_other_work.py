"""SIGKILL before single steps of everything that is not a plain commit: whole before, whole after, and it goes on."""

import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from embedstore import indexing, keeping
from embedstore.archive import read as reading
from embedstore.errors import UnknownHead
from embedstore.features import features
from embedstore.heads.prototype import NearestPrototype
from embedstore.search import Ask, answer
from embedstore.store import change, compact
from embedstore.store.backup import backup, restore
from embedstore.store.change import Chosen
from embedstore.store.repair import repair
from embedstore.store.storage import Storage
from embedstore.store.verify import verify
from tests.conftest import ROOT
from tests.golden.make import VECTORS
from tests.reliability.steps import read_log, run
from tests.reliability.warm import Warm
from tests.stores import OTHER, digest, expected, make, rows, vector

OPEN = "import sys\nfrom pathlib import Path\nfrom embedstore.store.storage import Storage\nhere = Path(sys.argv[1])\n"


@dataclass(frozen=True)
class Job:
    """One kind of work.

    Attributes:
        prepare: makes what it works on. code: the work, in a process of its own.
        check: after a kill: whole, then the work is done again. Gets the folder.
    """

    prepare: Callable[[Path], object]
    code: str
    check: Callable[[Path], None]


def whole(path: Path, wanted: dict[str, list[float]]) -> Storage:
    """Open for writing, compare every row, verify every byte."""
    storage = Storage.open(path)
    with storage.writing("after"):
        assert rows(storage) == wanted
    report = verify(storage)
    assert report.damage == []
    return storage


def golden(folder: Path) -> None:
    shutil.copytree(ROOT / "tests" / "golden" / "v1", folder / "s")


def migrated(folder: Path) -> None:
    storage = Storage.open(folder / "s")
    with storage.writing("again"):
        pass
    space = storage.space()
    assert storage.sql('SELECT migration FROM "schema" ORDER BY 1')[1] == [(1,), (2,), (3,)]
    assert np.array_equal(features(storage, space, "uri").X, VECTORS)
    assert storage.sql("SELECT count(*), count(DISTINCT item) FROM items")[1] == [(5, 5)]
    assert verify(storage).damage == []


SECOND = (
    OPEN
    + """
from tests.stores import OTHER, digest, other
from embedstore.store.commit import Batch
storage = Storage.open(here / "s")
with storage.writing("a second model") as writer:
    writer.add_space(OTHER, name="other", dtype="float32", recipe=None)
    for first in (1, 9):
        numbers = range(first, first + 8)
        made = Batch(digests=[digest(n) for n in numbers], vectors=[other(n) for n in numbers])
        writer.commit(made, space=storage.space("other"))
"""
)


def second_space(folder: Path) -> None:
    from embedstore.store.commit import Batch
    from tests.stores import other

    storage = whole(folder / "s", expected(16))
    with storage.writing("again") as writer:
        writer.add_space(OTHER, name="other", dtype="float32", recipe=None)
        have = {
            c.replace("-", "")
            for (c,) in storage.sql("SELECT content::VARCHAR FROM vectors WHERE space = ?", [OTHER.key])[1]
        }
        left = [n for n in range(1, 17) if digest(n) not in have]
        if left:
            made = Batch(digests=[digest(n) for n in left], vectors=[other(n) for n in left])
            writer.commit(made, space=storage.space("other"))
    assert [s.name for s in storage.spaces()] == ["test", "other"]
    found = storage.sql('SELECT content::VARCHAR, shard, "row" FROM vectors WHERE space = ?', [OTHER.key])[1]
    held = storage.vectors(OTHER)
    got = held.gather(held.positions(np.array([f[1] for f in found]), np.array([f[2] for f in found])))
    assert {f[0].replace("-", ""): v.tolist() for f, v in zip(found, got, strict=True)} == {
        digest(n): other(n).tolist() for n in range(1, 17)
    }
    whole(folder / "s", expected(16))


INDEX = (
    OPEN
    + """
from embedstore import indexing
storage = Storage.open(here / "s")
indexing.build(storage, storage.space(), recall=1.0, kind="flat")
"""
)


def nearest(storage: Storage, n: int) -> list[tuple[float, int]]:
    return [(h.score, h.item) for h in answer(storage, storage.space(), vector(n), Ask(k=8)).hits]


def brute(n: int, items: range) -> list[tuple[float, int]]:
    q = (vector(n) / np.linalg.norm(vector(n).astype(np.float64))).astype(np.float32).astype(np.float64)
    found = []
    for i in items:
        v = vector(i).astype(np.float64)
        found.append((float((v * q).sum() / np.sqrt((v * v).sum())), i))
    return sorted(found, key=lambda f: (-f[0], f[1]))[:8]


def indexed(folder: Path) -> None:
    for _ in range(2):
        storage = whole(folder / "s", expected(16))
        assert nearest(storage, 3) == brute(3, range(1, 17))
        assert all(i["usable"] for i in indexing.listing(storage) if i.get("why") is None)
        indexing.build(storage, storage.space(), recall=1.0, kind="flat")
    assert [i["usable"] for i in indexing.listing(storage)] == [True]
    repair(folder / "s")
    assert not [p for p in (folder / "s").rglob("*") if p.suffix in (".tmp", ".new")]


X = np.array([vector(n) for n in range(1, 17)], np.float32)


def head(seed: int) -> NearestPrototype:
    return NearestPrototype().fit(X, np.array([f"c{(n + seed) % 3}" for n in range(16)]))


def one_head(folder: Path) -> None:
    storage = make(folder / "s", 8, 8)
    keeping.keep(storage, storage.space(), "kind", head(0), label="label", kind="prototype", facts={"seed": 0})


HEAD = (
    OPEN
    + """
from embedstore import keeping
from tests.reliability.test_other_work import head
storage = Storage.open(here / "s")
keeping.keep(storage, storage.space(), "kind", head(1), label="label", kind="prototype", facts={"seed": 1})
"""
)


def kept(folder: Path) -> None:
    storage = whole(folder / "s", expected(16))
    row, found = keeping.load(storage, "kind")
    assert np.array_equal(found.predict_proba(X), head(row.facts["seed"]).predict_proba(X))
    keeping.keep(storage, storage.space(), "kind", head(1), label="label", kind="prototype", facts={"seed": 1})
    assert np.array_equal(keeping.load(storage, "kind")[1].predict_proba(X), head(1).predict_proba(X))
    assert [p.name for p in (folder / "s" / "heads").iterdir()] == ["kind"]


def shrunk(folder: Path) -> None:
    storage = make(folder / "s", 8, 8, 8)
    with storage.writing("fewer") as writer:
        change.forget(writer, Chosen(items=[2, 9]))
        change.delete(writer, Chosen(items=[17]))


COMPACT = (
    OPEN
    + """
from embedstore.store import compact
storage = Storage.open(here / "s")
with storage.writing("compact") as writer:
    compact.compact(storage, writer)
"""
)


def compacted(folder: Path) -> None:
    wanted = {u: v for u, v in expected(24).items() if u not in ("/i/2.jpg", "/i/9.jpg", "/i/17.jpg")}
    storage = whole(folder / "s", wanted)
    with storage.writing("again") as writer:
        compact.compact(storage, writer)
    whole(folder / "s", wanted)
    stored = [c for p in (folder / "s").rglob("*.vec") if "quarantine" not in p.parts for c in contents_of(p)]
    assert sorted(stored) == sorted(digest(int(u[3:-4])) for u in wanted), "what was forgotten left the disk"


def contents_of(path: Path) -> list[str]:
    from embedstore.store.shard import Shard

    return Shard(path).contents


BACKUP = (
    OPEN
    + """
from embedstore.store.backup import backup, restore
backup(Storage.open(here / "s"), here / "b")
restore(here / "b", here / "r")
"""
)


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
from embedstore.archive import read, write
write.write(Storage.open(here / "s"), here / "e")
read.read(here / "e", here / "i")
"""
)


def exported(folder: Path) -> None:
    from embedstore.archive import write as writing

    whole(folder / "s", expected(16))
    if not (folder / "e").exists():
        writing.write(Storage.open(folder / "s"), folder / "e")
    if not (folder / "i").exists():
        reading.read(folder / "e", folder / "i")
    whole(folder / "i", expected(16))
    assert {"e", "i", "s"} <= {p.name for p in folder.iterdir()}


JOBS = {
    "migration": Job(golden, OPEN + "with Storage.open(here / 's').writing('migrate'): pass\n", migrated),
    "a second space": Job(lambda f: make(f / "s", 8, 8), SECOND, second_space),
    "index build": Job(lambda f: make(f / "s", 8, 8), INDEX, indexed),
    "head save": Job(one_head, HEAD, kept),
    "compact": Job(shrunk, COMPACT, compacted),
    "backup and restore": Job(lambda f: make(f / "s", 8, 8), BACKUP, copied),
    "export and import": Job(lambda f: make(f / "s", 8, 8), EXPORT, exported),
}


def killed(shim: Warm, tmp_path: Path, name: str, most: int | None) -> int:
    """Kill the job before some of its steps, or each; how many steps it has."""
    job, base, folder = JOBS[name], tmp_path / "base", tmp_path / "d"
    base.mkdir()
    job.prepare(base)
    shutil.copytree(base, folder)
    done = run(shim, folder, code=job.code, log=tmp_path / "log")
    assert done.returncode == 0, done.stderr
    job.check(folder)
    total = len(read_log(tmp_path / "log"))
    for step in sorted({max(1, total * (n + 1) // (most + 1)) for n in range(most)}) if most else range(1, total + 1):
        shutil.rmtree(folder)
        shutil.copytree(base, folder)
        done = run(shim, folder, code=job.code, kill=step)
        assert done.returncode == -signal.SIGKILL, (step, done.stderr)
        try:
            job.check(folder)
        except BaseException as e:
            e.add_note(f"killed before step {step} of {total} of {name}")
            raise
    return total


@pytest.mark.parametrize("name", JOBS)
def test_a_kill_during_other_work(shim, tmp_path, name):
    """One step in the middle of each kind of work."""
    assert killed(shim, tmp_path, name, 1) > 5


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", JOBS)
def test_a_kill_before_every_step_of_other_work(shim, tmp_path, name):
    """Each of them."""
    assert killed(shim, tmp_path, name, None) > 5


def test_a_head_that_was_never_acknowledged_is_unknown(shim, tmp_path):
    """The first save of a head, killed half-way: no head, no damage, and it can be saved."""
    folder = tmp_path / "d"
    folder.mkdir()
    make(folder / "s", 16)
    done = run(shim, folder, code=HEAD, log=tmp_path / "log")
    steps = [i for i, s in enumerate(read_log(tmp_path / "log"), 1) if "/heads/" in s.path]
    assert done.returncode == 0, done.stderr
    for step in (steps[-1],):
        shutil.rmtree(folder)
        folder.mkdir()
        make(folder / "s", 16)
        run(shim, folder, code=HEAD, kill=step)
        storage = whole(folder / "s", expected(16))
        with pytest.raises(UnknownHead):
            keeping.load(storage, "kind")
        keeping.keep(storage, storage.space(), "kind", head(1), label="label", kind="prototype", facts={})
        assert [p.name for p in (folder / "s" / "heads").iterdir()] == ["kind"]
