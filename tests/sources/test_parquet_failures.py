"""Parquet files that hold the images: damage, rescans, interrupted runs and memory."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest, SourceError, SourceNotFound
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.parquet import rows as parquet_rows
from embedstore.types import Failure, FailureReason, ImageRef
from tests.helpers.parquet_files import IMAGE, class_label, data_set, hf_rows, png, write_hf
from tests.helpers.scans import scan


def overwrite_images(file: Path, images: list[bytes]) -> None:
    """Destroy the images in a file without a change of its size and time."""
    status, data = file.stat(), file.read_bytes()
    for image in images:
        data = data.replace(image, b"\0" * len(image))
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # another time: what was read before is not used
    assert not any(image in data for image in images)
    assert read_location(f"{file}#column=image&row=0") != images[0]
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


# ---- bad input


def test_a_broken_file_among_others_is_one_failure(tmp_path):
    """The rows of the other files are items."""
    data_set(tmp_path)
    broken = tmp_path / "data" / "train-00001-of-00002.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    refs, failures = scan(open_source(tmp_path))
    assert len(refs) == 5
    assert [(f.uri, f.reason) for f in failures] == [(str(broken), FailureReason.CORRUPT)]


def test_a_broken_file_alone_is_one_line(tmp_path):
    """It names the file."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not one")
    with pytest.raises(BadManifest, match=r"a\.parquet"):
        open_source(tmp_path / "a.parquet")
    with pytest.raises(SourceNotFound, match="no file matches"):
        open_source(f"{tmp_path}/*.pq")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_is_worse_than_failures(tmp_path_factory, data):
    """Cut anywhere, or with any byte changed, a file is refused in one line or every row is an image or a failure."""
    file = write_hf(
        tmp_path_factory.mktemp("damage") / "a.parquet",
        {"image": hf_rows([png(n) for n in range(8)]), "label": pa.array([0] * 8)},
        {"image": IMAGE, "label": class_label("a")},
        3,
    )
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        source = open_source(file)
    except SourceError as e:
        message = str(e)
    else:
        message = ""
        refs, _ = scan(source)
        assert all(isinstance(entry, bytes | Failure) for entry in source.read(refs))
    assert "\n" not in message


def test_a_row_that_cannot_be_read_costs_no_other_row(tmp_path):
    """Bytes that are no image, no bytes at all and NULL each have a reason."""
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([png(1), b"", None, b"not an image", png(2)])}), file)
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed(file)
    assert report.embedded == 2
    assert report.failures_by_reason == {"empty": 1, "missing": 1, "not_an_image": 1}


def test_an_image_that_needs_too_much_memory_is_a_failure(tmp_path, monkeypatch):
    """The limit of DuckDB's memory is a reason with a cure; the rows of other groups are read."""
    monkeypatch.setattr(parquet_rows, "MEMORY_BYTES", 40_000_000)
    monkeypatch.setattr(parquet_rows, "_files", parquet_rows._OpenFiles())
    file = tmp_path / "a.parquet"
    table = pa.table({"image": pa.array([png(1), bytes(100 << 20), png(2)])})
    pq.write_table(table, file, row_group_size=1, compression="zstd")
    source = open_source(file)
    refs, _ = scan(source)
    first, huge, last = source.read(refs)
    assert (first, last) == (png(1), png(2))
    assert (huge.reason, "ROW_GROUP_SIZE" in huge.detail) == (FailureReason.NO_MEMORY, True)


# ---- rescans


def test_a_rescan_reads_no_image(tmp_path):
    """With every image destroyed on the disk, a rescan of a file of the same size and time finds nothing to do."""
    images = [png(n) for n in range(300)]
    file = write_hf(tmp_path / "train.parquet", {"image": hf_rows(images)}, {"image": IMAGE})
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(file).embedded == 300
    overwrite_images(file, images)
    report = store.embed(file)
    assert (report.unchanged, report.embedded, report.failures_by_reason) == (300, 0, {})


@pytest.mark.parametrize("statistics", [True, False])
def test_which_rows_have_no_bytes_is_read_once(tmp_path, statistics):
    """Where the statistics do not say it, the store keeps it; damage of what it keeps changes nothing."""
    images = [png(n) if n % 3 else None for n in range(90)]
    table = pa.table({"image": hf_rows(images, [f"{n}.png" for n in range(90)])})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=40, write_statistics=statistics)
    (tmp_path / "kept").mkdir()
    first = list(open_source(tmp_path / "a.parquet", listings=tmp_path / "kept").scan())
    assert [isinstance(e, ImageRef) for e in first] == [n % 3 != 0 for n in range(90)]
    [kept] = (tmp_path / "kept").iterdir()
    for content in (kept.read_bytes(), b"{}", kept.read_bytes().replace(b'"count": 30', b'"count": 31')):
        kept.write_bytes(content)
        assert list(open_source(tmp_path / "a.parquet", listings=tmp_path / "kept").scan()) == first
    status = kept.read_text()
    kept.write_text(status.replace("[[0, 1], ", "[[0, 2], ").replace('"count": 30', '"count": 31'))
    again = list(open_source(tmp_path / "a.parquet", listings=tmp_path / "kept").scan())
    assert isinstance(again[1], Failure)  # what is kept is what is used


def test_many_threads_read_the_same_rows(tmp_path):
    """Each thread gets the bytes of its rows, in whatever order they ask."""
    random = np.random.default_rng(0)
    images = [random.bytes(300_000) for _ in range(200)]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet", row_group_size=90)
    refs, _ = scan(open_source(tmp_path / "a.parquet"))
    order = random.permutation(200)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: read_location(refs[n].uri), order)) == [images[n] for n in order]


def test_rows_that_are_gone_are_missing_and_others_stay(tmp_path):
    """A shorter file loses its last rows; a scan of the folder above, and of another column, touches no row."""
    folder = tmp_path / "d"
    table = {"image": hf_rows([png(n) for n in range(4)]), "mask": pa.array([png(10 + n) for n in range(4)])}
    file = write_hf(folder / "a.parquet", table, {"image": IMAGE})
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(file).embedded == 4
    assert (store.embed(file, uri_column="mask").embedded, store.embed(file).missing) == (4, 0)
    write_hf(file, {"image": hf_rows([png(n) for n in range(3)])}, {"image": IMAGE})
    assert store.embed(file).missing == 1
    (folder / "x.png").write_bytes(png(50))
    report = store.embed(folder)
    assert (report.embedded, report.missing) == (1, 0)


def test_a_data_set_that_lost_a_file_loses_its_rows(tmp_path):
    """The folder is covered completely; a file that cannot be read says nothing of its rows."""
    data_set(tmp_path / "d")
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(tmp_path / "d").embedded == 8
    broken = tmp_path / "d" / "data" / "train-00000-of-00002.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    assert store.embed(tmp_path / "d").missing == 0
    broken.unlink()
    assert store.embed(tmp_path / "d").missing == 4


KILLED_RUN = """
import os, sys, threading
import embedstore as es
from embedstore.sources import locations
from embedstore.sources.locations import read_location
reads = 0
def read(path):
    global reads
    reads += 1
    if reads > int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return read_location(path)
locations.read_location = read
es.open(sys.argv[1], device="cpu").embed(sys.argv[2])
"""


def test_a_run_that_was_killed_twice_ends_complete(tmp_path):
    """Each run goes on from the last commit; at the end every row is an item once."""
    images = [png(n) for n in range(2000)]
    file = write_hf(tmp_path / "train.parquet", {"image": hf_rows(images)}, {"image": IMAGE}, 700)
    assert pq.ParquetFile(file).num_row_groups == 3
    es.create(tmp_path / "s", "embedstore/tiny", device="cpu").close()
    for reads in (700, 600):  # fewer than are left, however much the run before committed
        command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / "s"), str(file), str(reads)]
        killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=False)
        assert killed.returncode == -9
    store = es.open(tmp_path / "s", device="cpu")
    report = store.embed(file)
    assert report.embedded + report.reused + report.unchanged == 2000
    assert store.sql("SELECT count(*), count(DISTINCT content) FROM items").rows == ((2000, 2000),)


MEMORY = """
import resource, sys
from embedstore.sources.open import open_source
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
source = open_source(sys.argv[1])
refs = list(source.scan())
total = sum(len(data) for data in source.read(refs[: len(refs) // 4])); first = peak()
total += sum(len(data) for data in source.read(refs[len(refs) // 4 :]))
print(total, first, peak())
"""


def test_memory_stays_flat(tmp_path):
    """Reading 240 MB of images in row groups of 6 MB needs no more memory at the end than after the first quarter."""
    random = np.random.default_rng(0)
    table = pa.table({"image": pa.array([random.bytes(60_000) for _ in range(4000)])})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "a.parquet")]
    out = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=True, capture_output=True, text=True
    )
    total, first, last = map(int, out.stdout.split())
    assert total == 240_000_000
    assert last - first < 48
