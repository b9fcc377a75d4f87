"""``embedstore verify`` and ``repair`` as run by a person: the block is named, its rows come back, no others change."""

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
from tests.reliability.fork_server import CLI, Warm

COUNT = 300  # one file of two blocks: 256 and 44


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store of 300 pictures in one vector file, with an index."""
    folder = tmp_path_factory.mktemp("care")
    (folder / "photos").mkdir()
    for n in range(COUNT):
        picture(n, (16, 16)).save(folder / "photos" / f"{n:03d}.png")
    store = es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(folder / "photos", label=None)
    store.compact()  # one file, also where the machine was so busy that the run committed in between
    store.index(kind="flat", recall=1.0)
    return folder


@pytest.fixture
def store(made, tmp_path):
    """A copy to spoil."""
    shutil.copytree(made / "s", tmp_path / "s")
    return tmp_path / "s"


def flip(path, at):
    """One bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def vectors(path) -> dict[str, bytes]:
    """Every vector as it is stored, by uri."""
    storage = es.open(path)._storage
    row = storage.space()
    found = storage.sql(
        'SELECT uri, shard, "row" FROM items JOIN vectors USING (content) WHERE space = ? ORDER BY item', [row.key]
    )[1]
    held = storage.vector_reader(row.space)
    got = held.read_float32(held.positions(np.array([f[1] for f in found]), np.array([f[2] for f in found])))
    return {f[0]: v.astype(np.float16).tobytes() for f, v in zip(found, got, strict=True)}


def test_verify_names_the_block_and_repair_embeds_its_rows_again(commands: Warm, store):
    """Exit status 1 and the block; then 44 of 300 vectors are computed again, and the rest is untouched."""
    before = vectors(store)
    (path,) = store.glob("spaces/*/shards/*.vec")
    head = shard.read_shard_header(path)
    assert (head.rows, head.block_rows) == (COUNT, 256)
    flip(path, head.data_offset + 280 * head.dim * 2 + 5)
    said = commands.run(CLI, "verify", store)
    assert said.returncode == 1
    assert f"{path.relative_to(store)} (block 1): 44 rows do not match their checksum" in said.stdout
    assert "run `embedstore repair`" in said.stdout
    as_json = json.loads(commands.run(CLI, "verify", store, "--json").stdout)
    assert [(d["where"], as_json["ok"]) for d in as_json["damage"]] == [("block 1", False)]
    found = commands.run(CLI, "search", store, "--item", 1, "-k", 3)
    assert (found.returncode, found.stderr.count("\n")) == (1, 1), "refused in one line"
    mended = commands.run(CLI, "repair", store)
    assert mended.returncode == 0, mended.stderr
    assert "256 of 300 vectors were saved, 44 are lost" in mended.stdout
    assert mended.stdout.splitlines()[-1] == "44 vectors were lost, 44 of them were embedded again"
    after = vectors(store)
    assert after.keys() == before.keys()
    uris = list(before)
    assert [u for u in uris[:256] if after[u] != before[u]] == [], "what was whole stays bit for bit"
    near = [np.allclose(*(np.frombuffer(x[u], np.float16) for x in (before, after)), atol=2e-3) for u in uris[256:]]
    assert all(near)
    assert commands.run(CLI, "verify", store, "--images").returncode == 0
    assert [i["usable"] for i in build.list_indexes(es.open(store)._storage)] == [True], "the index was built again"
    assert (store / "quarantine" / f"{path.parent.parent.name}-{path.name}").exists()


@pytest.mark.parametrize("what", [".faiss", ".json", "both"])
def test_a_damaged_index_is_built_again(store, what):
    """Of damaged bytes, of a damaged sidecar, of both: repair leaves an index that is used and exact."""
    opened = es.open(store)
    wanted = [h.item for h in opened.search(7, k=5, exact=True)]
    for path in store.glob("spaces/*/index/*"):
        if what in (path.suffix, "both"):
            flip(path, 1)
    assert not opened.verify().ok
    said = opened.repair(reembed=False)
    assert [s for s in said.actions if "its index was built again" in s]
    assert opened.verify().ok
    (index,) = build.list_indexes(opened._storage)
    assert (index["usable"], index["rows"]) == (True, COUNT)
    assert [h.item for h in es.open(store).search(7, k=5)] == wanted


def test_verify_says_how_far_it_is(store):
    """Bytes of vectors, then images, each to its end; an image that changed is a note, one that rotted is damage."""
    seen = []
    opened = es.open(store)
    (path,) = store.glob("spaces/*/shards/*.vec")
    first = opened.verify(check_images=True, progress=seen.append)
    assert first.ok
    assert [(c.unit, c.done, c.total) for c in seen] == [
        ("vectors", path.stat().st_size, path.stat().st_size), ("images", COUNT, COUNT),
    ]  # fmt: skip


def test_an_image_that_rots_is_damage_and_one_that_was_edited_is_not(commands: Warm, made, tmp_path):
    """Same size and time with other bytes: named, exit status 1. A newer file: counted, exit status 0."""
    for n in range(4):
        picture(n, (16, 16)).save(tmp_path / f"{n}.png")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(tmp_path / "*.png", label=None)
    picture(9, (16, 16)).save(tmp_path / "1.png")
    assert commands.run(CLI, "verify", tmp_path / "s", "--images").returncode == 0
    path = tmp_path / "2.png"
    times = path.stat()
    flip(path, 50)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = commands.run(CLI, "verify", tmp_path / "s", "--images")
    assert said.returncode == 1
    assert f"{path}: its size and time are as before, but its bytes are others" in said.stdout
    assert "4 images (1 changed or gone)" in said.stdout


def test_any_verb_says_what_it_mended(commands: Warm, store):
    """After a checkpoint that was interrupted: one line on stderr, the result on stdout; the next verb is silent."""
    at = es.open(store)._storage.layout
    at.guard.mkdir()
    shutil.copy(at.catalog, at.guard)
    (at.guard / COMPLETE).touch()
    at.catalog.write_bytes(at.catalog.read_bytes()[:4096] + bytes(8192))
    said = commands.run(CLI, "sql", store, "SELECT count(*) AS n FROM items", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout) == [{"n": COUNT}]
    assert said.stderr == "a checkpoint was interrupted: the catalog was restored from its guard copy\n"
    assert commands.run(CLI, "info", store).stderr == ""
