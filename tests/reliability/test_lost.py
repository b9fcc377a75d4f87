"""A log, a catalog or a count of commits that is gone: refused or made again; what was forgotten stays so."""

import os

import pytest

from embedstore.errors import StoreDamaged
from embedstore.storage import checkpoint, compact, item_changes, shard
from embedstore.storage.commit import CommitBatch, ItemRow
from embedstore.storage.integrity.repair import repair
from embedstore.storage.integrity.verify import verify
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.storage import Storage
from embedstore.types import ImageRef
from tests.helpers.vector_stores import SPACE, batch, digest, expected, make, rows, vector
from tests.reliability.oracle import missing

LOSSES = ["deleted", "cut in half", "emptied", "exchanged for an older one"]


def lose(storage: Storage, what: str, older: bytes) -> None:
    """Something happens to a catalog's log."""
    log = storage.layout.wal
    if what == "deleted":
        log.unlink()
    elif what == "exchanged for an older one":
        log.write_bytes(older)
    else:
        os.truncate(log, 0 if what == "emptied" else log.stat().st_size // 2)


@pytest.mark.parametrize("what", LOSSES)
def test_a_lost_log_is_noticed_and_its_vectors_taken_back(tmp_path, what, monkeypatch):
    """Three commits stand only in the log: without it nothing is answered, and repair enters their vectors again."""
    storage = make(tmp_path / "s", 10)
    monkeypatch.setattr(checkpoint, "guarded_checkpoint", lambda *_, **__: None)
    logs = []
    with storage.writer("killed before the log is folded in") as writer:
        for i in range(3):
            writer.commit(batch(11 + 10 * i, 10), space=storage.space())
            logs.append(storage.layout.wal.read_bytes())
    monkeypatch.undo()
    lose(storage, what, logs[0])
    for _ in range(2):
        with pytest.raises(StoreDamaged, match=r"commit \d+ was acknowledged.*embedstore repair"):
            rows(Storage.open(tmp_path / "s"))
    repair(tmp_path / "s")
    again = Storage.open(tmp_path / "s")
    assert again.sql("SELECT count(*) FROM vectors")[1] == [(40,)]
    assert verify(again).ok
    found = rows(again)
    assert found == expected(len(found))
    with again.writer("again") as writer:
        writer.commit(missing(again, len(found) + 1, 40 - len(found)), space=again.space())
    assert rows(again) == expected(40)


@pytest.mark.parametrize(
    ("what", "doing"),
    [*((w, "labels") for w in LOSSES), ("deleted", "items without vectors"), ("cut in half", "a deletion")],
)
def test_a_lost_log_of_commits_without_vectors_is_refused(tmp_path, what, doing, monkeypatch):
    """No vector file speaks for an edit, a deletion or further items of known contents: the count of commits does."""
    storage = make(tmp_path / "s", 10)
    monkeypatch.setattr(checkpoint, "guarded_checkpoint", lambda *_, **__: None)
    logs = []
    with storage.writer("killed before the log is folded in") as writer:
        for i in range(2):
            if doing == "labels":
                item_changes.edit(writer, {"label": f"'new {i}'"}, ItemSelection("true"))
            elif doing == "a deletion":
                item_changes.delete(writer, ItemSelection(items=[1 + i]))
            else:
                more = [ItemRow(ImageRef(f"/more/{i}", f"/more/{i}", 1, 1), digest(1 + i))]
                writer.commit(CommitBatch(items=more), space=storage.space())
            logs.append(storage.layout.wal.read_bytes())
    monkeypatch.undo()
    lose(storage, what, logs[0])
    with pytest.raises(StoreDamaged, match=r"commit \d+ was acknowledged"):
        Storage.open(tmp_path / "s")
    lost = repair(tmp_path / "s").actions
    assert [d for d in lost if "acknowledged commits are lost" in d]
    again = Storage.open(tmp_path / "s")
    assert verify(again).ok
    if what != "exchanged for an older one" and what != "cut in half":
        assert rows(again) == expected(10)
    with again.writer("goes on") as writer:
        writer.commit(batch(100, 2), space=again.space())
    assert verify(Storage.open(tmp_path / "s")).ok


def test_a_bit_of_the_witness_is_harmless_or_found(tmp_path):
    """Bytes of its two records and of the rest: every row is there, and both records gone is named."""
    storage = make(tmp_path / "s", 10, 10)
    path = storage.layout.root / "COMMITTED"
    whole = path.read_bytes()
    for at in [*range(0, 24, 4), *range(4097, 4120, 4), 30, 8191]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        again = Storage.open(tmp_path / "s")
        assert rows(again) == expected(20)
        assert verify(again).ok
    for gone in (b"", bytes(8192)):
        path.write_bytes(gone)
        assert [d.file for d in verify(Storage.open(tmp_path / "s")).damage] == ["COMMITTED"]
        repair(tmp_path / "s")
        again = Storage.open(tmp_path / "s")
        assert verify(again).ok
        assert rows(again) == expected(20)


@pytest.mark.parametrize("what", ["catalog", "catalog and log", "catalog's tables"])
def test_a_lost_catalog_is_made_again_from_what_lies_beside(tmp_path, what):
    """Spaces come from their notes, vectors from their files; only the items have to be named again."""
    storage = make(tmp_path / "s", 10, 20)
    if what == "catalog's tables":
        import duckdb

        storage.layout.catalog.unlink()
        duckdb.connect(str(storage.layout.catalog)).close()
    else:
        storage.layout.catalog.unlink()
    with pytest.raises(StoreDamaged, match="embedstore repair"):
        rows(Storage.open(tmp_path / "s"))
    repair(tmp_path / "s")
    again = Storage.open(tmp_path / "s")
    assert again.space("test").key == SPACE.key
    assert again.sql("SELECT count(*) FROM vectors")[1] == [(30,)]
    with again.writer("again") as writer:
        writer.commit(missing(again, 1, 30), space=again.space())
    assert rows(again) == expected(30)
    assert verify(again).ok


def test_what_was_forgotten_stays_forgotten_through_repair(tmp_path):
    """Before and after a compaction, with damage in a file of either kind: the rest is saved, nothing comes back."""
    storage = make(tmp_path / "s", 300, 300)
    gone = {f"/i/{n}.jpg" for n in (2, 301, 302)}
    with storage.writer("forget") as writer:
        item_changes.purge(writer, ItemSelection(items=[2, 301, 302]))
    repair(tmp_path / "s")
    wanted = {u: v for u, v in expected(600).items() if u not in gone}
    assert rows(Storage.open(tmp_path / "s")) == wanted
    for compacted in (False, True):
        storage = Storage.open(tmp_path / "s")
        if compacted:
            with storage.writer("compact") as writer:
                compact.compact(storage, writer)
        last = sorted(p for p in (tmp_path / "s" / "spaces").rglob("*.vec"))[-1]
        head = shard.read_shard_header(last)
        data = bytearray(last.read_bytes())
        data[head.data_offset + 5] ^= 1
        last.write_bytes(data)
        lost = set(repair(tmp_path / "s").lost_contents[SPACE.key])
        again = Storage.open(tmp_path / "s")
        assert verify(again).ok
        assert rows(again) == {u: v for u, v in wanted.items() if digest(int(u[3:-4])) not in lost}
        with again.writer("embed again") as writer:
            left = [n for n in range(1, 601) if digest(n) in lost]
            assert left
            made = CommitBatch(digests=[digest(n) for n in left], vectors=[vector(n) for n in left])
            writer.commit(made, space=again.space())
        assert rows(again) == wanted
    storage = Storage.open(tmp_path / "s")
    with storage.writer("compact") as writer:
        compact.compact(storage, writer)
    stored = {c for p in (tmp_path / "s" / "spaces").rglob("*.vec") for c in shard.Shard(p).contents}
    assert stored == {digest(int(u[3:-4])) for u in wanted}


def test_forgotten_vectors_in_files_that_a_killed_compaction_left_are_not_taken_back(tmp_path):
    """The old files are there still when repair comes: they go, and what was forgotten with them."""
    storage = make(tmp_path / "s", 20, 20)
    with storage.writer("forget") as writer:
        item_changes.purge(writer, ItemSelection(items=[5]))
    old = {p: p.read_bytes() for p in (tmp_path / "s" / "spaces").rglob("*.vec")}
    with storage.writer("compact") as writer:
        compact.compact(storage, writer)
    for path, data in old.items():
        path.write_bytes(data)
    repair(tmp_path / "s")
    again = Storage.open(tmp_path / "s")
    assert rows(again) == {u: v for u, v in expected(40).items() if u != "/i/5.jpg"}
    assert verify(again).ok
    assert digest(5) not in {c for p in (tmp_path / "s" / "spaces").rglob("*.vec") for c in shard.Shard(p).contents}
