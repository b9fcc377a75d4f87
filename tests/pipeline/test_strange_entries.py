"""A fact of one entry of a folder never ends a run: the entry is embedded, or it is one failure."""

import os
import shutil
import socket
from pathlib import Path

import pytest
from PIL import Image

import embedstore as es

YEAR = 365.2425 * 86400


def seconds_of(year):
    """Seconds from 1970 to about a year."""
    return int((year - 1970) * YEAR)


TIMES = {
    "1601": seconds_of(1601) * 10**9,
    "before 1970": -(10**9) + 1,
    "2262": 2**63 - 1,
    "after 2262": 2**63 + 5,
    "2400": seconds_of(2400) * 10**9,
    "9999": seconds_of(9999) * 10**9,
}


@pytest.fixture
def photos(tmp_path):
    """Two ordinary photos."""
    folder = tmp_path / "photos"
    for n in range(2):
        path = folder / "cat" / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (n * 200, 9, 9)).save(path)
    return folder


@pytest.fixture
def store(tmp_path):
    return es.create(tmp_path / "s", "embedstore/tiny")


@pytest.mark.parametrize("time", TIMES)
def test_any_modification_time_is_stored_and_compared(store, photos, time):
    """The file is embedded, unchanged at the next run, and read again when its time changes."""
    path = photos / "cat" / "1.png"
    try:
        os.utime(path, ns=(0, TIMES[time]))
    except (OSError, OverflowError):
        pytest.skip("this system cannot set that time")
    if path.stat().st_mtime_ns != TIMES[time]:
        pytest.skip("this file system does not hold that time")
    report = store.embed(photos)
    assert (report.embedded, report.failures) == (2, 0)
    assert store.embed(photos).unchanged == 2
    os.utime(path, ns=(0, TIMES[time] - 10**9))
    again = store.embed(photos)
    assert (again.unchanged, again.reused) == (1, 1)
    assert store.verify(check_images=True).ok


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def huge_sparse_file(path):
    with path.open("wb") as file:
        file.truncate(2**40)


def link_to_nowhere(path):
    path.symlink_to("nowhere")


def link_to_itself(path):
    path.symlink_to(path.name)


def link_to_a_device(path):
    path.symlink_to("/dev/zero")


def empty_file(path):
    path.touch()


ENTRIES = [fifo, unix_socket, huge_sparse_file, link_to_nowhere, link_to_itself, link_to_a_device, empty_file]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.__name__)
def test_an_entry_that_is_no_image_is_one_failure(store, photos, entry):
    """The others are embedded, and the second run does nothing again."""
    entry(photos / "cat" / "strange.jpg")
    report = store.embed(photos)
    assert (report.embedded, report.failures) == (2, 1)
    (row,) = store.failures().records()
    assert row["uri"].endswith("strange.jpg")
    again = store.embed(photos)
    assert (again.unchanged, again.known_failures) == (2, 1)


def test_a_file_that_vanishes_during_the_run_is_one_failure(store, photos, monkeypatch):
    """It was listed and is gone when it is read."""
    from embedstore.sources import source

    read = source.read_location

    def vanish(path):
        if path.endswith("1.png"):
            Path(path).unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(source, "read_location", vanish)
    report = store.embed(photos)
    assert (report.embedded, report.failures_by_reason) == (1, {"missing": 1})


def test_what_may_not_be_read_is_one_failure(ordinary):
    """A file and a folder without permission."""
    for name in ("open/a.png", "open/closed.png", "shut/b.png"):
        path = ordinary / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), "red").save(path)
    (ordinary / "photos" / "open" / "closed.png").chmod(0)
    (ordinary / "photos" / "shut").chmod(0)
    store = es.create(ordinary / "s", "embedstore/tiny")
    report = store.embed(ordinary / "photos")
    (ordinary / "photos" / "shut").chmod(0o700)
    assert (report.embedded, report.failures_by_reason) == (1, {"unreadable": 2})
    (ordinary / "photos" / "open" / "closed.png").chmod(0o600)
    again = store.embed(ordinary / "photos")
    assert (again.embedded + again.reused, again.failures, again.known_failures) == (2, 0, 0), "permission is retried"
    assert len(store.failures()) == 0


def test_failures_of_files_that_are_gone_are_forgotten(store, photos, tmp_path):
    """A scan forgets those below its own folder, and none below a folder that it did not see or could not read."""
    other = shutil.copytree(photos, tmp_path / "other")
    for folder in (photos, other):
        for name in ("kept.png", "gone.png"):
            (folder / "cat" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
        store.embed(folder)
    for folder in (photos, other):
        (folder / "cat" / "gone.png").unlink()
    store.embed(photos)
    assert sorted(store.failed_paths()) == sorted(
        str(p) for p in (photos / "cat/kept.png", other / "cat/kept.png", other / "cat/gone.png")
    )
    shutil.move(other / "cat", tmp_path / "away")
    (other / "cat").symlink_to(other)  # a link to a folder is a failure, and says nothing of what was below its name
    store.embed(other)
    assert {str(other / "cat/kept.png"), str(other / "cat/gone.png")} <= set(store.failed_paths())


def test_the_report_names_what_was_skipped(store, photos):
    """By kind, in the summary, in JSON and in the table of runs; nothing of it is a failure."""
    for name in ("notes.txt", "list.txt", "film.mp4", "@eaDir/0.png", ".hidden.png", "raw/0.png"):
        path = photos / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    report = store.embed(photos, exclude=["raw"])
    assert (report.embedded, report.failures, report.skipped) == (2, 0, 6)
    assert report.skipped_by_kind == {".txt": 2, ".mp4": 1, "@eaDir": 1, "hidden": 1, "raw": 1}
    assert "6 skipped (2 .txt, 1 .mp4, 1 @eaDir, 1 hidden, 1 raw)" in report.summary()
    recorded = store.sql("SELECT result->'skipped_by_kind'->>'@eaDir' FROM runs").rows
    assert recorded == (("1",),)
    assert store.info().labels == {"cat": 2}


def test_a_folder_of_litter_alone_says_what_was_skipped(store, tmp_path):
    """It is not just empty."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(es.NoImages, match=r"no files to embed, 1 skipped \(1 \.txt\)"):
        store.embed(tmp_path / "notes")
