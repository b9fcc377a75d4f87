"""Damaged bytes are detected, named and repaired, or have no effect; no answer is wrong. Locks, forks and backups."""

import json
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from embedstore.errors import EmbedstoreError, StoreBusy, StoreDamaged, StoreError
from embedstore.storage import lock, shard, shard_cache
from embedstore.storage.integrity.backup import backup, restore
from embedstore.storage.integrity.repair import repair
from embedstore.storage.integrity.verify import verify
from embedstore.storage.queries import item_rows
from embedstore.storage.queries.shards import insert_shard
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import SPACE, batch, digest, expected, make, rows, vector
from tests.reliability.oracle import missing_batch


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flip one random bit of a file."""
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Create a store of 600 rows in two vector files, without a log."""
    folder = tmp_path_factory.mktemp("whole") / "s"
    make(folder, 300, 300)
    return folder


def rows_or_refusal(path: Path) -> dict[str, list[float]] | None:
    """Return every row, or None where the store reports damage."""
    try:
        return rows(Storage.open(path))
    except StoreDamaged:
        return None


def flip_and_repair(whole: Path, tmp_path: Path, which: str, count: int) -> int:
    """Flip single bits of one file, repair, and return how many were detected."""
    found = 0
    for seed in range(count):
        path = tmp_path / "s"
        shutil.copytree(whole, path)
        target = sorted(path.rglob(which))[0]
        flip(target, np.random.default_rng(seed))
        got = rows_or_refusal(path)
        assert got is None or got == expected(600), f"seed {seed}: a wrong answer"
        try:
            report = verify(Storage.open(path))
        except StoreDamaged as e:
            named, damaged = str(e), True
        else:
            named, damaged = " ".join(map(str, report.damage)), not report.ok
        if damaged:
            found += 1
            assert target.name in named, "the damaged file is named"
            repair(path)
            after = Storage.open(path)
            assert verify(after).ok
            left = rows(after)
            assert left.items() <= expected(600).items(), "the remaining rows are correct"
            with after.writer("again") as writer:
                have = {u for (u,) in after.sql("SELECT uri FROM items")[1]}
                again = missing_batch(after, 1, 600)
                again.items = [r for r in again.items if r.ref.uri not in have]
                writer.commit(again, space=after.space())
            assert rows(after) == expected(600), "the lost rows can be added again"
        else:
            assert got == expected(600)
        shutil.rmtree(path)
    return found


@pytest.mark.parametrize(("which", "least"), [("catalog.duckdb", 1), ("000000001.vec", 8)])
def test_flipped_bit_is_detected_and_repaired_or_has_no_effect(whole, tmp_path, which, least):
    """Each of eight bits of the catalog and of a vector file is detected and repaired, or changes no row."""
    assert flip_and_repair(whole, tmp_path, which, 8) >= least


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("which", "count"), [("catalog.duckdb", 150), ("000000001.vec", 100)])
def test_many_flipped_bits_are_detected_and_repaired_or_have_no_effect(whole, tmp_path, which, count):
    """Each of 150 bits of the catalog and 100 of a vector file is detected and repaired, or changes no row."""
    assert flip_and_repair(whole, tmp_path, which, count) > count // 3


def test_repair_keeps_intact_blocks(tmp_path):
    """With one of three blocks damaged, 344 of 600 vectors stay, 256 are lost, and the file goes to the quarantine."""
    storage = make(tmp_path / "s", 600)
    path = storage.layout.shard_file(SPACE.key, 1)
    start = shard.read_shard_header(path).data_offset
    data = bytearray(path.read_bytes())
    data[start + 300 * 8] ^= 1
    path.write_bytes(data)
    report = verify(Storage.open(tmp_path / "s"))
    assert [(d.file.rsplit("/", 1)[1], d.location) for d in report.damage] == [("000000001.vec", "block 1")]
    repaired = repair(tmp_path / "s")
    assert len(repaired.lost_contents[SPACE.key]) == 256
    again = Storage.open(tmp_path / "s")
    assert verify(again).ok
    kept = rows(again)
    assert kept == {u: v for n, (u, v) in enumerate(expected(600).items()) if not 256 <= n < 512}
    assert (storage.layout.quarantine / f"{SPACE.key}-000000001.vec").read_bytes() == bytes(data)


def test_unregistered_file_is_removed_only_if_its_vectors_exist_elsewhere(tmp_path):
    """A file that a later one replaced is removed; the only copy of an item's vectors goes to the quarantine."""
    storage = make(tmp_path / "s", 10, 10)
    copy = shard.Shard(storage.layout.shard_file(SPACE.key, 1))
    with storage.writer("like a compaction that was killed before it removed old files") as writer:
        shard.write_shard(
            storage.layout.shard_file(SPACE.key, 3),
            space=SPACE.key,
            number=3,
            vectors=copy.vectors,
            contents=copy.contents,
        )
        h = shard.read_shard_header(storage.layout.shard_file(SPACE.key, 3))
        with writer.transaction() as con:
            con.execute("UPDATE vectors SET shard = 3 WHERE shard = 1")
            con.execute("UPDATE shards SET shard = 3, checksum = ? WHERE shard = 1", [h.checksum])
            con.execute("DELETE FROM vectors WHERE shard = 2")
            con.execute("DELETE FROM shards WHERE shard = 2")
            con.execute("UPDATE counters SET next_shard = 4")
    again = Storage.open(tmp_path / "s")
    with again.writer("next"):
        pass
    names = sorted(p.name for p in (tmp_path / "s").rglob("*.vec"))
    assert names == ["000000003.vec", f"{SPACE.key}-000000002.vec"]
    assert len(again.notices) == 2


def test_writer_may_open_and_close_the_catalog_file_itself(tmp_path):
    """Closing a second descriptor of the file releases DuckDB's lock; ours still refuses a second writer."""
    storage = make(tmp_path / "s", 3)
    code = """
        import sys
        from embedstore.errors import StoreBusy
        from embedstore.storage.storage import Storage
        try:
            with Storage.open(sys.argv[1]).writer("second"):
                pass
        except StoreBusy as e:
            print(e)
        """
    with storage.writer("owner") as writer, writer.transaction() as con:
        con.execute("UPDATE items SET label = 'new'")
        with storage.layout.catalog.open("rb") as f:
            f.read(10)
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "s")]
        other = subprocess.run(command, check=True, capture_output=True, text=True)
        assert f"process {os.getpid()} since" in other.stdout
    again = Storage.open(tmp_path / "s")
    assert again.sql("SELECT DISTINCT label FROM items")[1] == [("new",)]
    assert rows(again) == expected(3)
    assert verify(again).ok


def test_rows_of_a_large_file_are_verified_by_block(tmp_path, monkeypatch):
    """In a file that is not verified as a whole, a damaged block is detected when one of its rows is read."""
    monkeypatch.setattr(shard_cache, "VERIFY_WHOLE_BYTES", 0)
    storage = make(tmp_path / "s", 600)
    path = storage.layout.shard_file(SPACE.key, 1)
    data = bytearray(path.read_bytes())
    data[shard.read_shard_header(path).data_offset + 300 * 8] ^= 1
    path.write_bytes(data)
    held = Storage.open(tmp_path / "s").vector_reader(SPACE)
    assert held.read_float32(np.array([0, 255, 512, 599])).tolist() == [vector(n).tolist() for n in (1, 256, 513, 600)]
    with pytest.raises(StoreDamaged, match="block 1"):
        held.read_float32(np.array([0, 256]))


def test_store_created_again_at_the_same_path_is_read_anew(tmp_path):
    """With the same path, space and file number but other vectors, the new vectors are read."""
    make(tmp_path / "s", 5)
    assert rows(Storage.open(tmp_path / "s")) == expected(5)
    shutil.rmtree(tmp_path / "s")
    storage = Storage.create(tmp_path / "s")
    other = batch(1, 5)
    other.vectors = [v * 2 for v in other.vectors]
    with storage.writer("test") as writer:
        writer.add_space(SPACE, name="test", dtype="float16", recipe=None)
        writer.commit(other, space=storage.space())
    assert rows(storage) == {u: [2 * x for x in v] for u, v in expected(5).items()}


def test_reader_waits_for_a_checkpoint_of_an_active_writer(tmp_path):
    """The guard copy of an active writer is not a crash: a reader waits and gets every row, without a notice."""
    code = """
        import sys, time
        from embedstore.storage.catalog import Catalog
        from embedstore.storage.storage import Storage
        from tests.helpers.vector_stores import batch
        whole = Catalog.checkpoint
        def slow(self):
            print("in", flush=True)
            time.sleep(1.0)
            whole(self)
        Catalog.checkpoint = slow
        storage = Storage.open(sys.argv[1])
        with storage.writer("adding") as writer:
            writer.commit(batch(6, 5), space=storage.space())
        """
    make(tmp_path / "s", 5)
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "s")], stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    storage = Storage.open(tmp_path / "s")
    assert rows(storage) == expected(10)
    assert storage.notices == []
    assert other.wait() == 0


def test_fork_of_a_writer_cannot_write(tmp_path):
    """A write in the child is refused, its exit does not release the lock, and the parent can write."""
    storage = make(tmp_path / "s", 3)
    with storage.writer("parent") as writer:
        pid = os.fork()
        if pid == 0:
            try:
                writer.commit(batch(4, 1), space=storage.space())
            except StoreError as e:
                os._exit(7 if "fork" in str(e) else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        with pytest.raises(StoreBusy), lock.writer_lock(storage.layout.lock, "other"):
            pass
        writer.commit(missing_batch(storage, 4, 2), space=storage.space())
    assert rows(Storage.open(tmp_path / "s")) == expected(5)


def test_store_under_two_names_has_one_lock(tmp_path):
    """Through a symbolic link to the store, reading works and a second writer is refused."""
    storage = make(tmp_path / "s", 3)
    (tmp_path / "link").symlink_to("s")
    other = Storage.open(tmp_path / "link")
    with storage.writer("first") as writer:
        with pytest.raises(StoreBusy, match=rf"process {os.getpid()} .*first"), other.writer("second"):
            pass
        with other.catalog.read() as con:
            con.execute("SELECT 1").fetchall()
        writer.commit(batch(4, 3), space=storage.space())
    assert rows(other) == expected(6)


EMBED = """
import sys
from tests.helpers.vector_stores import batch
from embedstore.storage.storage import Storage
storage = Storage.open(sys.argv[1])
with storage.writer("adding") as writer:
    for i in range(60):
        writer.commit(batch(1 + 10 * i, 10), space=storage.space())
        print(i, flush=True)
"""


def test_backup_beside_a_writer_is_one_generation(tmp_path):
    """Each backup is a store with whole commits; a restored one has the same rows, and a damaged one is refused."""
    make(tmp_path / "s")
    other = subprocess.Popen([sys.executable, "-c", EMBED, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    sizes = []
    for n in range(4):
        other.stdout.readline()
        backup(Storage.open(tmp_path / "s"), tmp_path / f"b{n}", hard_link=n % 2 == 1)
        copied = Storage.open(tmp_path / f"b{n}")
        found = rows(copied)
        assert found == expected(len(found))
        assert verify(copied).ok
        assert copied.notices == []
        sizes.append(len(found))
    other.stdout.read()
    assert other.wait() == 0
    assert {s % 10 for s in sizes} == {0}
    assert sizes == sorted(sizes)
    restore(tmp_path / "b3", tmp_path / "restored")
    assert rows(Storage.open(tmp_path / "restored")) == expected(sizes[-1])
    path = sorted((tmp_path / "b0").rglob("*.vec"))[0]
    flip(path, np.random.default_rng(3))
    with pytest.raises(StoreDamaged):
        restore(tmp_path / "b0", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def header(length: int, text: bytes = b"") -> bytes:
    """Return the beginning of a safetensors file."""
    return length.to_bytes(8, "little") + text


BOMBS = {
    "claims a header of 8 EiB": header((1 << 63) - 1),
    "claims a header of 1 GiB": header(1 << 30, b"{" * 100),
    "nests 30,000 deep": header(30_000, b"[" * 30_000),
    "is a pickle": b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R.",
    "claims 2^60 rows": header(
        500,
        json.dumps({
            "__metadata__": {"space": "s", "number": "1", "rows": str(1 << 60), "dim": "512", "dtype": "float16",
                             "checksum": "0"}
        }).encode().ljust(500),
    ),
    "has rows with 5,000 digits": header(
        6000, json.dumps({"__metadata__": {"space": "s", "number": "1", "rows": "9" * 5000}}).encode().ljust(6000)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_vector_file_with_a_false_header_is_refused_in_bounded_memory(tmp_path, name):
    """The file is refused by its header alone, and memory does not grow."""
    path = tmp_path / "1.vec"
    path.write_bytes(BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(EmbedstoreError, match="not a whole vector file"):
        shard.Shard(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_store_of_many_vector_files_needs_few_file_descriptors(tmp_path):
    """A process that may open three hundred more files reads six hundred vector files."""
    storage = make(tmp_path / "s")
    with storage.writer("many files") as writer, writer.transaction() as con:
        whole = batch(1, 600)
        item_rows.insert_contents(con, whole.content_info)
        item_rows.insert_items(con, whole.item_columns(), None)
        for n in range(1, 601):
            path = storage.layout.shard_file(SPACE.key, n)
            v = np.array([vector(n)], dtype=np.float16)
            head = shard.write_shard(path, space=SPACE.key, number=n, vectors=v, contents=[digest(n)])
            insert_shard(con, head, [digest(n)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(300 + len(list(Path("/proc/self/fd").iterdir())), hard), hard))
    try:
        assert rows(storage) == expected(600)
        assert verify(storage).ok
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
