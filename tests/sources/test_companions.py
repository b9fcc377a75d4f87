"""A RAW file and a JPEG or HEIC file of one picture are one item, and every file is counted once."""

import io
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.errors import BadOption
from embedstore.sources.companions import PHOTO_SUFFIXES, RAW_SUFFIXES, RawPairs
from embedstore.sources.open import open_source
from embedstore.sources.skip_rules import SkipRules
from embedstore.types import ImageRef
from tests.helpers.dng import dng
from tests.helpers.folder_trees import touch
from tests.helpers.image_files import encode
from tests.helpers.s3_server import serve_bucket

NAMES = st.lists(
    st.tuples(
        st.sampled_from(["", "a/", "a/b/"]),
        st.sampled_from(["IMG_1", "img_1", "IMG.2", ".hidden"]),
        st.sampled_from([".CR2", ".dng", ".ARW", ".jpg", ".JPEG", ".heic", ".png", ".mov", ".xmp", ".jpg.json"]),
    ).map("".join),
    max_size=12,
    unique_by=str.lower,
)


def expected(names: list[str], *, both: bool = False) -> tuple[set[str], int]:
    """Return the items of some files and how many are skipped, file by file."""
    items = set()
    for name in names:
        path = Path(name)
        twins = [Path(n) for n in names if Path(n).parent == path.parent and Path(n).stem.lower() == path.stem.lower()]
        has_photo = any(twin.suffix.lower() in PHOTO_SUFFIXES and twin.name[0] != "." for twin in twins)
        is_other = path.suffix.lower() in (".mov", ".xmp", ".json") or path.name.startswith(".")
        if not is_other and not (path.suffix.lower() in RAW_SUFFIXES and has_photo and not both):
            items.add(name)
    return items, len(names) - len(items)


def write(kind: str, folder: Path, names: list[str]) -> Path:
    """Write the files as a folder or an archive, and return its path."""
    if kind == "folder":
        return touch(folder, *names) if names else folder
    path = folder / f"photos.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, b"x")
    else:
        with tarfile.open(path, "w") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"x"))
    return path


@settings(max_examples=150, deadline=None)
@given(NAMES, st.sampled_from(["folder", "tar", "zip"]), st.booleans())
def test_every_file_is_an_item_or_skipped(tmp_path_factory, names, kind, both):
    """In folders and archives a RAW file is skipped exactly where a photo of its name is embedded."""
    path = write(kind, tmp_path_factory.mktemp("pairs"), names)
    rules = SkipRules(raw_pairs=RawPairs.BOTH if both else RawPairs.PHOTO)
    scan = open_source(path, rules=rules).scan()
    found = [e.uri for e in scan]
    base = f"{path}/"
    inside = {u.removeprefix(base) if kind == "folder" else u.split("://", 1)[1].rsplit("::", 1)[0] for u in found}
    items, skipped = expected(names, both=both)
    assert (inside, scan.summary.skipped.total()) == (items, skipped)
    assert len(found) == len(items)


@pytest.mark.parametrize("suffix", sorted(RAW_SUFFIXES))
def test_a_raw_file_is_counted_with_its_photo(tmp_path, suffix):
    """The report says what it is paired with, and that name is the only thing that decides."""
    touch(tmp_path, f"A{suffix.upper()}", "a.JPG", f"b{suffix}", "c.jpg", f"d/c{suffix}", f"a.x{suffix}")
    scan = open_source(tmp_path).scan()
    names = [Path(e.uri).relative_to(tmp_path).as_posix() for e in scan]
    assert sorted(names) == sorted(["a.JPG", f"b{suffix}", "c.jpg", f"d/c{suffix}", f"a.x{suffix}"])
    assert scan.summary.skipped == {f"{suffix} paired with .jpg": 1}


def test_a_photo_that_is_not_embedded_pairs_nothing(tmp_path):
    """The RAW file is the item where the JPEG is excluded, hidden, a folder, a dangling link or outside the pattern."""
    touch(tmp_path, "a.cr2", "a.jpg", "b.cr2", "b.jpg/x.txt", "c.cr2")
    (tmp_path / "c.jpg").symlink_to("nowhere")
    excluded = open_source(tmp_path, rules=SkipRules(exclude=("*.jpg",))).scan()
    assert {Path(e.uri).name for e in excluded if isinstance(e, ImageRef)} == {"a.cr2", "b.cr2", "c.cr2"}
    whole = {Path(e.uri).name for e in open_source(tmp_path).scan() if isinstance(e, ImageRef)}
    assert whole == {"a.jpg", "b.cr2", "c.cr2"}
    assert {Path(e.uri).name for e in open_source(str(tmp_path / "*.cr2")).scan()} == {"a.cr2", "b.cr2", "c.cr2"}
    named = [str(tmp_path / "a.cr2"), str(tmp_path / "a.jpg")]
    assert [e.uri for e in open_source(named).scan()] == named


def test_the_files_next_to_phone_photos_are_counted(tmp_path):
    """Videos of Live Photos, edits of Apple and the JSON of Google Takeout are no failures."""
    touch(
        tmp_path, "IMG_1.HEIC", "IMG_1.MOV", "IMG_1.AAE", "IMG_1.xmp", "p.jpg", "p.jpg.json",
        "p.jpg.supplemental-metadata.json",
    )  # fmt: skip
    scan = open_source(tmp_path).scan()
    assert [Path(e.uri).name for e in scan] == ["IMG_1.HEIC", "p.jpg"]
    assert scan.summary.skipped == Counter({".mov": 1, ".aae": 1, ".xmp": 1, ".json": 2})


def test_a_prefix_of_a_bucket_pairs_like_a_folder(monkeypatch):
    """The rule is the same for files on a server."""
    with serve_bucket(monkeypatch) as bucket:
        bucket.put(dict.fromkeys(("p/a.CR2", "p/A.jpg", "p/b.cr2", "p/c/a.dng"), b"x"))
        scan = open_source(f"{bucket.url}/p/").scan()
        assert [e.uri.removeprefix(f"{bucket.url}/p/") for e in scan] == ["A.jpg", "b.cr2", "c/a.dng"]
        assert scan.summary.skipped == {".cr2 paired with .jpg": 1}
        bucket.put(dict.fromkeys(("g/a.CR2", "g/a.jpg", "g/b.pdf", "g/.DS_Store"), b"x"))
        scan = open_source(f"{bucket.url}/g/*").scan()
        assert [e.uri for e in scan] == [f"{bucket.url}/g/a.jpg"]
        assert scan.summary.skipped == {".cr2 paired with .jpg": 1, ".pdf": 1, ".DS_Store": 1}
        assert [e.uri for e in open_source(f"{bucket.url}/g/*.CR2").scan()] == [f"{bucket.url}/g/a.CR2"]


def photo(seed: int) -> bytes:
    """Return a JPEG that differs from all others."""
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    return encode(Image.fromarray(pixels), "JPEG")


def test_a_rescan_is_stable_when_one_of_a_pair_comes_or_goes(tmp_path):
    """At any time one item of a pair is present, no file fails, and the counts add up."""
    pytest.importorskip("rawpy", reason="rawpy is not installed (extra raw)")
    photos = tmp_path / "photos"
    photos.mkdir()
    raw, jpeg = photos / "a.dng", photos / "a.jpg"
    raw.write_bytes(dng(None))
    store = es.create(tmp_path / "p.store", "embedstore/tiny", device="cpu")

    def embed() -> tuple[int, int, int, list[str]]:
        report = store.embed(photos)
        assert report.failures + report.known_failures == 0
        assert report.scanned == report.embedded + report.reused + report.unchanged
        assert report.scanned + report.skipped == len(list(photos.iterdir()))
        present = store.sql("SELECT uri FROM items WHERE present").df()["uri"]
        return report.embedded, report.unchanged, report.skipped, [Path(u).name for u in present]

    assert embed() == (1, 0, 0, ["a.dng"])
    jpeg.write_bytes(photo(1))
    assert embed() == (1, 0, 1, ["a.jpg"])
    assert embed() == (0, 1, 1, ["a.jpg"])
    jpeg.unlink()
    assert embed() == (0, 1, 0, ["a.dng"])
    jpeg.write_bytes(photo(1))
    assert embed()[3] == ["a.jpg"]
    raw.unlink()
    assert embed() == (0, 1, 0, ["a.jpg"])


def test_both_of_a_pair_are_embedded_if_the_user_wants_them(tmp_path):
    """``raw_pairs="both"``; another word is refused."""
    pytest.importorskip("rawpy", reason="rawpy is not installed (extra raw)")
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.dng").write_bytes(dng(None))
    (photos / "a.jpg").write_bytes(photo(1))
    store = es.create(tmp_path / "p.store", "embedstore/tiny", device="cpu")
    assert store.embed(photos).embedded == 1
    assert store.embed(photos, raw_pairs="both").embedded == 1
    with pytest.raises(BadOption, match="use photo or both"):
        store.embed(photos, raw_pairs="raw")
