"""Buckets of Google Cloud Storage, through gcsfs and an emulator of the service on loopback."""

import pytest

import embedstore as es
from embedstore.errors import SourceError
from embedstore.sources.locations import read_location
from embedstore.sources.remote.filesystem import forget_connections
from tests.sources.test_archives import PHOTOS, picture, tar_bytes


@pytest.fixture
def bucket(monkeypatch):
    """Put files into a bucket ``photos`` of the emulator."""
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
    gcsfs = pytest.importorskip("gcsfs", reason="gcsfs is not installed (extra gs)")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True)
    server.start()
    host, port = server._api._httpd.server_address
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}:{port}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    forget_connections()
    try:
        files = gcsfs.GCSFileSystem(token="anon", project="test")
        files.mkdir("photos")
        yield lambda key, data: files.pipe_file(f"photos/{key}", data)
    finally:
        server.stop()
        forget_connections()


def test_a_prefix_of_a_bucket_is_embedded_and_rescanned(bucket, tmp_path):
    """Labels come from the keys, an unchanged file is not read again, and a changed and a new one are."""
    for key, data in PHOTOS:
        bucket(f"pets/{key}", data)
    store = es.create(tmp_path / "s", "tiny")
    report = store.embed("gs://photos/pets")
    assert (report.embedded, report.failures) == (len(PHOTOS), 0)
    [uri, *_] = [uri for (uri,) in store.sql("SELECT uri FROM items ORDER BY uri").rows]
    assert read_location(uri) in dict(PHOTOS).values()
    assert store.embed("gs://photos/pets").unchanged == len(PHOTOS)
    bucket("pets/new/9.png", picture(9))
    again = store.embed("gs://photos/pets")
    assert (again.embedded, again.unchanged) == (1, len(PHOTOS))


def test_a_tar_in_a_bucket_is_read_in_place(bucket, tmp_path):
    """Its members are items with a uri that reads them again."""
    bucket("shard.tar", tar_bytes(PHOTOS))
    store = es.create(tmp_path / "s", "tiny")
    assert store.embed("gs://photos/shard.tar").embedded == len(PHOTOS)
    for (uri,) in store.sql("SELECT uri FROM items").rows:
        assert uri.startswith("tar://")
        assert read_location(uri) in dict(PHOTOS).values()


def test_a_bucket_that_does_not_exist_is_one_line(bucket, tmp_path):
    """The message names the bucket."""
    with pytest.raises(SourceError, match="missing") as e:
        es.create(tmp_path / "s", "tiny").embed("gs://missing/pets")
    assert "\n" not in str(e.value)
