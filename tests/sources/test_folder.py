"""Folders: every file is found once, named, and never blocks."""

import os
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings

import embedstore as es
from embedstore.errors import BadManifest
from embedstore.sources.folder_labels import label_and_split
from embedstore.sources.open import open_source
from embedstore.sources.skip_rules import SkipRules
from embedstore.types import Failure, FailureReason, ImageRef
from tests.conftest import TINY
from tests.helpers.folder_trees import TREES, build_tree, hostile_folder, labels_by_path, scanned_paths, touch
from tests.sources.test_archives import picture, tar_bytes

# ---- labels


@pytest.mark.parametrize(
    ("folders", "root", "label", "split"),
    [
        ("", "photos", None, None),
        ("cat", "photos", "cat", None),
        ("train/cat", "photos", "cat", "train"),
        ("cat/train", "photos", "cat", "train"),
        ("Validation/animals/cat", "photos", "cat", "val"),
        ("VALID/cat", "photos", "cat", "val"),
        ("testing/cat", "photos", "cat", "test"),
        ("training", "photos", None, "train"),
        ("cat", "train", "cat", "train"),
        ("", "Test", None, "test"),
        ("val/cat", "train", "cat", "val"),
        ("test/train", "cifar100", "train", "test"),  # the railway, not the split
        ("train/train", "cifar100", "train", "train"),
        ("home/test/train/cat", "", "cat", "train"),
        ("trainer/cat", "photos", "cat", None),
    ],
)
def test_the_label_is_the_last_folder_and_the_split_any_folder(folders, root, label, split):
    """The rule is checked case by case."""
    assert label_and_split([f for f in folders.split("/") if f], root=root) == (label, split)


# ---- folders


def test_a_scan_gives_label_split_size_and_mtime(tmp_path):
    """Every field of one file is checked."""
    path = touch(tmp_path / "photos", "train/cat/a.jpg") / "train/cat/a.jpg"
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    source = open_source(tmp_path / "photos")
    assert list(source.scan()) == [
        ImageRef(
            str(path),
            str(path),
            len("train/cat/a.jpg"),
            1_700_000_000_123_456_789,
            "cat",
            "train",
            None,
            ("label", "split"),
        )
    ]
    assert source.roots == (str(tmp_path / "photos"),)
    assert source.description == str(tmp_path / "photos")
    assert source.columns == {}
    assert not source.overrides_metadata


def test_files_are_ordered_by_name_before_folders(tmp_path):
    """The order is the same on every file system, however the files were created."""
    touch(tmp_path, "b/1.jpg", "z.jpg", "a/2.jpg", "a/10.jpg", "a/c/3.jpg", "B.jpg")
    assert scanned_paths(open_source(tmp_path), tmp_path) == [
        "B.jpg",
        "z.jpg",
        "a/10.jpg",
        "a/2.jpg",
        "a/c/3.jpg",
        "b/1.jpg",
    ]


def test_labels_can_be_switched_off_and_splits_remain(tmp_path):
    """This is ``label=None``."""
    touch(tmp_path / "photos", "train/cat/a.jpg")
    assert labels_by_path(open_source(tmp_path / "photos", label_rule=None), tmp_path) == {
        "photos/train/cat/a.jpg": (None, "train")
    }


def test_the_name_of_the_source_folder_can_be_a_split(tmp_path):
    """``embed photos/val`` is the validation split."""
    touch(tmp_path / "val", "cat/a.jpg")
    assert labels_by_path(open_source(tmp_path / "val"), tmp_path) == {"val/cat/a.jpg": ("cat", "val")}


def test_what_may_be_an_image_is_found_and_the_rest_is_counted_by_kind(tmp_path):
    """Unknown suffixes and none are tried; litter, hidden names and files of other kinds are skipped."""
    touch(
        tmp_path, "a.JPG", "noname", "x.unknown", "notes.txt", "list.TXT", "v.mp4", ".hidden.png", ".DS_Store",
        "c/Thumbs.db", "c/desktop.ini", "c/._a.jpg", ".private/b.jpg",
    )  # fmt: skip
    source = open_source(tmp_path)
    assert scanned_paths(source, tmp_path) == ["a.JPG", "noname", "x.unknown"]
    for _ in range(2):  # each scan counts for itself
        scan = source.scan()
        assert len(list(scan)) == 3
        assert scan.summary.skipped == {
            ".txt": 2, ".mp4": 1, "hidden": 2, ".DS_Store": 1, "Thumbs.db": 1, "desktop.ini": 1, "._*": 1,
        }  # fmt: skip


def test_documents_without_a_suffix_are_counted_by_kind(tmp_path):
    """An image without a suffix is found; the name of a document is embedded where the user wrote it."""
    touch(tmp_path, "README", "a/license", "a/SHA256SUMS", "a/1f3a", "a/README.jpg")
    scan = open_source(str(tmp_path)).scan()
    assert [Path(entry.path).name for entry in scan] == ["1f3a", "README.jpg"]
    assert scan.summary.skipped == {"without suffix": 3}
    for name in (str(tmp_path / "README"), f"{tmp_path}/*/license"):
        assert [Path(entry.path).name.lower() for entry in open_source(name).scan()] in (["readme"], ["license"])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.tar"], "1 archive was skipped; name archives themselves"),
        (["a.tar", "b/c.ZIP", "d.tgz", "1.jpg"], "3 archives were skipped; name archives themselves"),
    ],
)
def test_archives_in_a_folder_are_said(tmp_path, names, said):
    """They are counted by kind, and the run says how they are embedded, also where there is nothing else."""
    touch(tmp_path, *names)
    source = open_source(str(tmp_path))
    found = [Path(entry.path).name for entry in source.scan()]
    assert found == [name for name in names if name.endswith(".jpg")]
    assert list(source.notices) == [f"{said} to embed what is in them, as in 'FOLDER/*.tar'"]
    if not found:
        store = es.create(tmp_path / "s", TINY, random_init=True)
        with pytest.raises(es.NoImages, match=said):
            store.embed(tmp_path)
        (tmp_path / names[0]).write_bytes(tar_bytes([("cat/1.png", picture(1))]))
        assert store.embed(f"{tmp_path}/*.tar").embedded == 1


LITTER = [
    "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "lost+found", "@Recycle", "@tmp",
    "@Recently-Snapshot", "#snapshot", "__pycache__",
]  # fmt: skip
HIDDEN_LITTER = [
    ".thumbnails", ".ipynb_checkpoints", ".Trash-1000", ".Trashes", ".Spotlight-V100", ".git", ".@__thumb",
    ".fseventsd", ".picasaoriginals",
]  # fmt: skip


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("name", [*LITTER, *HIDDEN_LITTER])
def test_litter_folders_are_never_classes(tmp_path, name, hidden):
    """At any depth they are not entered, also where hidden folders are wanted, and they are counted by name."""
    touch(tmp_path, "cat/a.jpg", f"{name}/b.jpg", f"cat/{name}/deep/c.jpg", f"cat/{name.upper()}x/d.jpg")
    source = open_source(tmp_path, rules=SkipRules(hidden=hidden))
    found = scanned_paths(source, tmp_path)
    assert [p for p in found if "x/" not in p] == ["cat/a.jpg"]
    scan = source.scan()
    list(scan)
    assert scan.summary.skipped[name] == 2


def test_hidden_files_and_folders_are_embedded_if_the_user_wants_them(tmp_path):
    """``--hidden``; a hidden folder that is named itself is entered without it."""
    touch(tmp_path, "a.jpg", ".b.jpg", ".c/d.jpg", ".c/.e/f.jpg")
    assert scanned_paths(open_source(tmp_path), tmp_path) == ["a.jpg"]
    assert scanned_paths(open_source(tmp_path, rules=SkipRules(hidden=True)), tmp_path) == [
        ".b.jpg", "a.jpg", ".c/d.jpg", ".c/.e/f.jpg",
    ]  # fmt: skip
    assert scanned_paths(open_source(tmp_path / ".c"), tmp_path) == [".c/d.jpg"]


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["raw"], ["a.jpg", "cat/b.jpg", "cat/b_edited.jpg", "dog/c.png"]),
        (["raw/"], ["a.jpg", "cat/b.jpg", "cat/b_edited.jpg", "dog/c.png"]),
        (["*_edited.*"], ["a.jpg", "cat/b.jpg", "cat/raw/x.jpg", "dog/c.png", "raw/y.jpg"]),
        (["cat/raw"], ["a.jpg", "cat/b.jpg", "cat/b_edited.jpg", "dog/c.png", "raw/y.jpg"]),
        (["/raw"], ["a.jpg", "cat/b.jpg", "cat/b_edited.jpg", "cat/raw/x.jpg", "dog/c.png"]),
        (["cat", "*.png"], ["a.jpg", "raw/y.jpg"]),
        (["dog/*"], ["a.jpg", "cat/b.jpg", "cat/b_edited.jpg", "cat/raw/x.jpg", "raw/y.jpg"]),
    ],
)
def test_exclusions_are_names_or_paths_below_the_folder(tmp_path, patterns, left):
    """A pattern without a slash is a name anywhere, one with a slash a path; what is skipped is counted by pattern."""
    touch(tmp_path, "a.jpg", "cat/b.jpg", "cat/b_edited.jpg", "cat/raw/x.jpg", "dog/c.png", "raw/y.jpg")
    source = open_source(tmp_path, rules=SkipRules(tuple(patterns)))
    assert sorted(scanned_paths(source, tmp_path)) == left
    scan = source.scan()
    list(scan)
    assert set(scan.summary.skipped) == set(patterns)


def test_a_glob_skips_litter_that_it_does_not_name(tmp_path, monkeypatch):
    """A name or a suffix that is written without a wildcard is never skipped."""
    touch(tmp_path, "a/b.jpg", "@eaDir/c.jpg", ".h/d.jpg", "a/notes.txt", "a/Thumbs.db")
    monkeypatch.chdir(tmp_path)
    match = lambda pattern: scanned_paths(open_source(pattern), tmp_path)  # noqa: E731
    assert match("*/*") == ["a/b.jpg"]
    assert match("**/*.jpg") == ["a/b.jpg"]
    assert match("@eaDir/*.jpg") == ["@eaDir/c.jpg"]
    assert match("**/@eaDir/*.jpg") == ["@eaDir/c.jpg"]
    assert match("**/.h/*") == [".h/d.jpg"]
    assert match("a/*.txt") == ["a/notes.txt"]
    assert match("*/Thumbs.db") == ["a/Thumbs.db"]


def test_exclusions_of_a_manifest_are_refused(tmp_path):
    """It names its images one by one."""
    (tmp_path / "m.csv").write_text("uri\na.jpg\n")
    for rules in (SkipRules(("raw",)), SkipRules(hidden=True)):
        with pytest.raises(BadManifest, match="leave out --exclude and --hidden"):
            open_source(tmp_path / "m.csv", rules=rules)


def test_stores_and_excluded_folders_are_never_entered(tmp_path):
    """This holds for a store among the photos and for one named by another path."""
    touch(tmp_path, "a.jpg", "pets.store/embedstore.json", "pets.store/spaces/x.vec", "out/b.jpg", "keep/out/c.jpg")
    (tmp_path / "alias").symlink_to(tmp_path / "out")
    source = open_source(tmp_path, exclude=[str(tmp_path / "alias")])
    assert scanned_paths(source, tmp_path) == ["a.jpg", "alias: not_followed", "keep/out/c.jpg"]


def test_a_relative_folder_gives_absolute_paths(tmp_path, monkeypatch):
    """``.``, ``..`` and doubled slashes disappear; links in the path stay."""
    touch(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for name in ("link", "./link/", "real/../link", "link//."):
        assert scanned_paths(open_source(name)) == [str(tmp_path / "link" / "a.jpg")]


def test_a_name_that_is_not_utf8_has_a_readable_uri(tmp_path):
    """The path opens the file; the uri is valid UTF-8 and shows the bytes."""
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    (ref,) = open_source(tmp_path).scan()
    assert os.fsencode(ref.path) == raw
    assert ref.uri == f"{tmp_path}/\\xff\\xfe.jpg"
    assert Path(ref.path).read_bytes() == b"x"


def test_names_of_every_kind_are_found(tmp_path):
    """Newlines, emoji, quotes, leading dashes, wildcards and 255 bytes are valid names."""
    names = [
        "a\nb.jpg",
        "🐝.jpg",
        'it\'s "x".jpg',
        "-rf",
        "*?[a].jpg",
        " ",
        "x" * 251 + ".jpg",
        "e\u0301.jpg",
        "\u00e9.jpg",
    ]
    touch(tmp_path, *names)
    assert scanned_paths(open_source(tmp_path), tmp_path) == sorted(names)


def test_every_entry_of_a_hostile_folder_has_its_reason(tmp_path):
    """FIFO, socket, device, loops and dangling links come once; nothing is opened, no loop is followed."""
    hostile = hostile_folder(tmp_path)
    assert scanned_paths(open_source(hostile), hostile) == [
        "dangling.jpg: missing",
        "device.jpg: not_a_file",
        "empty.jpg",
        "fifo-link.jpg: not_a_file",
        "fifo.jpg: not_a_file",
        "folder-link: not_followed",
        "good-link.jpg",
        "ok.jpg",
        "self.jpg: missing",
        "socket.jpg: not_a_file",
        "deep/ok.jpg",
        "deep/up: not_followed",
    ]


def test_the_detail_of_a_failure_names_its_kind(tmp_path):
    """It is one line."""
    hostile = hostile_folder(tmp_path)
    details = {Path(x.path).name: x.detail for x in open_source(hostile).scan() if isinstance(x, Failure)}
    assert details["fifo.jpg"] == "a FIFO, not a file"
    assert details["socket.jpg"] == "a socket, not a file"
    assert details["folder-link"] == "a link to a folder; name that folder itself to embed it"
    assert details["dangling.jpg"] == "a link that leads nowhere: No such file or directory"


def test_an_unreadable_folder_is_a_failure(ordinary):
    """It is not skipped silently."""
    touch(ordinary, "shut/a.jpg", "b.jpg")
    (ordinary / "shut").chmod(0)
    try:
        assert scanned_paths(open_source(ordinary), ordinary) == ["b.jpg", "shut: unreadable"]
    finally:
        (ordinary / "shut").chmod(0o755)


def test_a_folder_that_is_removed_during_the_scan_is_a_failure(tmp_path):
    """The other files are still found."""
    touch(tmp_path, "a.jpg", "b/b.jpg", "c/c.jpg")
    scan = open_source(tmp_path).scan()
    first = next(scan)
    (tmp_path / "b" / "b.jpg").unlink()
    (tmp_path / "b").rmdir()
    rest = list(scan)
    assert Path(first.path).name == "a.jpg"
    assert [(Path(x.path).name, getattr(x, "reason", None)) for x in rest] == [
        ("b", FailureReason.MISSING),
        ("c.jpg", None),
    ]


def test_folders_too_deep_for_the_system_are_a_failure(tmp_path):
    """Long names on many levels exceed the limit of a path; the scan reports it and continues."""
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    touch(tmp_path, "z.jpg")
    results = list(open_source(tmp_path).scan())
    assert Path(results[0].path).name == "z.jpg"
    assert [getattr(x, "reason", None) for x in results[1:]] == [FailureReason.UNREADABLE]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """Twenty times the files need less than twice the memory."""

    def peak(folder: Path) -> int:
        tracemalloc.start()
        assert sum(1 for _ in open_source(folder).scan()) > 0
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    touch(tmp_path / "few", *(f"{i % 5}/{i}.jpg" for i in range(500)))
    touch(tmp_path / "many", *(f"{i % 100}/{i}.jpg" for i in range(10_000)))
    peak(tmp_path / "few")  # what is loaded once
    assert peak(tmp_path / "many") < 2 * peak(tmp_path / "few") + 20_000


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_a_scan_finds_exactly_what_os_walk_finds(tmp_path_factory, tree):
    """For any tree, each file comes once, and two scans have the same order."""
    root = tmp_path_factory.mktemp("tree")
    build_tree(root, tree)
    want = sorted(f"{d}/{f}" for d, _, files in os.walk(root) for f in files)
    got = scanned_paths(open_source(root, split_rule=None, rules=SkipRules(hidden=True)))
    assert sorted(got) == want
    visible = scanned_paths(open_source(root, split_rule=None))
    assert visible == [p for p in got if "/.h" not in p]
    assert scanned_paths(open_source(root, split_rule=None)) == visible


def test_litter_in_an_archive_is_skipped_like_that_of_a_folder(tmp_path):
    """An archive of a Mac holds a folder of attributes."""
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("./cat/a.jpg", "__MACOSX/cat/._a.jpg", ".DS_Store", "cat/notes.md", "cat/raw/b.jpg"):
            file.writestr(name, name)
    scan = open_source(archive, rules=SkipRules(("raw",))).scan()
    assert [entry.uri.rsplit("/", 1)[-1] for entry in scan if "a.jpg" in entry.uri] != []
    assert scan.summary.skipped == {"__MACOSX": 1, ".DS_Store": 1, ".md": 1, "raw": 1}
