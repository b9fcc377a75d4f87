"""Links, named pipes and devices inside a store are never followed, waited for or written through."""

import os
import shutil
import socket
import tracemalloc
from pathlib import Path

import pytest

from embedstore.errors import StoreDamaged, UnsafeStore
from embedstore.storage import store_files
from embedstore.storage.durable_files import write_synced
from embedstore.storage.integrity.repair import repair
from embedstore.storage.layout import Layout
from embedstore.storage.storage import Storage
from tests.helpers.vector_stores import SPACE, expected, make, rows

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege, and there are no named pipes")

PLACES = [
    "embedstore.json", "LOCK", "COMMITTED", "COMMITTED.new", "catalog.duckdb", "catalog.duckdb.wal",
    "catalog.duckdb.wal.recovery", "catalog.duckdb.new", "checkpoint.guard", "checkpoint.guard/COMPLETE",
    "checkpoint.guard/catalog.duckdb", "quarantine", "spaces", f"spaces/{SPACE.key}",
    f"spaces/{SPACE.key}/shards", f"spaces/{SPACE.key}/shards/000000001.vec", f"spaces/{SPACE.key}/space.json",
    f"spaces/{SPACE.key}/shards/x.tmp", f"spaces/{SPACE.key}/index", f"spaces/{SPACE.key}/index/LOCK",
    f"spaces/{SPACE.key}/towers/text/graph.onnx", "heads", "heads/a", "heads/a/head.json", "checkpoints",
    "checkpoints/x/weights.safetensors",
]  # fmt: skip


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A store of four items, to be copied."""
    path = tmp_path_factory.mktemp("original") / "s"
    make(path, 4)
    return path


def outside(folder: Path) -> Path:
    """A folder of somebody, which nothing may touch."""
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "x.tmp").write_text("mine")
    (folder / "mine.txt").write_text("mine")
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of change of every file of a folder."""
    return {
        str(p.relative_to(folder)): (p.read_bytes() if p.is_file() else b"", p.stat().st_mtime_ns)
        for p in folder.rglob("*")
    }


def replace_with(place: Path, make_entry) -> None:
    """Put another entry in the place of what is there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        place.rename(place.with_name("moved"))
    place.unlink(missing_ok=True)
    make_entry(place)


def refused_by_everything(path: Path) -> None:
    """Reading, writing and repairing are refused before anything is done."""
    with pytest.raises(UnsafeStore):
        Storage.open(path)
    with pytest.raises(UnsafeStore):
        repair(path)


@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_a_store_is_refused(tmp_path, original, place):
    """Whether the link points to a file, to a folder, into the store or nowhere, it is not followed."""
    mine = outside(tmp_path / "mine")
    before = snapshot(mine)
    for n, target in enumerate([mine / "mine.txt", mine / "a", tmp_path / "missing", Path("embedstore.json")]):
        shutil.copytree(original, tmp_path / f"{n}")
        replace_with(tmp_path / f"{n}" / place, lambda p, target=target: p.symlink_to(target))
        refused_by_everything(tmp_path / f"{n}")
    assert snapshot(mine) == before
    assert not (tmp_path / "missing").exists()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.timeout(60)
def test_a_named_pipe_or_socket_in_a_store_is_refused_and_not_waited_for(tmp_path, original, place, monkeypatch):
    """Opening a named pipe would wait for ever."""
    shutil.copytree(original, tmp_path / "a")
    replace_with(tmp_path / "a" / place, os.mkfifo)
    refused_by_everything(tmp_path / "a")
    shutil.copytree(original, tmp_path / "b")
    replace_with(tmp_path / "b" / place, lambda p: p.mkdir())
    (tmp_path / "b" / place).rmdir()
    monkeypatch.chdir((tmp_path / "b" / place).parent)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as s:
        s.bind((tmp_path / "b" / place).name)
        refused_by_everything(tmp_path / "b")


@pytest.mark.parametrize("place", ["LOCK", "COMMITTED", "catalog.duckdb"])
def test_a_file_with_a_second_name_is_read_and_not_written(tmp_path, place):
    """A change of it would change a file outside of the store; a snapshot that shares its files can still be read."""
    storage = make(tmp_path / "s", 4)
    os.link(tmp_path / "s" / place, tmp_path / "mine")
    before = (tmp_path / "mine").read_bytes()
    assert rows(Storage.open(tmp_path / "s")) == expected(4)
    with pytest.raises(UnsafeStore, match="second name"), storage.writer("test") as writer:
        writer.set_default(SPACE.key)
    assert (tmp_path / "mine").read_bytes() == before


def test_a_store_that_is_reached_through_a_link_is_opened(tmp_path):
    """The folder of a store, and the folders above it, may be links; other entries of the folder are not looked at."""
    make(tmp_path / "real" / "s", 4)
    (tmp_path / "above").symlink_to(tmp_path / "real")
    (tmp_path / "s").symlink_to(tmp_path / "above" / "s")
    (tmp_path / "real" / "s" / "photos").symlink_to(tmp_path)
    storage = Storage.open(tmp_path / "s")
    with storage.writer("test") as writer:
        writer.set_default(SPACE.key)
    assert rows(storage) == expected(4)


@pytest.mark.parametrize(
    "key", ["..", "../..", "/etc", "", ".", "a/b", "A" * 16, "0" * 15, "0" * 17, "0" * 15 + "\n", None]
)
def test_a_key_of_a_space_that_is_a_path_is_refused(tmp_path, key):
    """What the catalog names becomes a folder's name only if it is a key of ours."""
    layout = Layout(tmp_path)
    for folder in (layout.space_folder, layout.shards_folder, layout.index_folder, layout.towers_folder,
                   layout.space_file, layout.checkpoint_folder):  # fmt: skip
        with pytest.raises(UnsafeStore):
            folder(key)


def test_files_are_opened_only_if_they_are_regular(tmp_path):
    """The one way in which files of a store are opened follows no link and waits for nothing."""
    (tmp_path / "real").write_bytes(b"{}")
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "pipe")
    assert store_files.read_json_object(tmp_path / "real") == {}
    for path in (tmp_path / "link", tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UnsafeStore):
            store_files.read_bounded(path)
    with pytest.raises(IsADirectoryError):
        store_files.read_bounded(tmp_path)


@pytest.mark.parametrize("length", [1 << 40, 4 << 30])
def test_a_file_of_holes_is_not_read(tmp_path, length):
    """A stranger's file of any length costs no time: it is longer than its limit, or hardly any of it is stored."""
    path = tmp_path / "holes"
    path.touch()
    os.truncate(path, length)
    if path.stat().st_blocks * 512 > 1 << 20:
        pytest.skip("this file system stores holes")
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"it has {length:,} bytes"):
        store_files.read_bounded(path, 8 << 30)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 20


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"[" * 100_000, ValueError), (b'{"a":' * 100_000, ValueError), (b"[]", TypeError), (b"null", TypeError),
     (b'{"a": ' + b"9" * 5000 + b"}", ValueError), (b" " * (store_files.MAX_JSON_BYTES + 1), ValueError),
     (b"\xff", ValueError), (b"", ValueError)],
)  # fmt: skip
def test_json_of_any_form_is_an_object_or_an_error(tmp_path, data, error):
    """Depth, size and kind are limited."""
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(error):
        store_files.read_json_object(tmp_path / "x.json")


@pytest.mark.parametrize(
    "marker", [b"[1]", b"{}", b'{"format": true, "id": "x"}', b'{"format": 1, "id": 3}', b'{"format": 1}']
)
def test_a_marker_of_another_form_is_damage(tmp_path, marker):
    """Every value of it has its type."""
    make(tmp_path / "s", 1)
    (tmp_path / "s" / "embedstore.json").write_bytes(marker)
    with pytest.raises(StoreDamaged, match=r"embedstore\.json is damaged"):
        Storage.open(tmp_path / "s")


def test_a_temporary_name_that_is_taken_by_a_link_is_replaced(tmp_path):
    """A file is written under a temporary name, which a stranger can guess."""
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "out.new").symlink_to(tmp_path / "mine")
    write_synced(tmp_path / "out", b"new")
    assert (tmp_path / "mine").read_text() == "mine"
    assert (tmp_path / "out").read_bytes() == b"new"
    assert not (tmp_path / "out").is_symlink()
