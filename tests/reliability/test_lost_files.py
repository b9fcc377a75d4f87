"""A lost log, catalog or commit counter is refused or rebuilt; purged vectors do not come back."""

import os

import pytest

from embedstore.errors import StoreDamaged
from embedstore.storage import checkpoint, compact, item_changes, shard
from embedstore.storage import purge as purging
from embedstore.storage.commit import CommitBatch
from embedstore.storage.integrity.repair import repair
from embedstore.storage.integrity.verify import verify
from embedstore.storage.item_changes import ItemSelection
from embedstore.storage.item_columns import ItemRow
from embedstore.storage.storage import Storage
from embedstore.types import ImageRef
from tests.helpers.vector_stores import SPACE, batch, digest, expected, make, rows, vector
from tests.reliability.oracle import missing_batch

LOSSES = ["deleted", "cut in half", "emptied", "replaced by an older one"]


def damage_log(storage: Storage, damage: str, older: bytes) -> None:
    """Remove, cut, empty or replace the log of the catalog."""
    log = storage.layout.wal
    if damage == "deleted":
        log.unlink()
    elif damage == "replaced by an older one":
        log.write_bytes(older)
    else:
        os.truncate(log, 0 if damage == "emptied" else log.stat().st_size // 2)


@pytest.mark.parametrize("damage", LOSSES)
def test_repair_after_a_lost_log_registers_its_vector_files(tmp_path, damage, monkeypatch):
    """Without the log of three commits the store is refused; repair registers their vectors again."""
    storage = make(tmp_path / "s", 10)
    monkeypatch.setattr(checkpoint, "guarded_checkpoint", lambda *_, **__: None)
    logs = []
    with storage.writer("killed before the checkpoint") as writer:
        for i in range(3):
            writer.commit(batch(11 + 10 * i, 10), space=storage.space())
            logs.append(storage.layout.wal.read_bytes())
    monkeypatch.undo()
    damage_log(storage, damage, logs[0])
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
        writer.commit(missing_batch(again, len(found) + 1, 40 - len(found)), space=again.space())
    assert rows(again) == expected(40)


@pytest.mark.parametrize(
    ("damage", "change"),
    [*((damage, "labels") for damage in LOSSES), ("deleted", "items without vectors"), ("cut in half", "a deletion")],
)
def test_lost_log_of_commits_without_vectors_is_refused(tmp_path, damage, change, monkeypatch):
    """An edit, a deletion and items of known contents write no vector file: the commit counter reveals their loss."""
    storage = make(tmp_path / "s", 10)
    monkeypatch.setattr(checkpoint, "guarded_checkpoint", lambda *_, **__: None)
    logs = []
    with storage.writer("killed before the checkpoint") as writer:
        for i in range(2):
            if change == "labels":
                item_changes.edit(writer, {"label": f"'new {i}'"}, ItemSelection("true"))
            elif change == "a deletion":
                item_changes.delete(writer, ItemSelection(items=[1 + i]))
            else:
                more = [ItemRow(ImageRef(f"/more/{i}", f"/more/{i}", 1, 1), digest(1 + i))]
                writer.commit(CommitBatch(items=more), space=storage.space())
            logs.append(storage.layout.wal.read_bytes())
    monkeypatch.undo()
    damage_log(storage, damage, logs[0])
    with pytest.raises(StoreDamaged, match=r"commit \d+ was acknowledged"):
        Storage.open(tmp_path / "s")
    lost = repair(tmp_path / "s").actions
    assert [d for d in lost if "acknowledged commits are lost" in d]
    again = Storage.open(tmp_path / "s")
    assert verify(again).ok
    if damage not in ("replaced by an older one", "cut in half"):
        assert rows(again) == expected(10)
    with again.writer("goes on") as writer:
        writer.commit(batch(100, 2), space=again.space())
    assert verify(Storage.open(tmp_path / "s")).ok


def test_damaged_commit_counter_has_no_effect_or_is_detected(tmp_path):
    """One damaged record has no effect; the loss of both is named and repaired."""
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


@pytest.mark.parametrize("lost", ["catalog", "catalog and log", "catalog's tables"])
def test_lost_catalog_is_rebuilt_from_the_other_files(tmp_path, lost):
    """Repair restores spaces from space.json and vectors from their files; only the items must be added again."""
    storage = make(tmp_path / "s", 10, 20)
    if lost == "catalog's tables":
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
        writer.commit(missing_batch(again, 1, 30), space=again.space())
    assert rows(again) == expected(30)
    assert verify(again).ok


def test_repair_does_not_restore_purged_vectors(tmp_path):
    """Before and after a compaction, with a damaged file: intact vectors are kept, purged ones do not come back."""
    storage = make(tmp_path / "s", 300, 300)
    gone = {f"/i/{n}.jpg" for n in (2, 301, 302)}
    with storage.writer("purge") as writer:
        purging.purge(writer, ItemSelection(items=[2, 301, 302]))
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


def test_repair_does_not_restore_purged_vectors_from_files_of_a_killed_compaction(tmp_path):
    """Repair removes the old files that a killed compaction left, and purged vectors with them."""
    storage = make(tmp_path / "s", 20, 20)
    with storage.writer("purge") as writer:
        purging.purge(writer, ItemSelection(items=[5]))
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
