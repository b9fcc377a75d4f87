"""Vector files, indexes, heads, checkpoints and inbox of a store in a bucket, by a mount with a cache.

rclone mounts a bucket of a real S3 server; the catalog stays on the local disk.
"""

import re

import pytest

import embedstore as es
from embedstore.errors import EmbedstoreError, StoreDamaged
from tests.conftest import picture
from tests.helpers.bucket_mount import mounted_bucket
from tests.helpers.clusters import clusters, store_of
from tests.pipeline.test_embed import tiny_store

pytestmark = pytest.mark.engines
X, Y = clusters(60, noise=0.1)


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """A bucket whose folders can be mounted."""
    (tmp_path / "bucket").mkdir()
    with mounted_bucket(tmp_path / "bucket", monkeypatch) as bucket:
        yield bucket


def ranked(store, **options):
    return [(h.item, round(h.score, 6)) for h in store.search(3, k=8, **options)]


def rows_and_vectors(store):
    return store.sql("SELECT uri, label, content FROM items ORDER BY uri").rows, ranked(store, exact=True)


def photo_store(path, mounts=None):
    """An empty store, whose vector files, indexes, inbox and heads are in the bucket if there is one."""
    store = tiny_store(path, runtime="eager")
    if mounts:
        (path / "heads").mkdir(exist_ok=True)
        mounts.move(path / "spaces")
        mounts.move(path / "heads")
    return store


def write_pictures(folder, first, count):
    """Pictures of two labels."""
    for n in range(first, first + count):
        path = folder / ("cat" if n % 2 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    return folder


def use_every_verb(store, path, photos, more):
    """Embed here and in parts, index, fit, purge, compact, repair; yield what the store holds after each."""
    store.embed(photos, progress=False)
    yield "embed", rows_and_vectors(store)
    store.plan_parts(more, 2, progress=False)
    for part in ("1/2", "2/2"):
        es.work(path, part, runtime="eager", progress=False)
    assert store.register().finished
    yield "parts", rows_and_vectors(store)
    store.build_index()
    store.probe("label", head="ridge", save_as="kept")
    yield "index", ranked(store)
    store.predict("kept")
    yield "head", store.sql("SELECT * FROM predictions ORDER BY ALL").rows
    store.purge("item = 2")
    store.compact()
    yield "purge", rows_and_vectors(store)
    assert store.verify().ok
    store.close()
    assert es.repair_store(path).n_lost_vectors == 0
    yield "repair", rows_and_vectors(es.open(path))


def test_every_verb_works_on_folders_in_a_bucket(mounts, tmp_path):
    """What it gives is what it gives on a local disk, and it holds after the mount and its cache are gone."""
    sources = write_pictures(tmp_path / "photos", 0, 24), write_pictures(tmp_path / "more", 24, 4)
    local = dict(use_every_verb(photo_store(tmp_path / "local"), tmp_path / "local", *sources))
    mounted = dict(use_every_verb(photo_store(tmp_path / "s", mounts), tmp_path / "s", *sources))
    assert mounted == local
    mounts.wait_for_uploads()
    kept = {path.suffix for path in mounts.objects.rglob("*") if path.is_file()}
    assert {".vec", ".faiss", ".safetensors"} <= kept
    for name in ("spaces", "heads"):
        mounts.unmount(tmp_path / "s" / name)
    mounts.forget_cache()
    for name in ("spaces", "heads"):
        mounts.mount(tmp_path / "s" / name)
    store = es.open(tmp_path / "s")
    assert store.verify().ok
    assert rows_and_vectors(store) == local["repair"]
    store.backup(tmp_path / "b")
    assert rows_and_vectors(es.open(tmp_path / "b")) == local["repair"]


def vector_store(path, mounts):
    """60 vectors whose files are in the bucket."""
    store = store_of(path, X, label=Y)
    store.close()
    mounts.move(path / "spaces")
    return es.open(path)


@pytest.mark.slow
def test_what_was_read_is_kept_on_the_local_disk(mounts, tmp_path):
    """A search does not ask the bucket again; without the object and its copy, it is one line and no wrong answer."""
    path = tmp_path / "s"
    store = vector_store(path, mounts)
    wanted = ranked(store, exact=True)
    mounts.wait_for_uploads()
    (file,) = mounts.objects.rglob("*.vec")
    file.unlink()
    assert ranked(es.open(path), exact=True) == wanted
    store.close()
    mounts.unmount(path / "spaces")
    mounts.forget_cache()
    mounts.mount(path / "spaces")
    with pytest.raises(EmbedstoreError, match=re.escape(file.name)):
        ranked(es.open(path), exact=True)


def test_an_object_that_was_changed_is_refused(mounts, tmp_path):
    """A byte of a vector that changes in the bucket is found by a checksum, and there are no wrong hits."""
    path = tmp_path / "s"
    store = vector_store(path, mounts)
    ranked(store, exact=True)
    mounts.wait_for_uploads()
    store.close()
    mounts.unmount(path / "spaces")
    mounts.forget_cache()
    (file,) = mounts.objects.rglob("*.vec")
    data = bytearray(file.read_bytes())
    data[-2000] ^= 255
    file.write_bytes(data)
    mounts.mount(path / "spaces")
    with pytest.raises(StoreDamaged, match="checksum"):
        ranked(es.open(path), exact=True)
    assert not es.open(path).verify().ok


def test_rows_that_were_acknowledged_survive_the_end_of_the_mount(mounts, tmp_path):
    """The program of the mount is killed before anything is uploaded: the next mount uploads it from its cache."""
    path = tmp_path / "s"
    store = vector_store(path, mounts)
    mounts.wait_for_uploads()
    store.close()
    mounts.unmount(path / "spaces")
    mounts.mount(path / "spaces", write_back="1h")
    before = set(mounts.objects.rglob("*.vec"))
    store = es.open(path)
    store.add_vectors(X[:50] + 1, {"uri": [f"/new{n}" for n in range(50)]}, space=store.spaces[0].name)
    wanted = ranked(store, exact=True)
    store.close()
    assert set(mounts.objects.rglob("*.vec")) == before, "nothing is uploaded yet"
    mounts.kill(path / "spaces")
    mounts.mount(path / "spaces")
    mounts.wait_for_uploads()
    assert len(set(mounts.objects.rglob("*.vec"))) == len(before) + 1
    store = es.open(path)
    assert (store.info().items, ranked(store, exact=True), store.verify().ok) == (110, wanted, True)


def test_a_folder_that_a_bucket_does_not_keep_is_made_again(tmp_path):
    """A bucket has no empty folders: vectors are added where that of the vector files is gone."""
    store = store_of(tmp_path / "s", X[:20])
    store.purge("true")
    store.compact()
    (folder,) = (tmp_path / "s" / "spaces").glob("*/shards")
    assert list(folder.iterdir()) == []
    folder.rmdir()
    store.add_vectors(X[20:], {"uri": [f"/{n}" for n in range(20, len(X))]}, space="numbers")
    assert (store.info().items, store.verify().ok) == (40, True)
