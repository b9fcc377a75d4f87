"""Every kind of source with a small example that holds images, a damaged one, and what is skipped, where it can.

The table in docs/sources.md is written from these (``python -m tools.source_table``), and the suite compares both.
"""

from __future__ import annotations

import gzip
import io
import json
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import embedstore as es
from embedstore.sources import locations
from embedstore.sources import source as reading
from tests.helpers.dng import dng
from tests.helpers.documents import write_pdf, write_video
from tests.helpers.plug_ins import EXAMPLES, add_distribution, forget_plug_ins, plug_in_folder
from tests.helpers.s3_server import Bucket, serve_bucket
from tests.sources.test_archives import picture, tar_bytes, zip_bytes

BROKEN = b"\xff\xd8\xff nothing"
FILES = [("a/1.png", picture(1)), ("a/2.png", picture(2)), ("b/3.png", picture(3)), ("b/bad.jpg", BROKEN)]
SKIPPED = ("notes.txt", b"words")


@dataclass
class Workshop:
    """What an example is made with.

    Attributes:
        folder: an empty folder.
        monkeypatch: changes the environment until the example is done.
        stack: closes servers.
        bucket: the bucket, if the example started a server.
    """

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack
    bucket: Bucket | None = None

    def start_bucket(self, files: dict[str, bytes]) -> Bucket:
        """Start a server with a bucket of these files."""
        self.bucket = self.stack.enter_context(serve_bucket(self.monkeypatch))
        self.bucket.put(files)
        return self.bucket

    def install(self, example: str, module: str, group: str, point: str) -> None:
        """Install one of the packages in ``examples/``."""
        site = self.folder / "site"
        site.mkdir()
        (site / f"{module}.py").write_text((EXAMPLES / example / f"{module}.py").read_text())
        add_distribution(site, example, group, {example: f"{module}:{point}"})
        self.stack.enter_context(plug_in_folder(site, pytest.MonkeyPatch()))
        forget_plug_ins()

    def write(self, name: str, data: bytes) -> Path:
        """Write a file."""
        path = self.folder / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path


@dataclass(frozen=True)
class SourceKind:
    """One kind of source.

    Attributes:
        name: of the kind.
        named_as: how a user names it.
        library: what reads it, and the extra that installs it.
        make: makes the example and returns what is embedded.
        counts: items, failures and skipped names of the example, counted by hand.
        options: of ``Store.embed``.
        annotated: whether the source is a folder of photos and the annotations of these, given as both.
        hostile: bad inputs that are tried: words, and the test that tries them.
        needs: packages without which the kind cannot be tried.
    """

    name: str
    named_as: str
    library: str
    make: Callable[[Workshop], Any]
    counts: tuple[int, int, int]
    hostile: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)
    annotated: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What the two runs over an example did.

    Attributes:
        items: that were embedded.
        failures: rows in ``failures``.
        skipped: names that were counted.
        rescan_reads: images that the second run read, and files that it downloaded.
    """

    items: int
    failures: int
    skipped: int
    rescan_reads: int


def measure(kind: SourceKind, folder: Path) -> Measured:
    """Embed an example twice with the real library or server."""
    monkeypatch = pytest.MonkeyPatch()
    with ExitStack() as stack:
        stack.callback(monkeypatch.undo)
        workshop = Workshop(folder, monkeypatch, stack)
        source = kind.make(workshop)
        store = es.create(folder / "store", "embedstore/tiny", device="cpu")
        options = kind.options | ({"annotations": source} if kind.annotated else {})
        first = store.embed(source, progress=False, **options)
        reads = list[str]()
        read = locations.read_location
        for module in (locations, reading):
            monkeypatch.setattr(module, "read_location", lambda path: reads.append(path) or read(path))
        gets = len(workshop.bucket.gets) if workshop.bucket else 0
        second = store.embed(source, progress=False, **options)
        downloads = len(workshop.bucket.gets) - gets if workshop.bucket else 0
        assert (first.scanned, second.unchanged) == (first.embedded + first.failures, first.embedded)
        assert second.known_failures + second.failures == first.failures
        return Measured(first.embedded, first.failures, first.skipped, len(reads) + downloads)


# ---- the examples


def _folder(w: Workshop) -> Path:
    for name, data in (*FILES, SKIPPED):
        w.write(name, data)
    return w.folder / "data"


def _glob(w: Workshop) -> str:
    return f"{_folder(w)}/**/*.*g"


def _table(w: Workshop) -> Path:
    uris = [str(_folder(w) / name) for name, _ in FILES]
    path = w.folder / "photos.csv"
    path.write_text("uri,label\n" + "".join(f"{uri},x\n" for uri in uris))
    return path


def _parquet(w: Workshop) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"bytes": data, "path": name} for name, data in FILES]
    pq.write_table(pa.table({"image": rows, "label": ["a", "a", "b", "b"]}), w.folder / "train.parquet")
    return w.folder / "train.parquet"


def _saved(w: Workshop) -> Path:
    import datasets

    rows = {"image": [{"bytes": data, "path": name} for name, data in FILES]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(w.folder / "saved")
    return w.folder / "saved"


def _zip(w: Workshop) -> Path:
    return w.write("photos.zip", zip_bytes([*FILES, SKIPPED]))


def _shard(w: Workshop) -> Path:
    described = [("1.png", picture(1)), ("1.cls", b"cat"), ("2.png", picture(2)), ("2.json", b'{"year": 2020}')]
    return w.write("shard.tar", tar_bytes([*described, ("3.jpg", BROKEN), ("notes.md", b"x")]))


def _bucket(w: Workshop) -> str:
    return w.start_bucket(dict([*FILES, SKIPPED])).url


def _bucket_tar(w: Workshop) -> str:
    return f"{w.start_bucket({'shard.tar': tar_bytes([*FILES, SKIPPED])}).url}/shard.tar"


def _web(w: Workshop) -> list[str]:
    bucket = w.start_bucket({})
    bucket.make_public()
    bucket.put(dict(FILES))
    return [f"{bucket.web_url}/{name}" for name, _ in FILES]


def _heic(w: Workshop) -> Path:
    import pillow_heif

    for n in range(2):
        out = io.BytesIO()
        pillow_heif.from_pillow(Image.new("RGB", (40, 30), (n * 90, 9, 9))).save(out)
        w.write(f"{n}.heic", out.getvalue())
    w.write("cut.heic", out.getvalue()[:80])
    return w.folder / "data"


def _raw(w: Workshop) -> Path:
    out = io.BytesIO()
    Image.new("RGB", (640, 480), (200, 10, 10)).save(out, "JPEG")
    w.write("1.dng", dng(out.getvalue(), preview_size=(640, 480)))
    w.write("2.dng", dng(None))
    w.write("cut.dng", dng(None)[:40])
    return w.folder / "data"


def _crops(w: Workshop) -> Path:
    for name in ("1.png", "2.png"):
        w.write(name, picture(int(name[0])))
    facts = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 16, "height": 16} for n in (1, 2, 3)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, 8, 8], "iscrowd": 0} for n in (1, 2, 3)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return w.write("annotations.json", json.dumps(facts).encode())


def _yolo(w: Workshop) -> Path:
    for name, data in (("a.png", picture(1)), ("b.png", picture(2)), ("c.png", BROKEN)):
        w.write(f"images/train/{name}", data)
    w.write("labels/train/a.txt", b"0 0.25 0.25 0.5 0.5\n")
    return w.write("data.yaml", b"path: .\ntrain: images/train\nnames: {0: cat}\n")


def _voc(w: Workshop) -> Path:
    for name, data in (("a.png", picture(1)), ("b.png", BROKEN)):
        w.write(f"JPEGImages/{name}", data)
        box = "<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
        size = "<size><width>16</width><height>16</height></size>"
        marked = f"<object><name>cat</name>{box}</object>"
        xml = f"<annotation><filename>{name}</filename>{size}{marked}</annotation>"
        w.write(f"Annotations/{name[0]}.xml", xml.encode())
    return w.folder / "data"


def _image_folder(w: Workshop) -> Path:
    for name, data in (("a.png", picture(1)), ("b.png", picture(2)), ("c.png", BROKEN)):
        w.write(f"train/{name}", data)
    lines = [json.dumps({"file_name": f"{name}.png", "label": "cat"}) for name in "abc"]
    w.write("train/metadata.jsonl", "\n".join(lines).encode())
    return w.folder / "data" / "train"


def _compressed_tar(w: Workshop) -> Path:
    return w.write("photos.tar.gz", gzip.compress(tar_bytes([*FILES, SKIPPED])))


def _pdf(w: Workshop) -> Path:
    return write_pdf(w.folder / "doc.pdf", [(250, 0, 0), (0, 250, 0), (0, 0, 250)])


def _video(w: Workshop) -> Path:
    shown = [(100 * second, (25 * second, 0, 0)) for second in range(10)]
    return write_video(w.folder / "clip.mp4", shown)


def _jpeg_xl(w: Workshop) -> Path:
    import pillow_jxl  # noqa: F401 - registers the format with Pillow

    w.install("jpeg-xl", "embedstore_jpeg_xl", "embedstore.decoders", "JPEG_XL")
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (9, 90, 9)).save(out, "JXL")
    w.write("a.jxl", out.getvalue())
    w.write("cut.jxl", out.getvalue()[:20])
    return w.folder / "data"


def _dicom(w: Workshop) -> Path:
    from tests.media.test_examples import RAMP, dicom

    w.install("dicom", "embedstore_dicom", "embedstore.decoders", "DICOM")
    data = dicom(RAMP)
    w.write("a.dcm", data)
    w.write("cut.dcm", data[:400])
    return w.folder / "data"


def _sqlite(w: Workshop) -> Path:
    w.install("sqlite", "embedstore_sqlite", "embedstore.sources", "SQLITE")
    path = w.folder / "photos.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE photos (image BLOB, label TEXT)")
        database.executemany("INSERT INTO photos VALUES (?, ?)", [(data, name[0]) for name, data in FILES])
    return path


_ARCHIVES = "tests/sources/test_archives.py::"
_REMOTE = "tests/sources/test_remote.py::"
_FORMATS = "tests/media/test_formats.py::"
_PARQUET = "tests/sources/test_parquet_failures.py::"
_COCO, _FRAMES = "tests/sources/annotations/test_coco.py::", "tests/sources/parts/test_frames.py::"
_BROKEN = "tests/media/test_decode_broken.py::"
_EXAMPLES = "tests/media/test_examples.py::"
_LABELS = "tests/sources/annotations/test_formats.py::"
_COMPRESSED = "tests/sources/test_compressed_tars.py::"
_BAD_ARCHIVES = {
    "half a tar": f"{_ARCHIVES}test_half_a_tar_gives_its_whole_members_and_one_failure",
    "two members of one name": f"{_ARCHIVES}test_of_two_members_with_one_name_the_later_is_the_file",
    "members with ../": f"{_ARCHIVES}test_names_that_point_outside_are_names",
}
_BAD_BUCKETS = {
    "a token that expires": f"{_REMOTE}test_a_token_that_expires_costs_no_item",
    "a bucket that refuses": f"{_REMOTE}test_a_bucket_that_refuses_is_one_line_and_marks_nothing_missing",
}

KINDS = [
    SourceKind("folder", "`photos/`", "Pillow", _folder, (3, 1, 1), {
        "damaged images": f"{_BROKEN}test_a_decompression_bomb_is_refused_before_it_is_decoded",
    }),
    SourceKind("files, globs", "`'photos/**/*.png'`", "Pillow", _glob, (3, 1, 1), {
        "links to folders": "tests/sources/test_files.py::test_a_glob_follows_no_link_to_a_folder",
    }),
    SourceKind("table", "`photos.csv`", "DuckDB", _table, (3, 1, 0), {
        "another encoding": "tests/sources/test_tables.py::test_another_encoding_is_one_line_whose_cure_works",
    }),
    SourceKind("Parquet with images", "`train.parquet`", "DuckDB", _parquet, (3, 1, 0), {
        "killed twice": f"{_PARQUET}test_a_run_that_was_killed_twice_ends_complete",
        "a file that lost its end": f"{_PARQUET}test_a_data_set_that_lost_a_file_loses_its_rows",
    }, needs=("pyarrow",)),
    SourceKind("saved data set", "`saved/`", "pyarrow (`hf`)", _saved, (3, 1, 0), {
        "half a file": "tests/sources/test_huggingface.py::test_half_a_file_is_a_failure_next_to_others",
        "JSON that leads outside": "tests/sources/test_huggingface.py::test_a_damaged_data_set_is_one_line",
    }, needs=("datasets",)),
    SourceKind("zip", "`photos.zip`", "standard library", _zip, (3, 1, 1), {
        "a zip bomb": f"{_ARCHIVES}test_a_zip_bomb_costs_one_file",
        "encrypted members": f"{_ARCHIVES}test_an_encrypted_member_is_a_failure",
    }),
    SourceKind("tar, WebDataset", "`'shards/*.tar'`", "standard library", _shard, (2, 1, 1), _BAD_ARCHIVES),
    SourceKind("compressed tar", "`photos.tar.gz`", "standard library (`zstd`)", _compressed_tar, (3, 1, 1), {
        "half an archive": f"{_COMPRESSED}test_half_an_archive_gives_its_whole_members_and_one_failure",
        "a bomb": f"{_COMPRESSED}test_a_bomb_is_refused",
    }),
    SourceKind("prefix of a bucket", "`s3://bucket/photos/`", "s3fs (`s3`), `gs`", _bucket, (3, 1, 1), _BAD_BUCKETS,
               needs=("moto", "s3fs")),
    SourceKind("archive in a bucket", "`s3://bucket/shard.tar`", "s3fs (`s3`)", _bucket_tar, (3, 1, 1),
               {**_BAD_BUCKETS, **_BAD_ARCHIVES}, needs=("moto", "s3fs")),
    SourceKind("files on a web server", "`https://host/1.jpg`", "aiohttp (`http`)", _web, (3, 1, 0), {
        "a redirect loop": f"{_REMOTE}test_redirects_without_end_and_absent_files_are_failures",
    }, needs=("moto", "aiohttp")),
    SourceKind("HEIC", "a folder", "pillow-heif (`heic`)", _heic, (2, 1, 0), {
        "cut files": f"{_FORMATS}test_a_cut_heif_file_is_a_failure",
    }, needs=("pillow_heif",)),
    SourceKind("camera RAW", "a folder", "rawpy (`raw`)", _raw, (2, 1, 0), {
        "cut files": f"{_FORMATS}test_a_cut_raw_file_is_a_failure",
    }, needs=("rawpy",)),
    SourceKind("boxes of COCO", "`annotations.json --crops`", "ijson", _crops, (2, 1, 0), {
        "damaged photos": f"{_COCO}test_a_photo_that_is_damaged_is_one_failure_per_crop",
    }, options={"crops": True}, needs=("ijson",)),
    SourceKind("YOLO", "`data.yaml`", "PyYAML", _yolo, (2, 1, 0), {
        "rows that are no boxes": f"{_LABELS}test_rows_of_yolo_that_cannot_be_read_are_counted",
        "descriptions that lead nowhere": f"{_LABELS}test_descriptions_of_yolo_that_cannot_be_used_are_one_line",
    }),
    SourceKind("Pascal VOC", "`voc/ --annotations voc/`", "defusedxml", _voc, (1, 1, 0), {
        "XML with entities": f"{_LABELS}test_xml_that_is_damaged_or_has_entities_is_one_failure",
    }, annotated=True),
    SourceKind("folder with metadata.jsonl", "`train/ --annotations train/`", "DuckDB", _image_folder, (2, 1, 0), {
        "a table without file names": f"{_LABELS}test_the_table_of_an_image_folder_is_read_by_its_file_names",
    }, annotated=True),
    SourceKind("PDF", "`doc.pdf`", "pypdfium2 (`pdf`)", _pdf, (3, 0, 0), {
        "a file that crashes or hangs the reader":
            "tests/sources/parts/test_pages.py::test_a_file_that_crashes_or_hangs_the_reader_is_one_failure",
    }, needs=("pypdfium2",)),
    SourceKind("video", "`clip.mp4`", "PyAV (`video`)", _video, (2, 0, 0), {
        "files without a picture": f"{_FRAMES}test_files_without_a_picture_are_one_failure_each",
    }, needs=("av",)),
    SourceKind("JPEG XL (plug-in)", "a folder", "pillow-jxl-plugin", _jpeg_xl, (1, 1, 0), {
        "cut files": f"{_EXAMPLES}test_a_cut_jpeg_xl_file_is_a_failure",
    }, needs=("pillow_jxl",)),
    SourceKind("DICOM (plug-in)", "a folder", "pydicom", _dicom, (1, 1, 0), {
        "settings that do not fit": f"{_EXAMPLES}test_settings_that_do_not_fit_a_file_are_a_failure_of_the_file",
    }, needs=("pydicom",)),
    SourceKind("SQLite (plug-in)", "`photos.sqlite`", "standard library", _sqlite, (3, 1, 0), {
        "plug-ins that raise, hang, or take a name":
            "tests/sources/test_plug_ins.py::test_a_plug_in_that_cannot_be_loaded_is_one_line",
    }),
]  # fmt: skip
