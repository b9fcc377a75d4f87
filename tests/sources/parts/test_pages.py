"""Pages of PDF files: one item per page, read again by its uri alone."""

import json
import zipfile
from pathlib import Path

import pytest

import embedstore as es
from embedstore.media.extraction import kinds, pool
from embedstore.media.image.decode import open_image
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.parts.options import PartOptions
from embedstore.sources.skip_rules import SkipRules
from embedstore.types import FailureReason
from tests.helpers.documents import BLUE, GREEN, RED, write_pdf
from tests.helpers.photos import write_photos
from tests.helpers.s3_server import serve_bucket
from tests.helpers.scans import scan

pytest.importorskip("pypdfium2", reason="pypdfium2 is not installed (extra pdf)")
PAGES = SkipRules(parts=PartOptions(pages=True))


@pytest.fixture
def store(tmp_path):
    return es.create(tmp_path / "s.store", "embedstore/tiny", device="cpu")


def colors(source) -> list[tuple[int, ...]]:
    """Return the middle pixel of every item."""
    pictures = [open_image(read_location(ref.uri))[0] for ref in source.scan()]
    middles = [picture.getpixel((picture.width // 2, picture.height // 2)) for picture in pictures]
    return [tuple(255 * (channel > 127) for channel in middle) for middle in middles]


def test_a_page_is_an_item_in_the_group_of_its_file(tmp_path, store):
    """Label and split are those of the folder; a rescan draws nothing again."""
    path = write_pdf(tmp_path / "docs/train/law/a.pdf", [RED, GREEN, BLUE])
    write_photos(tmp_path / "docs/train/law", "b.png")
    report = store.embed(tmp_path / "docs", pages=True)
    assert (report.scanned, report.embedded, report.skipped) == (4, 4, 0)
    found = store.sql("SELECT uri, label, split, group_id FROM items ORDER BY uri").rows
    assert found[:3] == tuple((f"{path}#page={n}", "law", "train", str(path)) for n in (1, 2, 3))
    assert colors(open_source(path)) == [RED, GREEN, BLUE]
    again = store.embed(tmp_path / "docs", pages=True)
    assert (again.unchanged, again.embedded, again.missing) == (4, 0, 0)
    assert store.verify(check_images=True).ok


def test_a_folder_is_scanned_without_pages_unless_they_are_wanted(tmp_path, store):
    """PDF files are counted, and the report names the option; pages that are known stay present."""
    write_photos(tmp_path / "docs", "b.png")
    path = write_pdf(tmp_path / "docs/a.pdf", [RED, GREEN])
    report = store.embed(tmp_path / "docs")
    assert (report.embedded, report.skipped_by_kind) == (1, {".pdf": 1})
    assert any("1 PDF file was skipped; --pages" in notice for notice in report.notices)
    assert store.embed(tmp_path / "docs", pages=True).embedded == 2
    assert store.embed(tmp_path / "docs").missing == 0
    write_pdf(path, [RED])
    report = store.embed(tmp_path / "docs", pages=True)
    assert (report.missing, report.scanned) == (1, 2)
    path.unlink()
    assert store.embed(tmp_path / "docs", pages=True).missing == 2


def test_a_pdf_that_is_named_itself_needs_no_option(tmp_path, store):
    """Its pages are complete: one that is gone is missing."""
    path = write_pdf(tmp_path / "a.pdf", [RED, GREEN])
    assert store.embed(path).embedded == 2
    write_pdf(path, [BLUE])
    report = store.embed(path)
    assert (report.embedded, report.missing) == (1, 1)


def test_pages_in_archives_and_buckets_are_read_in_place(tmp_path, monkeypatch):
    """The uri is that of the file, and the page."""
    data = write_pdf(tmp_path / "a.pdf", [RED, GREEN]).read_bytes()
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("d/a.pdf", data)
    source = open_source(tmp_path / "x.zip", rules=PAGES)
    assert [r.uri for r in source.scan()] == [f"zip://d/a.pdf::{tmp_path}/x.zip#page={n}" for n in (1, 2)]
    assert colors(source) == [RED, GREEN]
    with serve_bucket(monkeypatch) as bucket:
        bucket.put({"p/a.pdf": data})
        source = open_source(f"{bucket.url}/p/", rules=PAGES)
        assert [r.uri for r in source.scan()] == [f"{bucket.url}/p/a.pdf#page={n}" for n in (1, 2)]
        assert colors(source) == [RED, GREEN]


@pytest.mark.parametrize(
    "change", [{"pages": 10**15}, {"pages": -1}, {"moments": [-1.0]}, {"moments": ["x"]}, {"pages": None}]
)
def test_a_listing_that_is_damaged_is_made_again(tmp_path, store, change):
    """Listings of a store from somebody else decide nothing."""
    path = write_pdf(tmp_path / "a.pdf", [RED, GREEN])
    assert store.embed(path).embedded == 2
    (listing,) = (tmp_path / "s.store/listings").glob("*.json")
    content = json.loads(listing.read_text())
    listing.write_text(json.dumps({"file": content["file"]} | change))
    assert store.embed(path).unchanged == 2


def encrypted_pdf(path: Path) -> None:
    """Write a PDF file that says that it is encrypted."""
    data = write_pdf(path, [RED]).read_bytes()
    start = data.rindex(b"trailer")
    encrypt = (
        b"/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <" + b"41" * 32 + b"> /U <" + b"42" * 32 + b"> >> "
        b"/ID [<41> <41>] "
    )
    at = data.index(b"<<", start) + 2
    path.write_bytes(data[:at] + b" " + encrypt + data[at:])


def test_files_that_cannot_be_opened_are_one_failure_each(tmp_path, store):
    """Encrypted, damaged, empty and absent files cost no other file, and the counts add up."""
    folder = tmp_path / "docs"
    write_pdf(folder / "good.pdf", [RED])
    whole = write_pdf(folder / "half.pdf", [RED] * 40).read_bytes()
    (folder / "half.pdf").write_bytes(b"%PDF-1.4\n" + whole[20 : len(whole) // 3])
    encrypted_pdf(folder / "locked.pdf")
    (folder / "empty.pdf").write_bytes(b"")
    (folder / "text.pdf").write_text("no PDF at all")
    (folder / "link.pdf").symlink_to("nowhere.pdf")
    report = store.embed(folder, pages=True)
    assert report.embedded == 1
    assert report.scanned == 1 + report.failures == 6
    reasons = dict(store.sql("SELECT parse_filename(uri), reason FROM failures").rows)
    assert reasons == {
        "half.pdf": "corrupt", "locked.pdf": "unreadable", "empty.pdf": "empty", "text.pdf": "corrupt",
        "link.pdf": "missing",
    }  # fmt: skip
    again = store.embed(folder, pages=True)
    assert (again.failures, again.known_failures) == (0, 5)


def test_a_page_that_is_not_there_is_a_failure(tmp_path, store):
    """A table may name pages; one beyond the end is missing."""
    write_pdf(tmp_path / "a.pdf", [RED, GREEN])
    table = tmp_path / "t.csv"
    table.write_text("uri,label\na.pdf#page=2,x\na.pdf#page=9,y\nb.pdf#page=1,z\n")
    report = store.embed(table)
    assert (report.embedded, report.failures_by_reason) == (1, {"missing": 2})
    assert store.sql("SELECT label, group_id FROM items").rows == (("x", str(tmp_path / "a.pdf")),)


def test_a_missing_package_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    """As for photos of phones."""
    monkeypatch.setattr(kinds.importlib.util, "find_spec", lambda _: None)
    _, failures = scan(open_source(write_pdf(tmp_path / "a.pdf", [RED])))
    assert [f.reason for f in failures] == [FailureReason.MISSING_EXTRA]
    assert "pip install 'embedstore[pdf]'" in failures[0].detail


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os.kill(os.getpid(), 11)", FailureReason.CRASHED),
        ("import time; time.sleep(99)", FailureReason.TIMED_OUT),
    ],
)
def test_a_file_that_crashes_or_hangs_the_reader_is_one_failure(tmp_path, monkeypatch, code, reason):
    """The run goes on with the next file."""
    path = write_pdf(tmp_path / "a.pdf", [RED])
    monkeypatch.setattr(pool, "_pool", pool.ExtractionPool())
    monkeypatch.setattr(pool, "TIMEOUT_SECONDS", 2.0)
    monkeypatch.setattr(pool, "_CODE", pool._CODE.replace("worker.main", f"exec({code!r}); worker.main"))
    _, failures = scan(open_source(path))
    assert [f.reason for f in failures] == [reason]


def test_ten_thousand_pages_are_listed_in_flat_memory(tmp_path):
    """References come one by one."""
    import tracemalloc

    path = write_pdf(tmp_path / "a.pdf", [RED], (8, 8))
    one = path.read_bytes()
    import pypdfium2

    document, page = pypdfium2.PdfDocument.new(), pypdfium2.PdfDocument(one)
    for _ in range(10):
        document.import_pages(page, [0] * 1000)
    document.save(path)
    source = open_source(path)
    tracemalloc.start()
    count = sum(1 for _ in source.scan())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 10_000
    assert peak < 8 << 20
    assert read_location(f"{path}#page=10000")
