"""`embed --watch`: a store follows a folder, an unquiet one too, and ends by a signal."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

import embedstore as es
from embedstore.errors import BadOption, SourceNotFound
from embedstore.operations import watch as watching
from embedstore.sources.watching.places import local_folders, network_file_system
from tests.helpers.s3_server import serve_bucket
from tests.sources.test_archives import PHOTOS, picture

pytest.importorskip("watchdog", reason="watchdog is not installed (extra watch)")
PATIENCE = 120.0  # seconds, on a machine that does other work too


@pytest.fixture
def quick(monkeypatch):
    """Shorter pauses."""
    monkeypatch.setattr(watching, "QUIET_SECONDS", 0.4)
    monkeypatch.setattr(watching, "STEP_SECONDS", 0.05)


@pytest.fixture
def store(tmp_path):
    """An empty store and a folder with one image."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "first.png").write_bytes(picture(0))
    return es.create(tmp_path / "s", "embedstore/tiny", device="cpu")


class Watch:
    """A watch in a thread, whose reports can be waited for."""

    def __init__(self, store, source, **options):
        self.reports, self.notes, self._ended = [], [], False
        self._more = threading.Condition()
        self._thread = threading.Thread(target=self._run, args=(store, source, options), daemon=True)
        self._thread.start()

    def _run(self, store, source, options):
        store.embed(source, watcher=self._take, progress=False, **options)

    def _take(self, event):
        with self._more:
            (self.notes if isinstance(event, str) else self.reports).append(event)
            self._more.notify_all()
            return self._ended

    def wait_for(self, condition):
        """Wait until the reports fulfill a condition."""
        with self._more:
            assert self._more.wait_for(lambda: condition(self), PATIENCE), (self.reports, self.notes)

    def end(self, change):
        """Let the next report end the watch."""
        self._ended = True
        change()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def embedded(watch):
    """How many images were embedded by all runs."""
    return sum(report.embedded for report in watch.reports)


def test_a_store_follows_a_folder(store, tmp_path, quick):
    """New, changed, renamed and deleted files, as a rescan treats them; many files at once are one run."""
    photos = tmp_path / "photos"
    watch = Watch(store, photos)
    watch.wait_for(lambda w: embedded(w) == 1)
    for n in range(300):
        (photos / f"{n}.png").write_bytes(picture(n + 1))
    watch.wait_for(lambda w: embedded(w) == 301)
    assert len(watch.reports) < 30, "one run per quiet moment, however slow the machine is"
    (photos / "0.png").rename(photos / "renamed.png")
    watch.wait_for(lambda w: w.reports[-1].renamed == 1)
    (photos / "1.png").unlink()
    watch.wait_for(lambda w: w.reports[-1].missing == 1)
    watch.end(lambda: (photos / "2.png").write_bytes(picture(999)))
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((300,),)
    assert store.sql("SELECT count(*) FROM failures").rows == ((0,),)


def test_a_file_that_is_being_written_is_waited_for(store, tmp_path, quick):
    """A process writes a file in pieces, with pauses longer than the quiet time: it never is a failure."""
    watch = Watch(store, tmp_path / "photos")
    watch.wait_for(lambda w: len(w.reports) == 1)
    code = (
        "import sys, time\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "with open(sys.argv[2], 'wb') as file:\n"
        "    for first in range(0, len(data), len(data) // 4 + 1):\n"
        "        file.write(data[first : first + len(data) // 4 + 1]); file.flush(); time.sleep(1.0)\n"
    )
    (tmp_path / "whole.png").write_bytes(picture(5))
    words = [sys.executable, "-c", code, str(tmp_path / "whole.png"), str(tmp_path / "photos" / "slow.png")]
    subprocess.run(words, check=True)
    watch.wait_for(lambda w: embedded(w) == 2)
    assert all(not report.failures_by_reason for report in watch.reports)
    watch.end(lambda: (tmp_path / "photos" / "last.png").write_bytes(picture(6)))


def test_a_folder_that_is_removed_and_comes_back(store, tmp_path, quick):
    """Nothing is marked missing while it is gone, and what it brings is embedded."""
    photos = tmp_path / "photos"
    watch = Watch(store, photos)
    watch.wait_for(lambda w: len(w.reports) == 1)
    shutil.move(photos, tmp_path / "elsewhere")
    watch.wait_for(lambda w: any("does not exist" in note for note in w.notes))
    assert store.sql("SELECT count(*) FROM items WHERE present").rows == ((1,),)
    (tmp_path / "elsewhere" / "second.png").write_bytes(picture(7))
    shutil.move(tmp_path / "elsewhere", photos)
    watch.wait_for(lambda w: embedded(w) == 2)
    watch.end(lambda: (photos / "third.png").write_bytes(picture(8)))


def test_an_empty_folder_is_waited_for(store, tmp_path, quick):
    """The first image starts the work."""
    (tmp_path / "empty").mkdir()
    watch = Watch(store, tmp_path / "empty")
    watch.wait_for(lambda w: any("no images yet" in note for note in w.notes))
    watch.end(lambda: (tmp_path / "empty" / "a.png").write_bytes(picture(1)))
    assert embedded(watch) == 1


def test_a_store_that_is_busy_is_tried_again(store, tmp_path, quick):
    """The change is not forgotten."""
    with store._session.storage.writer("other"):
        watch = Watch(es.open(store.path), tmp_path / "photos")
        watch.wait_for(lambda w: bool(w.notes))
    watch.wait_for(lambda w: embedded(w) == 1)
    watch.end(lambda: (tmp_path / "photos" / "a.png").write_bytes(picture(1)))


def test_a_bucket_is_polled(tmp_path, monkeypatch, quick):
    """Listing costs no download; new and deleted files are found."""
    with serve_bucket(monkeypatch) as bucket:
        bucket.put(dict(PHOTOS))
        store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
        watch = Watch(store, bucket.url, poll=0.2)
        watch.wait_for(lambda w: embedded(w) == 6)
        reads = len(bucket.gets)
        time.sleep(1)
        assert len(bucket.gets) == reads
        assert len(watch.reports) == 1, "a listing without a change is no run"
        bucket.put({"cats/new.png": picture(60)})
        watch.wait_for(lambda w: embedded(w) == 7)
        watch.end(lambda: bucket.delete(PHOTOS[0][0]))
        assert watch.reports[-1].missing == 1


@pytest.mark.parametrize(
    ("number", "status"), [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_the_watch_and_the_store_is_whole(store, tmp_path, number, status):
    """A real process, ended while it waits: its status, no traceback, and every report on stdout at once."""
    words = [sys.executable, "-m", "embedstore", "embed", str(store.path), str(tmp_path / "photos"), "--watch"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        assert "1 embedded" in process.stdout.readline()
        process.send_signal(number)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == status
    assert "Traceback" not in err
    assert store.verify().ok
    assert store.sql("SELECT count(*) FROM items").rows == ((1,),)


def test_what_cannot_be_watched_is_refused(store, tmp_path):
    """A folder that does not exist at the start, a table in memory, a pause of no time."""
    with pytest.raises(SourceNotFound):
        store.embed(tmp_path / "none", watcher=print)
    with pytest.raises(BadOption, match="table in memory"):
        store.embed({"uri": ["a.png"]}, watcher=print)
    with pytest.raises(BadOption, match="above 0"):
        store.embed(tmp_path / "photos", watcher=print, poll=0)
    with pytest.raises(BadOption, match="watch"):
        store.embed(tmp_path / "photos", poll=3)


def test_folders_of_names(tmp_path, monkeypatch):
    """A folder itself, the folder of a file, and what comes before the first wildcard; a bucket has none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    here = str(tmp_path)
    assert local_folders(["a", "b.csv", "a/*/x*.png", f"file://{here}/a"]) == [f"{here}/a", here]
    assert local_folders(["a", "s3://bucket/x"]) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("server:/x {} nfs4 rw 0 0", "nfs4"),
        ("//server/x {} cifs rw 0 0", "cifs"),
        ("me@host: {} fuse.sshfs rw 0 0", "fuse.sshfs"),
        ("/dev/sda1 {} ext4 rw 0 0", None),
        ("tmpfs {} tmpfs rw 0 0", None),
    ],
)
def test_network_disks_are_known_by_the_table_of_mounts(tmp_path, line, expected):
    """The innermost mount counts; a space in its name is written as \\040."""
    folder = tmp_path / "with space" / "photos"
    folder.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/root / ext4 rw 0 0\n" + line.format(str(folder.parent).replace(" ", "\\040")) + "\n")
    assert network_file_system(str(folder), mounts) == expected
