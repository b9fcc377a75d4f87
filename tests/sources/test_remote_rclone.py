"""Buckets of a second S3 server, rclone's, which checks the signature of every request."""

import os
import shutil
import socket
import subprocess
import time

import pytest

import embedstore as es
from embedstore.errors import SourceError
from embedstore.sources.locations import read_location
from embedstore.sources.remote.filesystem import forget_connections
from tests.sources.test_archives import PHOTOS, picture, tar_bytes

KEYS = ("key", "a-secret-that-is-long-enough")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """The folder of a bucket that rclone serves, and its url."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    if shutil.which("rclone") is None:
        pytest.skip("rclone is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path / "served" / "photos"
    folder.mkdir(parents=True)
    words = ["rclone", "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", ",".join(KEYS)]
    words += ["--dir-cache-time", "0s", str(folder.parent)]
    env = os.environ | {"RCLONE_CONFIG": str(tmp_path / "rclone.conf")}
    with subprocess.Popen(words, env=env, stderr=subprocess.DEVNULL) as server:
        settings = {
            "AWS_ACCESS_KEY_ID": KEYS[0], "AWS_SECRET_ACCESS_KEY": KEYS[1], "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }  # fmt: skip
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        forget_connections()
        try:
            _wait_for(port)
            yield folder
        finally:
            server.terminate()
            forget_connections()


def _wait_for(port: int) -> None:
    """Wait until a server listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("rclone does not listen")


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
