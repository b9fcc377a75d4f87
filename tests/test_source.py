"""Folders, files and globs: everything that is there is found once, named, and never hangs."""

import glob
import itertools
import os
import socket
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadManifest, SourceError, SourceNotFound
from embedstore.records import Failure, ImageRef, Reason
from embedstore.source import open_source
from embedstore.source.labels import label_and_split


def touch(folder: Path, *names: str) -> Path:
    """Make files that hold their own name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    return folder


def found(source, root: Path | str = "") -> list[str]:
    """The paths of a scan, relative to a folder; failures with their reason."""
    out = []
    for x in source.scan():
        name = os.path.relpath(x.path, root) if root else x.path
        out.append(name if isinstance(x, ImageRef) else f"{name}: {x.reason}")
    return out


def said(source, root: Path) -> dict[str, tuple[str | None, str | None]]:
    """Label and split by relative path."""
    return {os.path.relpath(x.path, root): (x.label, x.split) for x in source.scan()}


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
def test_the_class_is_the_last_folder_and_the_split_stands_anywhere(folders, root, label, split):
    """The rule, case by case."""
    assert label_and_split([f for f in folders.split("/") if f], root=root) == (label, split)


# ---- folders


def test_a_folder_gives_its_files_with_class_split_size_and_time(tmp_path):
    """One file, every field."""
    path = touch(tmp_path / "photos", "train/cat/a.jpg") / "train/cat/a.jpg"
    os.utime(path, ns=(5, 1_700_000_000_123_456_789))
    source = open_source(tmp_path / "photos")
    assert list(source.scan()) == [
        ImageRef(str(path), str(path), len("train/cat/a.jpg"), 1_700_000_000_123_456_789, "cat", "train")
    ]
    assert source.roots == (str(tmp_path / "photos"),)
    assert source.description == str(tmp_path / "photos")
    assert source.columns == {}
    assert not source.declares


def test_the_order_is_that_of_names_files_before_folders(tmp_path):
    """The same on every file system, however the files came there."""
    touch(tmp_path, "b/1.jpg", "z.jpg", "a/2.jpg", "a/10.jpg", "a/c/3.jpg", "B.jpg")
    assert found(open_source(tmp_path), tmp_path) == ["B.jpg", "z.jpg", "a/10.jpg", "a/2.jpg", "a/c/3.jpg", "b/1.jpg"]


def test_labels_can_be_switched_off_and_splits_stay(tmp_path):
    """``label=None``."""
    touch(tmp_path / "photos", "train/cat/a.jpg")
    assert said(open_source(tmp_path / "photos", label=None), tmp_path) == {"photos/train/cat/a.jpg": (None, "train")}


def test_the_folders_own_name_may_be_a_split(tmp_path):
    """``embed photos/val`` knows that it is the validation split."""
    touch(tmp_path / "val", "cat/a.jpg")
    assert said(open_source(tmp_path / "val"), tmp_path) == {"val/cat/a.jpg": ("cat", "val")}


def test_every_file_counts_whatever_its_suffix_and_litter_is_counted_apart(tmp_path):
    """Text and files without suffix are found; what file browsers leave behind is skipped and counted."""
    touch(
        tmp_path,
        "a.JPG",
        "notes.txt",
        "noname",
        ".hidden.png",
        ".DS_Store",
        "c/Thumbs.db",
        "c/desktop.ini",
        "c/._a.jpg",
    )
    source = open_source(tmp_path)
    assert found(source, tmp_path) == [".hidden.png", "a.JPG", "noname", "notes.txt"]
    assert source.skipped == 4
    list(source.scan())
    assert source.skipped == 4  # of the last scan, not of all


def test_stores_and_excluded_folders_are_never_entered(tmp_path):
    """A store that lies among the photos, and one named by another way."""
    touch(tmp_path, "a.jpg", "pets.store/embedstore.json", "pets.store/spaces/x.vec", "out/b.jpg", "keep/out/c.jpg")
    (tmp_path / "alias").symlink_to(tmp_path / "out")
    source = open_source(tmp_path, exclude=[str(tmp_path / "alias")])
    assert found(source, tmp_path) == ["a.jpg", "alias: not_followed", "keep/out/c.jpg"]


def test_a_relative_folder_gives_absolute_names(tmp_path, monkeypatch):
    """``.``, ``..`` and doubled slashes disappear, links in the path stay."""
    touch(tmp_path / "real", "a.jpg")
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    for name in ("link", "./link/", "real/../link", "link//."):
        assert found(open_source(name)) == [str(tmp_path / "link" / "a.jpg")]


def test_names_that_are_not_utf8_keep_their_bytes_and_show_a_readable_name(tmp_path):
    """The path opens the file; the uri is valid UTF-8 and shows the bytes."""
    raw = os.fsencode(tmp_path) + b"/\xff\xfe.jpg"
    Path(os.fsdecode(raw)).write_bytes(b"x")
    (ref,) = open_source(tmp_path).scan()
    assert os.fsencode(ref.path) == raw
    assert ref.uri == f"{tmp_path}/\\xff\\xfe.jpg"
    assert Path(ref.path).read_bytes() == b"x"


def test_names_of_every_kind_are_found(tmp_path):
    """Newlines, emoji, quotes, leading dashes, wildcards and 255 bytes."""
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
    assert found(open_source(tmp_path), tmp_path) == sorted(names)


@pytest.fixture
def hostile(tmp_path):
    """A folder with everything that has hung or killed an indexer."""
    root = touch(tmp_path / "hostile", "ok.jpg", "empty.jpg", "deep/ok.jpg")
    (root / "empty.jpg").write_bytes(b"")
    os.mkfifo(root / "fifo.jpg")
    (root / "dangling.jpg").symlink_to(root / "nothing")
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "good-link.jpg").symlink_to(root / "ok.jpg")
    (root / "device.jpg").symlink_to("/dev/zero")
    (root / "fifo-link.jpg").symlink_to(root / "fifo.jpg")
    (root / "deep" / "up").symlink_to(root)
    (root / "folder-link").symlink_to(root / "deep")
    with socket.socket(socket.AF_UNIX) as s:
        here = os.open(root, os.O_RDONLY)
        s.bind(f"/proc/self/fd/{here}/socket.jpg" if Path("/proc/self/fd").exists() else str(root / "socket.jpg"))
        os.close(here)
    return root


def test_a_hostile_folder_gives_each_entry_its_reason(hostile):
    """FIFO, socket, device, loops, dangling links: every entry once, nothing opened, nothing followed for ever."""
    assert found(open_source(hostile), hostile) == [
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


def test_a_failure_says_what_it_is_in_one_line(hostile):
    """The detail names the kind."""
    details = {Path(x.path).name: x.detail for x in open_source(hostile).scan() if isinstance(x, Failure)}
    assert details["fifo.jpg"] == "a FIFO, not a file"
    assert details["socket.jpg"] == "a socket, not a file"
    assert details["folder-link"] == "a link to a folder; name that folder itself to embed it"
    assert details["dangling.jpg"] == "a link that leads nowhere: No such file or directory"


def test_a_folder_that_may_not_be_read_is_a_failure(ordinary):
    """It is not skipped in silence."""
    touch(ordinary, "shut/a.jpg", "b.jpg")
    (ordinary / "shut").chmod(0)
    try:
        assert found(open_source(ordinary), ordinary) == ["b.jpg", "shut: unreadable"]
    finally:
        (ordinary / "shut").chmod(0o755)


def test_a_folder_that_vanishes_during_the_scan_is_a_failure(tmp_path):
    """The rest is still found."""
    touch(tmp_path, "a.jpg", "b/b.jpg", "c/c.jpg")
    scan = open_source(tmp_path).scan()
    first = next(scan)
    (tmp_path / "b" / "b.jpg").unlink()
    (tmp_path / "b").rmdir()
    rest = list(scan)
    assert Path(first.path).name == "a.jpg"
    assert [(Path(x.path).name, getattr(x, "reason", None)) for x in rest] == [("b", Reason.MISSING), ("c.jpg", None)]


def test_folders_too_deep_for_the_system_are_a_failure_and_end(tmp_path):
    """300 levels of long names exceed what a path may have; the walk says so and goes on."""
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
    assert [getattr(x, "reason", None) for x in results[1:]] == [Reason.UNREADABLE]


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    """Twenty times the files, less than twice the memory."""

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


NAMES = st.sampled_from(["a", "b", "ab", "b.jpg", "c.png", "train", "x y", ".h", "é"])
TREES = st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=12)


def build(root: Path, tree: list[list[str]]) -> None:
    """Make files; a name that is taken by a folder or by a file above is passed over."""
    for parts in tree:
        path = root.joinpath(*parts)
        if not path.is_dir() and not any(p.is_file() for p in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")


@settings(max_examples=60, deadline=None)
@given(TREES)
def test_a_scan_finds_exactly_what_os_walk_finds(tmp_path_factory, tree):
    """Any tree, each file once, twice in the same order."""
    root = tmp_path_factory.mktemp("tree")
    build(root, tree)
    want = sorted(f"{d}/{f}" for d, _, files in os.walk(root) for f in files)
    got = found(open_source(root))
    assert sorted(got) == want
    assert found(open_source(root)) == got


# ---- files and globs


def test_listed_files_keep_their_order_and_come_once(tmp_path, monkeypatch):
    """Named twice, by different ways, a file is one image; class and split are read from what was typed."""
    touch(tmp_path, "train/cat/a.jpg", "dog/b.jpg", "c.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_source(["dog/b.jpg", "train/cat/a.jpg", "./dog/../dog/b.jpg", "c.jpg"])
    assert found(source, tmp_path) == ["dog/b.jpg", "train/cat/a.jpg", "c.jpg"]
    assert said(source, tmp_path) == {
        "dog/b.jpg": ("dog", None), "train/cat/a.jpg": ("cat", "train"), "c.jpg": (None, None),
    }  # fmt: skip
    assert source.roots == ()


def test_one_image_is_a_source(tmp_path):
    """A single path, as a string or a Path."""
    path = touch(tmp_path, "cat/a.jpg") / "cat/a.jpg"
    for what in (path, str(path)):
        assert found(open_source(what)) == [str(path)]
    assert open_source(path).description == str(path)


def test_a_glob_matches_as_in_a_shell(tmp_path, monkeypatch):
    """``*``, ``?``, sets and ``**``; hidden names only where the dot is written."""
    touch(tmp_path, "p/a.jpg", "p/b.png", "p/.h.jpg", "p/q/c.jpg", "p/q/r/d.jpg", "p/.s/e.jpg")
    monkeypatch.chdir(tmp_path)
    match = lambda pattern: found(open_source(pattern), tmp_path)  # noqa: E731
    assert match("p/*.jpg") == ["p/a.jpg"]
    assert match("p/?.[pj]*") == ["p/a.jpg", "p/b.png"]
    assert match("p/**/*.jpg") == ["p/a.jpg", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert match("**/*.jpg") == ["p/a.jpg", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert match("p/**") == ["p/a.jpg", "p/b.png", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert match("p/*/*.jpg") == ["p/q/c.jpg"]
    assert match("p/.*.jpg") == ["p/.h.jpg"]
    assert match(f"{tmp_path}/p/[!b].*") == ["p/a.jpg"]


def test_a_globs_labels_come_from_the_path_as_typed(tmp_path, monkeypatch):
    """The fixed part and what was matched below it."""
    touch(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg")
    monkeypatch.chdir(tmp_path)
    want = {"train/cat/a.jpg": ("cat", "train"), "train/dog/b.jpg": ("dog", "train")}
    assert said(open_source("train/*/*.jpg"), tmp_path) == want
    assert said(open_source("train/**/*.jpg"), tmp_path) == want


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path, monkeypatch):
    """``img[1].jpg`` exists, so it is not a pattern."""
    touch(tmp_path, "img[1].jpg", "img1.jpg")
    monkeypatch.chdir(tmp_path)
    assert found(open_source("img[1].jpg"), tmp_path) == ["img[1].jpg"]


def test_a_glob_follows_no_link_to_a_folder(hostile):
    """A loop ends."""
    assert found(open_source(f"{hostile}/**/ok.jpg"), hostile) == ["ok.jpg", "deep/ok.jpg"]


PATTERNS = st.lists(
    st.sampled_from(["*", "**", "a", "*.jpg", "?*", "[ab]*", "train", ".h", "*.*"]), min_size=1, max_size=4
)


@settings(max_examples=120, deadline=None)
@given(TREES, PATTERNS)
def test_a_glob_finds_the_files_that_pythons_glob_finds(tmp_path_factory, tree, parts):
    """Any tree and any pattern."""
    root = tmp_path_factory.mktemp("tree")
    build(root, tree)
    pattern = "/".join([str(root), *parts])
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the oracle is the shell's rule, not pathlib's
    want = {os.path.normpath(p) for p in matches if Path(p).is_file() and not p.endswith("/")}
    if os.path.lexists(pattern):
        return  # a plain name
    if not want:
        with pytest.raises(SourceNotFound):
            open_source(pattern)
        return
    assert sorted(found(open_source(pattern))) == sorted(want)


def test_folders_files_and_globs_together_give_each_file_once(tmp_path, monkeypatch):
    """A file named by itself, by a glob and by its folder comes once; nested folders count once."""
    touch(tmp_path, "p/cat/a.jpg", "p/cat/b.jpg", "p/c.png", "q/d.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_source(["p", "q", "p/cat", "p/cat/a.jpg", "p/**/*.jpg", "p/"])
    got = found(source, tmp_path)
    assert sorted(got) == ["p/c.png", "p/cat/a.jpg", "p/cat/b.jpg", "q/d.jpg"]
    assert source.roots == (str(tmp_path / "p"), str(tmp_path / "q"))
    for order in itertools.permutations(["p", "p/cat/a.jpg", "p/**/*.jpg"]):
        assert len(found(open_source(list(order)))) == 3


def test_a_folder_reached_by_a_link_inside_another_is_not_lost(tmp_path):
    """``p/link`` leads elsewhere: given by name it is walked, although it lies below ``p``."""
    touch(tmp_path, "p/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "p" / "link").symlink_to(tmp_path / "elsewhere")
    got = found(open_source([tmp_path / "p", tmp_path / "p" / "link"]), tmp_path)
    assert got == ["p/a.jpg", "p/link: not_followed", "p/link/b.jpg"]
    got = found(open_source([f"{tmp_path}/p/**/*.jpg", tmp_path / "p" / "link"]), tmp_path)
    assert got == ["p/a.jpg", "p/link/b.jpg"]


# ---- what cannot be opened


@pytest.mark.parametrize("name", ["nothing", "nothing/below", "*.jpg", "nothing/**", ""])
def test_what_is_not_there_is_named(tmp_path, monkeypatch, name):
    """A folder, a glob without a match, an empty name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFound, match=name.replace("*", r"\*") or "''"):
        open_source(name)


def test_one_missing_file_of_a_list_is_named(tmp_path):
    """Before anything is scanned."""
    touch(tmp_path, "a.jpg")
    with pytest.raises(SourceNotFound, match=r"b\.jpg"):
        open_source([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    with pytest.raises(SourceNotFound, match="no source was named"):
        open_source([])


def test_a_remote_source_is_refused_by_its_scheme(tmp_path):
    """Nothing is downloaded; ``file://`` is a path."""
    with pytest.raises(SourceNotFound, match="s3://"):
        open_source("s3://bucket/photos")
    touch(tmp_path, "a b.jpg")
    assert found(open_source(f"file://{tmp_path}/a%20b.jpg"), tmp_path) == ["a b.jpg"]


def test_an_unknown_rule_for_labels_and_a_manifest_among_others_are_refused(tmp_path):
    """Each with its cure."""
    touch(tmp_path, "a.jpg", "m.csv")
    with pytest.raises(SourceError, match="known is 'folder'"):
        open_source(tmp_path, label="parent")
    with pytest.raises(BadManifest, match="give a manifest alone"):
        open_source([tmp_path / "a.jpg", tmp_path / "m.csv"])
