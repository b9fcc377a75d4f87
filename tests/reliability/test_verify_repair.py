"""Run ``embedstore verify`` and ``repair``: the damaged block is named, and only its rows are embedded again."""

import json
import os
import shutil

import numpy as np
import pytest

import embedstore as es
from embedstore.search.index import build
from embedstore.storage import shard
from embedstore.storage.layout import COMPLETE
from tests.conftest import TINY, picture
from tests.reliability.fork_server import CLI, ForkServer

COUNT = 300  # one file of two blocks, 256 and 44 rows


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Create a store of 300 pictures in one vector file, with an index."""
    folder = tmp_path_factory.mktemp("care")
    (folder / "photos").mkdir()
    for n in range(COUNT):
        picture(n, (16, 16)).save(folder / "photos" / f"{n:03d}.png")
    store = es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(folder / "photos", labels_from=None)
    store.compact()  # one file, also where a busy machine committed more than once
    store.build_index(kind="flat", recall=1.0)
    return folder


@pytest.fixture
def store(made, tmp_path):
    """Copy the store, to damage the copy."""
    shutil.copytree(made / "s", tmp_path / "s")
    return tmp_path / "s"


def flip(path, at):
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def vectors(path) -> dict[str, bytes]:
    """Return the stored bytes of every vector by uri."""
    storage = es.open(path)._session.storage
    row = storage.space()
    found = storage.sql(
        'SELECT uri, shard, "row" FROM items JOIN vectors USING (content) WHERE space = ? ORDER BY item', [row.key]
    )[1]
    held = storage.vector_reader(row.space)
    got = held.read_float32(held.positions(np.array([f[1] for f in found]), np.array([f[2] for f in found])))
    return {f[0]: v.astype(np.float16).tobytes() for f, v in zip(found, got, strict=True)}


def test_verify_names_the_block_and_repair_embeds_its_rows_again(commands: ForkServer, store):
    """``verify`` exits with 1 and names the block; ``repair`` computes 44 of 300 vectors and changes no other."""
    before = vectors(store)
    (path,) = store.glob("spaces/*/shards/*.vec")
    head = shard.read_shard_header(path)
    assert (head.rows, head.block_rows) == (COUNT, 256)
    flip(path, head.data_offset + 280 * head.dim * 2 + 5)
    result = commands.run(CLI, "verify", store)
    assert result.returncode == 1
    assert f"{path.relative_to(store)} (block 1): 44 rows do not match their checksum" in result.stdout
    assert "run `embedstore repair STORE`" in result.stdout
    as_json = json.loads(commands.run(CLI, "verify", store, "--json").stdout)
    assert [(d["where"], as_json["ok"]) for d in as_json["damage"]] == [("block 1", False)]
    found = commands.run(CLI, "search", store, "--item", 1, "-k", 3)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1), "refused in one line"
    repaired = commands.run(CLI, "repair", store)
    assert repaired.returncode == 0, repaired.stderr
    assert "256 of 300 vectors were saved, 44 are lost" in repaired.stdout
    assert repaired.stdout.splitlines()[-1] == "44 vectors were lost, 44 of them were embedded again"
    after = vectors(store)
    assert after.keys() == before.keys()
    uris = list(before)
    assert [u for u in uris[:256] if after[u] != before[u]] == [], "intact vectors stay bit for bit"
    near = [np.allclose(*(np.frombuffer(x[u], np.float16) for x in (before, after)), atol=2e-3) for u in uris[256:]]
    assert all(near)
    assert commands.run(CLI, "verify", store, "--images").returncode == 0
    assert [i.usable for i in build.list_indexes(es.open(store)._session.storage)] == [True], (
        "the index was built again"
    )
    assert (store / "quarantine" / f"{path.parent.parent.name}-{path.name}").exists()


@pytest.mark.parametrize("damaged", [".faiss", ".json", "both"])
def test_repair_builds_a_damaged_index_again(store, damaged):
    """After damage of the index file, its sidecar or both, repair leaves an index that is used and exact."""
    opened = es.open(store)
    wanted = [h.item for h in opened.search(7, k=5, exact=True)]
    for path in store.glob("spaces/*/index/*"):
        if path.suffix == damaged or (damaged == "both" and path.suffix in (".faiss", ".json")):
            flip(path, 1)
    assert not opened.verify().ok
    result = opened.repair(reembed=False)
    assert [s for s in result.actions if "its index was built again" in s]
    assert opened.verify().ok
    (index,) = build.list_indexes(opened._session.storage)
    assert (index.usable, index.sidecar.rows) == (True, COUNT)
    assert [h.item for h in es.open(store).search(7, k=5)] == wanted


def test_verify_reports_progress(store):
    """Progress counts the bytes of the vector files, then the images."""
    seen = []
    opened = es.open(store)
    (path,) = store.glob("spaces/*/shards/*.vec")
    first = opened.verify(check_images=True, progress=seen.append)
    assert first.ok
    assert [(c.unit, c.done, c.total) for c in seen] == [
        ("vectors", path.stat().st_size, path.stat().st_size), ("images", COUNT, COUNT),
    ]  # fmt: skip


def test_corrupted_image_is_damage_and_edited_image_is_not(commands: ForkServer, made, tmp_path):
    """Other bytes with the same size and time are damage, exit status 1; a newer file is counted, exit status 0."""
    for n in range(4):
        picture(n, (16, 16)).save(tmp_path / f"{n}.png")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(tmp_path / "*.png", labels_from=None)
    picture(9, (16, 16)).save(tmp_path / "1.png")
    assert commands.run(CLI, "verify", tmp_path / "s", "--images").returncode == 0
    path = tmp_path / "2.png"
    times = path.stat()
    flip(path, 50)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    result = commands.run(CLI, "verify", tmp_path / "s", "--images")
    assert result.returncode == 1
    assert f"{path}: its size and time are as before, but its bytes are others" in result.stdout
    assert "4 images (1 changed or gone)" in result.stdout


def test_any_command_reports_what_was_repaired_on_opening(commands: ForkServer, store):
    """After an interrupted checkpoint the first command prints one line on stderr, the next one none."""
    at = es.open(store)._session.storage.layout
    at.guard.mkdir()
    shutil.copy(at.catalog, at.guard)
    (at.guard / COMPLETE).touch()
    at.catalog.write_bytes(at.catalog.read_bytes()[:4096] + bytes(8192))
    result = commands.run(CLI, "sql", store, "SELECT count(*) AS n FROM items", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == [{"n": COUNT}]
    assert result.stderr == "a checkpoint was interrupted: the catalog was restored from its guard copy\n"
    assert commands.run(CLI, "info", store).stderr == ""
