"""Buckets of a second S3 server, rclone's, which checks the signature of every request."""

import pytest

import embedstore as es
from embedstore.errors import SourceError
from embedstore.sources.locations import read_location
from embedstore.sources.remote.filesystem import forget_connections
from tests.helpers.rclone_server import serve_folder
from tests.sources.test_archives import PHOTOS, picture, tar_bytes


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder of a bucket that rclone serves."""
    with serve_folder(tmp_path, monkeypatch) as folder:
        yield folder


def test_prefixes_and_archives_of_a_stricter_server(bucket, tmp_path):
    """Items, a rescan without a change, a changed file, ranges of a tar."""
    for name, data in PHOTOS:
        (bucket / name).parent.mkdir(exist_ok=True)
        (bucket / name).write_bytes(data)
    (bucket / "shards").mkdir()
    (bucket / "shards" / "1.tar").write_bytes(tar_bytes([(f"x/{n}.png", picture(100 + n)) for n in range(20)]))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    sources = ["s3://photos/cats", "s3://photos/dogs", "s3://photos/shards/1.tar"]
    report = store.embed(sources, progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (26, 26, {})
    assert store.embed(sources, progress=False).unchanged == 26
    assert read_location("tar://x/7.png::s3://photos/shards/1.tar") == picture(107)
    (bucket / "cats" / "new.png").write_bytes(picture(200))
    assert store.embed(sources, progress=False).embedded == 1


def test_a_wrong_secret_is_one_line(bucket, tmp_path, monkeypatch):
    """The server refuses the signature."""
    (bucket / "a.png").write_bytes(picture(1))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another-secret-that-is-wrong")
    forget_connections()
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    with pytest.raises(SourceError, match="credentials") as e:
        store.embed("s3://photos", progress=False)
    assert "\n" not in str(e.value)
