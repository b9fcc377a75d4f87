"""Buckets, read from a real S3 server on loopback."""

import os
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

import embedstore as es
from embedstore.errors import MissingExtra, SourceError, SourceNotFound
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.remote import filesystem
from tests.helpers.s3_server import serve_bucket
from tests.helpers.scans import scan
from tests.sources.test_archives import PHOTOS, picture, tar_bytes, zip_bytes


@pytest.fixture
def bucket(monkeypatch):
    """A bucket on a server of its own."""
    with serve_bucket(monkeypatch) as served:
        yield served


@pytest.fixture
def store(tmp_path):
    """An empty store."""
    return es.create(tmp_path / "b.store", "embedstore/tiny", device="cpu")


def test_a_prefix_is_an_image_folder(bucket, store):
    """Labels and splits come from the folders below the prefix, as on disk."""
    bucket.put({f"pets/train/{name}": data for name, data in PHOTOS} | {"other/x.png": picture(99)})
    report = store.embed(f"{bucket.url}/pets", progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (6, 6, {})
    rows = store.sql("SELECT uri, label, split FROM items ORDER BY uri").df()
    assert rows["uri"].tolist() == [f"{bucket.url}/pets/train/{name}" for name, _ in PHOTOS]
    assert rows["label"].tolist() == ["cats"] * 3 + ["dogs"] * 3
    assert set(rows["split"]) == {"train"}


def test_a_rescan_with_nothing_new_lists_and_downloads_nothing(bucket, store):
    """ETag, size and time tell that a file is the same."""
    bucket.put(dict(PHOTOS))
    store.embed(bucket.url, progress=False)
    before = len(bucket.gets)
    report = store.embed(bucket.url, progress=False)
    assert (report.unchanged, report.embedded) == (6, 0)
    assert len(bucket.gets) == before


def test_what_changed_in_a_bucket_is_embedded_again(bucket, store):
    """New bytes of the same size are another ETag; a deleted file is missing."""
    bucket.put(dict(PHOTOS))
    store.embed(bucket.url, progress=False)
    name, data = PHOTOS[0]
    same_size = data[:-1] + bytes([data[-1] ^ 1])
    bucket.put({name: same_size, "cats/new.png": picture(50)})
    bucket.delete(PHOTOS[1][0])
    report = store.embed(bucket.url, progress=False)
    assert report.embedded + sum(report.failures_by_reason.values()) == 2
    assert report.missing == 1


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_an_archive_in_a_bucket_is_read_by_ranges(bucket, store, kind):
    """A rescan lists nothing of an archive that did not change, and one member is one range."""
    bucket.put({f"shard.{kind}": tar_bytes(PHOTOS) if kind == "tar" else zip_bytes(PHOTOS)})
    url = f"{bucket.url}/shard.{kind}"
    report = store.embed(url, progress=False)
    assert (report.scanned, report.embedded) == (6, 6)
    before = len(bucket.gets)
    assert store.embed(url, progress=False).unchanged == 6
    assert len(bucket.gets) == before
    assert read_location(f"{kind}://{PHOTOS[4][0]}::{url}") == PHOTOS[4][1]


def test_globs_and_files_of_a_bucket(bucket):
    """A glob of a bucket matches names; a single file is itself."""
    bucket.put(dict(PHOTOS))
    refs, failures = scan(open_source([f"{bucket.url}/cats/*.png", f"{bucket.url}/dogs/1.png"]))
    assert [r.uri for r in refs] == [f"{bucket.url}/{n}" for n, _ in [*PHOTOS[:3], PHOTOS[4]]]
    assert failures == []


@pytest.mark.parametrize("folder", ["v1.0", "photos.raw", "a.png"])
def test_a_folder_of_a_bucket_may_look_like_a_file(bucket, folder):
    """The server says what it is, not the name."""
    bucket.put({f"{folder}/{name}": data for name, data in PHOTOS})
    refs, failures = scan(open_source(f"{bucket.url}/{folder}"))
    assert (len(refs), failures) == (6, [])


def test_sources_of_different_kinds_are_given_together(bucket, store, tmp_path):
    """A folder, an archive with sidecars and a bucket in one run; a later run without one marks nothing missing."""
    bucket.put(dict(PHOTOS[:2]))
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "x.png").write_bytes(picture(70))
    (tmp_path / "s.tar").write_bytes(tar_bytes([("1.png", picture(71)), ("1.txt", b"words")]))
    report = store.embed([tmp_path / "local", tmp_path / "s.tar", bucket.url], progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (4, 4, {})
    assert store.sql("SELECT caption FROM items WHERE caption IS NOT NULL").rows == (("words",),)
    assert store.embed(tmp_path / "s.tar", progress=False).missing == 0


def test_files_and_archives_on_a_web_server(bucket, store):
    """The same server by plain HTTP: a file, and ranges of an archive."""
    bucket.make_public()
    bucket.put({"one.png": picture(80), "shard.tar": tar_bytes(PHOTOS)})
    report = store.embed([f"{bucket.web_url}/one.png", f"{bucket.web_url}/shard.tar"], progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (7, 7, {})
    before = len(bucket.gets)
    assert store.embed(f"{bucket.web_url}/shard.tar", progress=False).unchanged == 6
    assert len(bucket.gets) == before


def test_redirects_without_end_and_absent_files_are_failures(store, monkeypatch):
    """A real web server that only redirects, and one that has no file: one row each."""
    monkeypatch.setattr(filesystem, "FIRST_DELAY_SECONDS", 0.01)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path.startswith("/loop") else 404)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - the name of the method of HTTP

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        report = store.embed([f"{url}/loop.png", f"{url}/none.png"], progress=False)
        server.shutdown()
    assert report.failures_by_reason == {"unreachable": 1, "missing": 1}
    assert all("\n" not in detail for detail in store.failures().df()["detail"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_reads_a_bucket_too(bucket):
    """The event loop of the parent's connections is not in the child, which opens its own."""
    bucket.put(dict(PHOTOS))
    url = f"{bucket.url}/{PHOTOS[0][0]}"
    assert read_location(url) == PHOTOS[0][1]
    child = os.fork()
    if child == 0:
        os._exit(0 if read_location(url) == PHOTOS[0][1] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_manifest_names_files_of_a_bucket(bucket, store, tmp_path):
    """Every row is read from where its uri says, and keeps its columns."""
    bucket.put(dict(PHOTOS))
    rows = "".join(f"{bucket.url}/{name},{n}\n" for n, (name, _) in enumerate(PHOTOS))
    (tmp_path / "m.csv").write_text("uri,shot\n" + rows)
    assert store.embed(tmp_path / "m.csv", progress=False).embedded == 6
    assert store.sql("SELECT shot FROM items ORDER BY uri").df()["shot"].tolist() == list(range(6))


def test_everything_after_the_source_reads_items_of_a_bucket(bucket, store):
    """Another space, a query by image, and the check of the images."""
    bucket.put(dict(PHOTOS))
    store.embed(bucket.url, progress=False)
    hits = store.search(image=f"{bucket.url}/{PHOTOS[2][0]}", k=1)
    assert hits[0].uri == f"{bucket.url}/{PHOTOS[2][0]}"
    assert store.verify(check_images=True).ok
    store.add_space("timm/test_resnet.r160_in1k", space_name="second", random_init=True)
    assert store.reembed("second", progress=False).embedded == 6


# ---- bad servers


def test_a_bucket_that_is_not_there_is_one_error(bucket, store):
    """Nothing is written, and the address is named."""
    for url in ("s3://no-such-bucket-here/x", f"{bucket.url}/no-such-prefix"):
        with pytest.raises(SourceNotFound, match=url):
            store.embed(url, progress=False)


def test_a_token_that_expires_costs_no_item(bucket, store):
    """What the server refuses in mid-run is a failure of that run, and the next run embeds it."""
    bucket.put(dict(PHOTOS))
    bucket.files_until_expiry = 2
    report = store.embed(bucket.url, progress=False)
    assert report.failures_by_reason == {"unreachable": 6 - report.embedded}
    assert report.embedded <= 2
    assert "expired" in store.failures().df()["detail"][0]
    bucket.files_until_expiry = None
    again = store.embed(bucket.url, progress=False)
    assert (report.embedded + again.embedded, again.failures_by_reason) == (6, {})
    assert len(store.failures()) == 0


def test_a_server_that_does_not_answer_is_one_line(monkeypatch):
    """A port that nobody listens on; every attempt is made, and none hangs."""
    pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(filesystem, "FIRST_DELAY_SECONDS", 0.01)
    filesystem.forget_connections()
    try:
        with pytest.raises(SourceError) as e:
            open_source("s3://photos/x/")
    finally:
        filesystem.forget_connections()
    assert "\n" not in str(e.value)
    assert "s3://photos/x" in str(e.value)


def test_a_scheme_without_its_package_names_the_extra():
    """gcsfs is not installed in the test environment."""
    pytest.importorskip("fsspec")
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match=r"embedstore\[gs\]"):
            open_source("gs://bucket/photos/")
    else:
        pytest.skip("gcsfs is installed")


def test_an_unknown_scheme_is_named():
    """The schemes that are read are listed."""
    with pytest.raises(SourceNotFound, match="ftp://"):
        open_source("ftp://host/photos/")


# ---- many members, killed


def embed_killed(store_path, url: str, kill_after: float | None) -> int:
    """Run ``embedstore embed`` in a process; kill it so many seconds after its first commit; return its exit status."""
    command = [sys.executable, "-m", "embedstore", "embed", str(store_path), url]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        if kill_after is not None:
            counter = store_path / "COMMITTED"
            before = counter.read_bytes()
            while counter.read_bytes() == before and process.poll() is None:
                time.sleep(0.02)
            time.sleep(kill_after)
            process.kill()
        return process.wait()


@pytest.mark.parametrize("members", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_run_over_tars_in_a_bucket_that_is_killed_twice_ends_complete(bucket, tmp_path, members):
    """Every member is an item once, whenever the process was killed; and a rescan downloads nothing."""
    shards = 3
    for shard in range(shards):
        files = [(f"{n:06}.png", picture(n)) for n in range(shard, members, shards)]
        bucket.put({f"shards/{shard:03}.tar": tar_bytes(files)})
    store = es.create(tmp_path / "k.store", "embedstore/tiny", device="cpu")
    store.close()
    url = f"{bucket.url}/shards/{{000..002}}.tar"
    statuses = [embed_killed(store.path, url, kill_after) for kill_after in (0.0, 0.3, None)]
    assert statuses[-1] == 0
    reopened = es.open(store.path)
    before = len(bucket.gets)
    report = reopened.embed(url, progress=False)
    assert (report.unchanged, report.scanned, report.embedded) == (members, members, 0)
    assert len(bucket.gets) == before
    assert reopened.verify().ok
    assert reopened.sql("SELECT count(*), count(DISTINCT content) FROM items").rows[0] == (members, members)


def test_a_bucket_that_refuses_is_one_line_and_marks_nothing_missing(bucket, store):
    """403 for the whole listing ends the run; 403 for some files is a failure of each."""
    bucket.put(dict(PHOTOS))
    store.embed(bucket.url, progress=False)
    bucket.refuses = True
    with pytest.raises(SourceError, match="cannot be listed") as e:
        store.embed(bucket.url, progress=False)
    assert "\n" not in str(e.value)
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((6,),)
    bucket.refuses = False
    assert store.embed(bucket.url, progress=False).unchanged == 6
