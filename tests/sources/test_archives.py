"""Images in tar and zip files, read in place."""

import io
import json
import os
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from embedstore.errors import ImageError, SourceNotFound
from embedstore.sources.archives.member_uri import MemberUri, parse_member_uri
from embedstore.sources.locations import read_location
from embedstore.sources.open import open_source
from embedstore.sources.place import expand_braces
from embedstore.sources.skip_rules import SkipRules
from embedstore.types import FailureReason
from tests.helpers.image_files import encode
from tests.helpers.scans import scan


def picture(seed: int) -> bytes:
    """Return a small PNG that differs from all others."""
    return encode(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)))


def tar_bytes(files: list[tuple[str, bytes]], mode: str = "w") -> bytes:
    """Return a tar of files in their order."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_bytes(files: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of files in their order."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return out.getvalue()


PHOTOS = [(f"{kind}/{n}.png", picture(10 * k + n)) for k, kind in enumerate(("cats", "dogs")) for n in range(3)]


@pytest.mark.parametrize(
    ("name", "label", "split"),
    [
        ("../1.png", None, None), ("../../cat/1.png", "cat", None), ("/1.png", None, None),
        ("/val/cat/1.png", "cat", "val"),
        ("./1.png", None, None), ("./train/./cat//1.png", "cat", "train"), ("val/../cat/..//1.png", "cat", "val"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_parts_of_a_path_that_are_no_folders_are_no_labels(tmp_path, kind, name, label, split):
    """`..` and what is empty; nothing is unpacked, so that such a name leads nowhere."""
    (tmp_path / f"x.{kind}").write_bytes({"tar": tar_bytes, "zip": zip_bytes}[kind]([(name, picture(1))]))
    refs, failures = scan(open_source(tmp_path / f"x.{kind}"))
    assert ([(ref.label, ref.split) for ref in refs], failures) == ([(label, split)], [])


def test_backslashes_of_a_zip_are_slashes(tmp_path):
    """Programs for Windows write them; the member is read by the name that the archive has."""
    litter = [("val\\cat\\._1.png", b"litter"), ("@eaDir\\1.png", picture(2))]
    (tmp_path / "x.zip").write_bytes(zip_bytes([("val\\cat\\1.png", picture(1)), *litter]))
    source = open_source(tmp_path / "x.zip")
    refs, failures = scan(source)
    assert ([(ref.label, ref.split) for ref in refs], failures) == ([("cat", "val")], [])
    assert list(source.read(refs)) == [picture(1)]
    (tmp_path / "x.tar").write_bytes(tar_bytes([("a\\b/1.png", picture(1))]))
    assert scan(open_source(tmp_path / "x.tar"))[0][0].label == "a\\b"


@pytest.mark.parametrize(("suffix", "data"), [("tar", tar_bytes(PHOTOS)), ("zip", zip_bytes(PHOTOS))])
def test_every_file_of_an_archive_is_an_item_with_its_folder_as_label(tmp_path, suffix, data):
    """The uri alone says how to read the file again."""
    path = tmp_path / f"photos.{suffix}"
    path.write_bytes(data)
    refs, failures = scan(open_source(path))
    assert failures == []
    assert [(r.uri, r.label) for r in refs] == [(f"{suffix}://{n}::{path}", n.split("/")[0]) for n, _ in PHOTOS]
    assert [read_location(r.uri) for r in refs] == [data for _, data in PHOTOS]
    assert list(open_source(path).read(refs)) == [data for _, data in PHOTOS]


NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(NAMES, st.binary(min_size=1, max_size=700)), max_size=8, unique_by=lambda f: f[0]), st.data())
def test_any_names_and_bytes_come_back(tmp_path_factory, files, data):
    """Names with colons, dots, slashes or spaces are read by their uri alone, in tar and in zip."""
    folder = tmp_path_factory.mktemp("any")
    files = [(f"x{name}.png", content) for name, content in files]
    kind = data.draw(st.sampled_from(["tar", "zip"]))
    if kind == "zip":
        files = [(n.replace(os.sep, "/"), c) for n, c in files]
    path = folder / f"a.{kind}"
    path.write_bytes(tar_bytes(files) if kind == "tar" else zip_bytes(files))
    refs, failures = scan(open_source(path, rules=SkipRules(hidden=True, other_kinds=True)))
    assert failures == []
    assert [read_location(r.uri) for r in refs] == [content for _, content in files]


def test_webdataset_sidecars_are_label_caption_and_columns(tmp_path):
    """Members of one key describe the image; numbers keep their type and every digit."""
    files = []
    for n in range(3):
        files += [
            (f"{n:06}.cls", str(n % 2).encode()),
            (
                f"{n:06}.json",
                json.dumps({"width": 2**60 + n, "score": n / 3, "tags": ["a", n], "split": "test"}).encode(),
            ),
            (f"{n:06}.png", picture(n)),
            (f"{n:06}.txt", f" a caption {n}\n".encode()),
        ]
    (tmp_path / "shard-000.tar").write_bytes(tar_bytes(files))
    store = es.create(tmp_path / "w.store", "embedstore/tiny", device="cpu")
    report = store.embed(tmp_path / "shard-000.tar", progress=False)
    assert (report.scanned, report.embedded, report.failures_by_reason) == (3, 3, {})
    rows = store.sql("SELECT label, split, caption, width, score, tags FROM items ORDER BY uri").df()
    assert rows["label"].tolist() == ["0", "1", "0"]
    assert set(rows["split"]) == {"test"}
    assert rows["caption"].tolist() == [f"a caption {n}" for n in range(3)]
    assert rows["width"].tolist() == [2**60 + n for n in range(3)]
    assert rows["score"].tolist() == [n / 3 for n in range(3)]
    assert rows["tags"].tolist() == [json.dumps(["a", n]) for n in range(3)]


def test_values_with_names_of_the_store_are_kept_apart(tmp_path):
    """A JSON that comes from elsewhere cannot be renamed by hand: its names get a prefix, and no value is lost."""
    facts = {"uri": "http://x/1.png", "Content": "c", "rowid": 7, "score": 0.5, "": "empty", "SCORE": 1, "a\0": 2}
    (tmp_path / "s.tar").write_bytes(tar_bytes([("1.json", json.dumps(facts).encode()), ("1.png", picture(1))]))
    store = es.create(tmp_path / "w.store", "embedstore/tiny", device="cpu")
    assert store.embed(tmp_path / "s.tar", progress=False).embedded == 1
    row = store.sql('SELECT meta_uri, "meta_Content", meta_rowid, score, meta_SCORE, "meta_" FROM items').rows[0]
    assert row == ("http://x/1.png", "c", 7, 0.5, 1, "empty")
    assert "meta_a\\x00" in store.sql("SELECT * FROM items").df().columns


def test_a_sidecar_that_cannot_be_used_is_a_failure_and_the_image_an_item(tmp_path):
    """Nothing is dropped in silence."""
    (tmp_path / "s.tar").write_bytes(tar_bytes([("1.png", picture(1)), ("1.json", b"{broken")]))
    refs, failures = scan(open_source(tmp_path / "s.tar"))
    assert len(refs) == 1
    assert [f.reason for f in failures] == [FailureReason.CORRUPT]
    assert "1.json" in failures[0].detail


def test_braces_name_shards_as_in_webdataset(tmp_path):
    """Zero-padded numbers stay padded; a file named with braces is itself."""
    assert expand_braces("s-{08..11}.tar") == ["s-08.tar", "s-09.tar", "s-10.tar", "s-11.tar"]
    assert expand_braces("s-{8..11}.tar") == ["s-8.tar", "s-9.tar", "s-10.tar", "s-11.tar"]
    for n in range(2):
        (tmp_path / f"s-{n}.tar").write_bytes(tar_bytes([(f"{n}.png", picture(n))]))
    assert len(scan(open_source(f"{tmp_path}/s-{{0..1}}.tar"))[0]) == 2
    assert len(scan(open_source(f"{tmp_path}/s-*.tar"))[0]) == 2
    with pytest.raises(SourceNotFound, match=r"s-2\.tar"):
        open_source(f"{tmp_path}/s-{{0..2}}.tar")


def test_a_rescan_reads_nothing_of_an_archive_that_did_not_change(tmp_path):
    """The listing is kept in the store: the second run knows every member without opening the tar."""
    path = tmp_path / "photos.tar"
    path.write_bytes(tar_bytes(PHOTOS))
    store = es.create(tmp_path / "p.store", "embedstore/tiny", device="cpu")
    assert store.embed(path, progress=False).embedded == 6
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)  # the same size and time: whoever reads it finds nothing
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = store.embed(path, progress=False)
    assert (again.scanned, again.unchanged, again.failures_by_reason) == (6, 6, {})


def test_members_that_left_an_archive_are_missing_and_the_others_stay(tmp_path):
    """An archive that is replaced is read again; equal bytes are not embedded again."""
    path = tmp_path / "photos.zip"
    path.write_bytes(zip_bytes(PHOTOS))
    store = es.create(tmp_path / "p.store", "embedstore/tiny", device="cpu")
    store.embed(path, progress=False)
    path.write_bytes(zip_bytes([*PHOTOS[:4], ("cats/new.png", picture(99))]))
    report = store.embed(path, progress=False)
    assert (report.embedded, report.reused, report.missing) == (1, 4, 2)


# ---- bad archives


def test_half_a_tar_gives_its_whole_members_and_one_failure(tmp_path):
    """What was cut off is named; nothing that is there is lost, and nothing is marked missing by it."""
    data = tar_bytes(PHOTOS)
    path = tmp_path / "half.tar"
    path.write_bytes(data)
    store = es.create(tmp_path / "p.store", "embedstore/tiny", device="cpu")
    store.embed(path, progress=False)
    path.write_bytes(data[: 512 * 5 + 100])
    refs, failures = scan(open_source(path))
    assert 1 <= len(refs) < 6
    assert [(f.uri, f.reason) for f in failures] == [(str(path), FailureReason.TRUNCATED)]
    assert store.embed(path, progress=False).missing == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.tar", b"not a tar" * 100), ("a.zip", b"not a zip" * 100), ("a.zip", zip_bytes(PHOTOS)[:300]), ("a.tar", b"")],
)
def test_what_is_no_archive_is_one_failure(tmp_path, name, data):
    """The file itself is the failure, with a reason."""
    (tmp_path / name).write_bytes(data)
    refs, failures = scan(open_source(tmp_path / name))
    assert refs == []
    assert [f.uri for f in failures] == [str(tmp_path / name)]


def test_a_compressed_tar_whose_name_does_not_say_so_is_named_with_its_cure(tmp_path):
    """The suffix decides how an archive is read."""
    path = tmp_path / "photos.tar"
    path.write_bytes(tar_bytes(PHOTOS, "w:gz"))
    _, (failure,) = scan(open_source(path))
    assert ".tar.gz" in failure.detail


def test_of_two_members_with_one_name_the_later_is_the_file(tmp_path):
    """As when the tar is unpacked; the earlier one is a failure that says so."""
    path = tmp_path / "two.tar"
    path.write_bytes(tar_bytes([("a.png", picture(1)), ("b.png", picture(2)), ("a.png", picture(3))]))
    refs, failures = scan(open_source(path))
    assert {r.uri: read_location(r.uri) for r in refs} == {
        f"tar://a.png::{path}": picture(3),
        f"tar://b.png::{path}": picture(2),
    }
    assert [f.reason for f in failures] == [FailureReason.SUPERSEDED]


def test_names_that_point_outside_are_names(tmp_path):
    """Nothing is unpacked, so ``..`` leads nowhere."""
    path = tmp_path / "evil.tar"
    path.write_bytes(tar_bytes([("../../evil.png", picture(1)), ("/etc/evil.png", picture(2))]))
    refs, _ = scan(open_source(path))
    assert [read_location(r.uri) for r in refs] == [picture(1), picture(2)]
    assert not (tmp_path.parent / "evil.png").exists()


def test_links_and_folders_in_a_tar_are_no_items(tmp_path):
    """Only regular files are images."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
    (tmp_path / "l.tar").write_bytes(out.getvalue())
    assert scan(open_source(tmp_path / "l.tar")) == ([], [])


def test_a_zip_bomb_costs_one_file(tmp_path, monkeypatch):
    """A member that claims more than the limit is refused before it is unpacked."""
    monkeypatch.setattr("embedstore.sources.local_files.MAX_FILE_BYTES", 1 << 20)
    path = tmp_path / "bomb.zip"
    path.write_bytes(zip_bytes([("bomb.png", bytes(4 << 20)), ("a.png", picture(1))]))
    refs, _ = scan(open_source(path))
    bomb, good = open_source(path).read(refs)
    assert bomb.reason is FailureReason.TOO_LARGE
    assert good == picture(1)


def test_an_encrypted_member_is_a_failure(tmp_path):
    """A zip whose member is marked as encrypted."""
    data = bytearray(zip_bytes([("a.png", picture(1))], zipfile.ZIP_STORED))
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags] |= 1
    (tmp_path / "e.zip").write_bytes(data)
    refs, _ = scan(open_source(tmp_path / "e.zip"))
    (failure,) = open_source(tmp_path / "e.zip").read(refs)
    assert failure.reason is FailureReason.UNREADABLE
    assert "encrypted" in failure.detail


METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]


@pytest.mark.parametrize("method", METHODS)
def test_a_damaged_member_is_a_failure_in_every_compression(tmp_path, method):
    """Each library raises errors of its own; all become a reason, and the other member is read."""
    data = bytearray(zip_bytes([("a.png", picture(1)), ("b.png", picture(2))], method))
    start = 30 + len("a.png")
    for at in range(start, start + 120):
        data[at] ^= 0xFF
    (tmp_path / "d.zip").write_bytes(data)
    refs, _ = scan(open_source(tmp_path / "d.zip"))
    damaged, good = open_source(tmp_path / "d.zip").read(refs)
    assert damaged.reason is FailureReason.CORRUPT
    assert good == picture(2)


def test_an_unknown_compression_is_named(tmp_path):
    """It is not mistaken for an encrypted member."""
    data = bytearray(zip_bytes([("a.png", picture(1))], zipfile.ZIP_STORED))
    for signature, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = data.index(signature) + place
        data[at : at + 2] = (99).to_bytes(2, "little")
    (tmp_path / "u.zip").write_bytes(data)
    refs, _ = scan(open_source(tmp_path / "u.zip"))
    (failure,) = open_source(tmp_path / "u.zip").read(refs)
    assert failure.reason is FailureReason.UNREADABLE
    assert "not supported" in failure.detail


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_forked_child_reads_members_too(tmp_path, kind):
    """The child opens the archive itself: neither a lock nor a position of the parent is used."""
    path = tmp_path / f"a.{kind}"
    path.write_bytes(tar_bytes(PHOTOS) if kind == "tar" else zip_bytes(PHOTOS))
    uris = [r.uri for r in scan(open_source(path))[0]]
    assert read_location(uris[0]) == PHOTOS[0][1]
    child = os.fork()
    if child == 0:
        os._exit(0 if [read_location(uri) for uri in uris] == [data for _, data in PHOTOS] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert read_location(uris[1]) == PHOTOS[1][1]


def test_a_member_that_is_gone_is_missing(tmp_path):
    """The uri of a member that the archive does not have."""
    (tmp_path / "a.zip").write_bytes(zip_bytes(PHOTOS))
    with pytest.raises(ImageError) as e:
        read_location(f"zip://none.png::{tmp_path / 'a.zip'}")
    assert e.value.reason is FailureReason.MISSING


def test_member_uris_are_parsed_at_the_last_separator():
    """Member names may contain the separator; paths of archives may not."""
    assert parse_member_uri("tar://a::b/c.png::/x/y.tar") == MemberUri("tar", "a::b/c.png", "/x/y.tar")
    assert parse_member_uri("/x/y.tar") is None
    assert parse_member_uri("s3://bucket/a::b") is None
