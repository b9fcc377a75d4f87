"""Compressed tars: read in place, in one pass where the reading is in order, and right in any order."""

import bz2
import gzip
import io
import lzma
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.errors import ImageError
from embedstore.sources.archives import compressed
from embedstore.sources.archives.compressed import DecompressedRanges
from embedstore.sources.archives.range_file import LocalRanges
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.types import FailureReason
from tests.helpers.image_files import encode
from tests.helpers.s3_server import serve_bucket
from tests.helpers.scans import scan


def picture(seed: int) -> bytes:
    """Return a small PNG that differs from all others."""
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), dtype=np.uint8)))


def tar_of(files: list[tuple[str, bytes]]) -> bytes:
    """Return a plain tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    """Return data compressed by zstandard."""
    zstandard = pytest.importorskip("zstandard", reason="zstandard is not installed (extra zstd)")
    return zstandard.ZstdCompressor().compress(data)


KINDS = {
    "tar.gz": gzip.compress, "tgz": gzip.compress, "tar.bz2": bz2.compress, "tbz2": bz2.compress, "tbz": bz2.compress,
    "tar.xz": lzma.compress, "txz": lzma.compress, "tar.zst": zstd, "TZST": zstd,
}  # fmt: skip
PHOTOS = [(f"{kind}/{n}.png", picture(10 * k + n)) for k, kind in enumerate(("cats", "dogs")) for n in range(3)]


@pytest.mark.parametrize("suffix", KINDS)
def test_every_file_of_a_compressed_tar_is_an_item(tmp_path, suffix):
    """The uri is that of a plain tar, and alone says how to read the file again."""
    path = tmp_path / f"photos.{suffix}"
    path.write_bytes(KINDS[suffix](tar_of(PHOTOS)))
    source = open_source(path)
    refs, failures = scan(source)
    assert failures == []
    assert [(r.uri, r.label) for r in refs] == [(f"tar://{n}::{path}", n.split("/")[0]) for n, _ in PHOTOS]
    assert list(source.read(refs)) == [data for _, data in PHOTOS]
    assert [read_location(r.uri) for r in reversed(refs)] == [data for _, data in reversed(PHOTOS)]
    assert any("compressed" in notice for notice in source.notices)


READS = st.lists(st.tuples(st.integers(0, 50_000), st.integers(0, 9000)), min_size=1, max_size=12)
CONTENT = random.Random(1).randbytes(40_000)


@settings(max_examples=60, deadline=None)
@given(READS, st.sampled_from(["gzip", "bzip2", "xz"]), st.sampled_from([1, 5000, 1 << 20]))
def test_any_range_in_any_order_is_that_of_the_content(tmp_path_factory, reads, kind, window):
    """Whatever is kept of what was decompressed."""
    path = tmp_path_factory.mktemp("c") / "x"
    path.write_bytes({"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}[kind](CONTENT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compressed, "WINDOW_BYTES", window)
        patch.setattr(compressed, "CHUNK_BYTES", 1000)
        ranges = DecompressedRanges(LocalRanges(str(path)), kind)
        assert [ranges.read(at, length) for at, length in reads] == [CONTENT[at : at + length] for at, length in reads]


def test_threads_that_read_side_by_side_cost_one_pass(tmp_path, monkeypatch):
    """The compressed bytes are read once, although no thread waits for another."""
    files = [(f"{n}.bin", random.Random(n).randbytes(20_000)) for n in range(200)]
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(tar_of(files)))
    source = open_source(path)
    refs, _ = scan(source)
    opened = []
    restart = DecompressedRanges._restart
    monkeypatch.setattr(DecompressedRanges, "_restart", lambda self: (opened.append(1), restart(self))[1])
    tasks = [refs[n : n + 8] for n in range(0, len(refs), 8)]
    with ThreadPoolExecutor(4) as pool:
        found = [data for task in pool.map(lambda task: list(source.read(task)), tasks) for data in task]
    assert found == [data for _, data in files]
    assert len(opened) <= 1


def test_a_rescan_of_an_archive_that_did_not_change_decompresses_nothing(tmp_path, monkeypatch):
    """Its listing is kept in the store."""
    path = tmp_path / "photos.tar.gz"
    path.write_bytes(gzip.compress(tar_of(PHOTOS)))
    store = es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")
    assert store.embed(path).embedded == len(PHOTOS)
    monkeypatch.setattr(DecompressedRanges, "_restart", lambda _: pytest.fail("the archive was decompressed"))
    report = store.embed(path)
    assert (report.unchanged, report.missing) == (len(PHOTOS), 0)


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_half_an_archive_gives_its_whole_members_and_one_failure(tmp_path, suffix):
    """Nothing that was read is lost."""
    files = [(f"{n}.png", picture(n)) for n in range(40)]
    data = KINDS[suffix](tar_of(files))
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    refs, failures = scan(open_source(path))
    assert len(failures) == 1
    assert failures[0].reason in (FailureReason.TRUNCATED, FailureReason.CORRUPT)
    assert [read_location(r.uri) for r in refs] == [data for _, data in files[: len(refs)]]
    assert suffix != "tar.gz" or len(refs) > 10


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
def test_an_archive_that_is_something_else_is_one_failure(tmp_path, suffix):
    """Also a plain tar of that name."""
    path = tmp_path / f"x.{suffix}"
    for data in (b"something else", tar_of(PHOTOS), b""):
        path.write_bytes(data)
        refs, failures = scan(open_source(path))
        assert refs == []
        assert len(failures) == 1


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    """An archive that expands too much is one failure, and what was listed before it is kept."""
    monkeypatch.setattr(compressed, "FREE_BYTES", 4 << 20)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(tar_of([PHOTOS[0], ("zeros", bytes(80 << 20)), PHOTOS[1]])))
    refs, failures = scan(open_source(path))
    assert [f.reason for f in failures] == [FailureReason.TOO_LARGE]
    assert read_location(refs[0].uri) == PHOTOS[0][1]


def test_a_compressed_tar_in_a_bucket_is_read_in_place(monkeypatch):
    """By ranges of the compressed file."""
    with serve_bucket(monkeypatch) as bucket:
        bucket.put({"x.tar.gz": gzip.compress(tar_of(PHOTOS))})
        source = open_source(f"{bucket.url}/x.tar.gz")
        refs, failures = scan(source)
        assert failures == []
        assert list(source.read(refs)) == [data for _, data in PHOTOS]


def test_a_missing_package_is_one_failure_that_names_the_extra(tmp_path, monkeypatch):
    """Standard Python reads no zstd before 3.14."""
    import sys

    path = tmp_path / "x.tar.zst"
    path.write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    _, failures = scan(open_source(path))
    assert [f.reason for f in failures] == [FailureReason.MISSING_EXTRA]
    assert "pip install 'embedstore[zstd]'" in failures[0].detail
    with pytest.raises(ImageError):
        read_location(f"tar://a.png::{path}")
