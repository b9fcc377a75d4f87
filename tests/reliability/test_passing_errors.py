"""A file that cannot be read now is not damaged: one passing error at any call loses nothing, and is named."""

import errno
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.classify import registry
from embedstore.errors import StoreIOError, StoreUnreadable
from embedstore.finetuning.checkpoint_manifest import dump_manifest
from embedstore.search.index import build
from embedstore.storage import checkpoint, durable_files, layout, shard
from embedstore.storage.integrity.repair import repair
from embedstore.storage.integrity.report import Checked, Unread, Verification
from embedstore.storage.reading import ABSENT, cure_of, passing_error
from embedstore.storage.storage import Storage
from embedstore.storage.transfer import write_archive
from tests.helpers.vector_stores import SPACE, batch, digest, expected, make, rows, vector
from tests.reliability.disk_simulation import HERE, MODULES
from tests.reliability.fork_server import ForkServer, ProcessResult
from tests.reliability.operations import PREAMBLE, fitted_head

ERRORS = [errno.EACCES, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EIO]
ITEMS = 20  # items in the store
FOUND = 4  # vectors of a file that the catalog does not have yet

JOBS = {
    "verify": """
import embedstore as es
report = es.open(here / "s").verify()
print([str(d) for d in report.damage], [str(u) for u in report.unread])
""",
    "repair": """
import embedstore as es
report = es.repair_store(here / "s", reembed=False)
print(report.n_lost_vectors, report.actions, report.unresolved)
""",
    "recovery": """
with Storage.open(here / "s").writer("recover"):
    pass
""",
    "search": """
from embedstore.search.execute import Searcher
from embedstore.search.options import SearchOptions
from tests.helpers.vector_stores import vector
storage = Storage.open(here / "s")
print([h.item for h in Searcher(storage).search(storage.space(), vector(5), SearchOptions(k=3)).hits])
""",
    "head": """
from embedstore.classify import registry
print(registry.load_head(Storage.open(here / "s"), "kind")[0].name)
""",
    "import": """
from embedstore.storage.transfer import read_archive
print(read_archive.read_archive(here / "e", here / "i")["vectors"])
""",
    "export": """
from embedstore.storage.transfer import write_archive
write_archive.write_archive(Storage.open(here / "s"), here / "made")
print(sum(path.is_file() for path in (here / "made").rglob("*")))
""",
}
SPREAD = [job for job in JOBS if job != "export"]  # of which calls that are spread over the job fail in the short form

FIXED_TIME = """
from datetime import datetime
from embedstore.storage import sql
sql.datetime = type("Fixed", (), {"now": lambda zone: datetime(2026, 11, 21, tzinfo=zone)})
"""  # so that states differ by what happened, not by when

CHECK = """
import embedstore as es
from embedstore.classify import registry
from embedstore.search.index import build
from tests.helpers.vector_stores import expected, rows
if (here / "e").exists():
    assert not list(here.glob(".i*")), list(here.iterdir())
    if not (here / "i").exists():
        from embedstore.storage.transfer import read_archive
        read_archive.read_archive(here / "e", here / "i")
    assert rows(Storage.open(here / "i")) == expected(20)
first = es.repair_store(here / "s", reembed=False)
assert first.n_lost_vectors == 0, first
second = es.repair_store(here / "s", reembed=False)
assert second.actions == second.unresolved == [], second
store = es.open(here / "s")
report = store.verify()
assert report.ok, report
assert not list((here / "s" / "quarantine").glob("*")), list((here / "s" / "quarantine").glob("*"))
storage = store._session.storage
assert rows(storage) == expected(20)
assert storage.sql("SELECT count(*) FROM vectors")[1] == [(24,)]
assert [i.usable for i in build.list_indexes(storage)] == [True]
assert registry.load_head(storage, "kind")[0].name == "kind"
"""


@pytest.fixture(scope="module")
def reads(tmp_path_factory):
    """Start a fork server in which calls that look at a folder can fail."""
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    library = tmp_path_factory.mktemp("failing") / "failing_reads.so"
    options = ["-shared", "-fPIC", "-O1", "-w", "-ldl", "-lpthread"]
    subprocess.run(["cc", HERE / "failing_reads.c", "-o", library, *options], check=True)
    server = ForkServer(*MODULES, "embedstore.operations.maintenance", "embedstore.store", preload=library)
    yield server
    server.close()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Create a store of vectors that nothing can compute again, in the state after a kill, and an export of it.

    It has an index, a head, a checkpoint, a log, and a vector file that the catalog does not have yet.
    """
    folder = tmp_path_factory.mktemp("base")
    storage = make(folder / "s", 8, 8)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    registry.save_head(storage, storage.space(), "kind", fitted_head(0), label="label", kind="prototype", metadata={})
    _add_checkpoint(folder / "s" / "checkpoints" / "abc")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "guarded_checkpoint", lambda *_, **__: None)
        with storage.writer("killed before the checkpoint") as writer:
            writer.commit(batch(17, 4), space=storage.space())
    write_archive.write_archive(storage, folder / "e")
    numbers = range(ITEMS + 1, ITEMS + FOUND + 1)
    vectors = np.array([vector(n) for n in numbers], np.float16)
    contents = [digest(n) for n in numbers]
    shard.write_shard(
        storage.layout.shard_file(SPACE.key, 4), space=SPACE.key, number=4, vectors=vectors, contents=contents
    )
    return folder


def _add_checkpoint(folder: Path) -> None:
    """Write the files of a checkpoint as they are described."""
    folder.mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(b"weights")
    entry = {"file": "weights.safetensors", "bytes": 7, "xxh3": durable_files.file_xxh3(folder / "weights.safetensors")}
    (folder / "checkpoint.json").write_bytes(dump_manifest({"files": [entry]}))


@dataclass(frozen=True)
class Attempt:
    """One job in a copy of the store, in which one call may fail.

    Attributes:
        server: where the job runs.
        base: the folder of the original.
        folder: of the copy.
        job: one of ``JOBS``.
        checked: digests of the states that were checked: the same bytes need no second check.
    """

    server: ForkServer
    base: Path
    folder: Path
    job: str
    checked: set[str] = field(default_factory=set)

    def run(self, **settings: object) -> ProcessResult:
        """Run the job in a new copy."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        shutil.copytree(self.base / "s", self.folder / "s")
        if self.job == "import":
            shutil.copytree(self.base / "e", self.folder / "e")
        env = {"READS_UNDER": str(self.folder), **{f"READS_{k.upper()}": str(v) for k, v in settings.items()}}
        return self.server.run(PREAMBLE + FIXED_TIME + JOBS[self.job], self.folder, env=env)

    def calls(self) -> list[str]:
        """Return every call that looks at the folder."""
        log = self.folder.with_name("log")
        log.unlink(missing_ok=True)
        done = self.run(log=log)
        assert done.returncode == 0, done.stderr
        return log.read_text().splitlines()

    def check_failure(self, call: str, number: int, code: int) -> None:
        """Let one call fail: the job works all the same or names the cause, and nothing is lost."""
        done = self.run(fail=number, errno=code)
        what = (self.job, call, errno.errorcode[code], done.stdout, done.stderr[-3000:])
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1]
            assert last.startswith(("embedstore.errors.StoreUnreadable: ", "embedstore.errors.StoreIOError: ")), what
            assert os.strerror(code) in last or "it was there a moment ago" in last, what
            assert "embedstore repair" not in last, what
        elif self.job == "verify":
            assert done.stdout.startswith("[] "), what
        elif self.job == "repair":
            assert done.stdout.startswith("0 "), what
        elif self.job == "export":
            assert done.stdout == "15\n", what  # every file
        if (state := _digest(self.folder)) not in self.checked:
            after = self.server.run(PREAMBLE + CHECK, self.folder)
            assert after.returncode == 0, (*what, after.stderr[-3000:])
            self.checked.add(state)


def _digest(folder: Path) -> str:
    """Return a digest of the names and bytes of all files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(repr((str(path.relative_to(folder)), path.is_file() and path.read_bytes())).encode())
    return digest.hexdigest()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("job", SPREAD)
def test_passing_error_loses_nothing(reads, base, tmp_path, job):
    """Six calls spread over the job fail, each with another error: the cause is named, and repair finds nothing."""
    attempt = Attempt(reads, base, tmp_path / "d", job)
    calls = attempt.calls()
    assert len(calls) > 15
    for n, i in enumerate(np.linspace(0, len(calls) - 1, len(ERRORS)).astype(int).tolist()):
        attempt.check_failure(calls[i], i + 1, ERRORS[n % len(ERRORS)])


@pytest.mark.parametrize("job", SPREAD)
def test_a_catalog_that_cannot_be_looked_at_is_never_created_anew(reads, base, tmp_path, job):
    """DuckDB takes a file or its log for missing if a `stat` fails, and writes an empty database over the file."""
    attempt = Attempt(reads, base, tmp_path / "d", job)
    calls = attempt.calls()
    for name in ("/catalog.duckdb", "/catalog.duckdb.wal"):
        looks = [n for n, call in enumerate(calls, 1) if call.endswith(name) and " s " in call]
        for n in looks[:: max(1, len(looks) // 2)]:
            attempt.check_failure(calls[n - 1], n, errno.ENOMEM)


def test_an_export_leaves_out_nothing_that_cannot_be_looked_at(reads, base, tmp_path):
    """Each list of the folders that are copied as they are fails once."""
    attempt = Attempt(reads, base, tmp_path / "d", "export")
    lists = [(n, call) for n, call in enumerate(attempt.calls(), 1) if " l " in call]
    copied = [(n, call) for n, call in lists if "/d/s/heads" in call or "/d/s/checkpoints" in call]
    assert len(copied) >= 4
    for number, call in copied:
        attempt.check_failure(call, number, errno.EACCES)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("job", JOBS)
def test_passing_error_at_every_call_loses_nothing(reads, base, tmp_path, job):
    """Every open, read, stat, list and map of the job fails once with each error."""
    attempt = Attempt(reads, base, tmp_path / "d", job)
    for i, call in enumerate(attempt.calls()):
        for code in ERRORS:
            attempt.check_failure(call, i + 1, code)


@pytest.mark.parametrize("code", ERRORS)
def test_file_that_stays_unreadable_is_neither_verified_nor_repaired(reads, base, tmp_path, code):
    """``verify`` counts it as not read and not as damage; ``repair`` is refused with the cause and changes nothing."""
    always = {"fail": 1, "count": 1 << 30, "errno": code, "match": "000000002.vec"}
    done = Attempt(reads, base, tmp_path / "d", "verify").run(**always)
    assert done.stdout.startswith("[] ['"), done.stderr
    assert f"/shards/000000002.vec: cannot read {tmp_path}" in done.stdout
    assert (os.strerror(code) in done.stdout, cure_of(code) in done.stdout) == (True, True)
    done = Attempt(reads, base, tmp_path / "d", "repair").run(**always)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("embedstore.errors.StoreUnreadable: cannot read ")
    assert os.strerror(code) in last
    assert "embedstore repair" not in last
    assert reads.run(PREAMBLE + CHECK, tmp_path / "d").returncode == 0


def test_report_with_unread_files_is_not_ok(tmp_path):
    """The summary says what was not read, and the report is not ok."""
    report = Verification.from_findings([Checked(shards=1), Unread("a.vec", "cannot read")], [])
    assert (report.ok, report.damage) == (False, [])
    assert report.summary().endswith("no damage, but 1 could not be read")
    assert report.to_json()["unread"] == [{"file": "a.vec", "what": "cannot read"}]


def test_missing_and_truncated_files_are_damage(tmp_path):
    """What was looked at and found wrong is still damage: a file that is gone, and one that was cut."""
    storage = make(tmp_path / "s", 10, 10)
    storage.layout.shard_file(SPACE.key, 1).unlink()
    os.truncate(storage.layout.shard_file(SPACE.key, 2), 500)
    report = es.open(tmp_path / "s").verify()
    assert ([d.file[-13:] for d in report.damage], report.unread) == (["000000001.vec", "000000002.vec"], [])


def test_repair_takes_back_whole_vector_files_from_the_quarantine(tmp_path):
    """Vectors that an older version threw out are missing for ``verify``; ``repair`` brings them back, bit for bit."""
    storage = make(tmp_path / "s", 10, 10)
    path = storage.layout.shard_file(SPACE.key, 2)
    with storage.writer("as an older version did") as writer:
        writer.replace_shards(SPACE.key, [2], np.empty((0, 0), np.float32), [])
        kept = layout.quarantine_file(storage.layout, path, f"{SPACE.key}-{path.name}")
    assert len(rows(Storage.open(tmp_path / "s"))) == 10
    (damage,) = es.open(tmp_path / "s").verify().damage
    assert str(damage) == (
        f"quarantine/{kept.name}: it is whole, and 10 of its vectors are missing from the catalog; "
        "run `embedstore repair STORE`"
    )
    report = es.repair_store(tmp_path / "s")
    assert report.actions == [f"10 vectors were taken back from {kept}, which is whole"]
    assert rows(Storage.open(tmp_path / "s")) == expected(20)
    assert es.open(tmp_path / "s").verify().ok
    assert es.repair_store(tmp_path / "s").actions == []


def test_damaged_file_in_the_quarantine_is_not_taken_back(tmp_path):
    """A file with a changed byte stays in the quarantine, also where its other vectors are missing."""
    storage = make(tmp_path / "s", 10)
    path = storage.layout.shard_file(SPACE.key, 1)
    data = bytearray(path.read_bytes())
    data[shard.read_shard_header(path).data_offset] ^= 1
    path.write_bytes(data)
    assert len(repair(tmp_path / "s").lost_contents[SPACE.key]) == 10
    assert repair(tmp_path / "s").actions == []
    assert es.open(tmp_path / "s").verify().ok


def test_repair_takes_back_a_whole_head_from_the_quarantine(base, tmp_path):
    """A head that the catalog names and that is whole in the quarantine is put back."""
    shutil.copytree(base / "s", tmp_path / "s")
    storage = Storage.open(tmp_path / "s")
    kept = layout.quarantine_file(storage.layout, tmp_path / "s" / "heads" / "kind", "heads-kind")
    (action,) = [a for a in es.repair_store(tmp_path / "s").actions if "head" in a]
    assert action == f"head kind was taken back from {kept}, which is whole"
    assert registry.load_head(Storage.open(tmp_path / "s"), "kind")[0].name == "kind"


@pytest.mark.parametrize("code", sorted(set(errno.errorcode) - ABSENT))
def test_every_error_of_the_system_is_recognized_in_the_message_of_a_library(code):
    """A library's message with any error that is not "absent" is not taken for damage, and a cure is named."""
    catalog = Path("/s/catalog.duckdb")
    problem = passing_error(catalog, f'IO Error: Cannot open file "{catalog}": {os.strerror(code)}')
    assert problem is not None
    assert os.strerror(code) in str(problem)
    assert cure_of(code) in str(problem)


@pytest.mark.parametrize(
    ("named", "is_about_it"),
    [
        ("catalog.duckdb", True),
        ("catalog.duckdb.wal", True),
        ("catalog.duckdb.new", False),
        ("b/catalog.duckdb", False),
    ],
)
def test_an_error_about_another_file_is_no_error_of_reading(tmp_path, named, is_about_it):
    """A disk that is full while a copy is written says nothing about the file that is copied."""
    message = f'IO Error: Cannot open file "{tmp_path / named}": {os.strerror(errno.EIO)}'
    assert (passing_error(tmp_path / "catalog.duckdb", message) is not None) == is_about_it


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_during_a_backup_or_a_rewrite_is_named_for_what_is_written(tmp_path, code, monkeypatch):
    """DuckDB cannot make the new file: the error says so, and the store is as it was."""
    storage = make(tmp_path / "s", ITEMS)

    def refuse(con, file, name="cat"):
        raise duckdb.IOException(f'IO Error: Cannot open file "{file}": {os.strerror(code)}')

    monkeypatch.setattr("embedstore.storage.connection.attach_new_file", refuse)
    for action in (es.open(tmp_path / "s").compact, lambda: es.open(tmp_path / "s").backup(tmp_path / "b")):
        with pytest.raises(StoreIOError) as e:
            action()
        assert not isinstance(e.value, StoreUnreadable), e.value
    assert not (tmp_path / "b").exists()
    monkeypatch.undo()
    assert rows(storage) == expected(ITEMS)
