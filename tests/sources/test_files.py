"""Files, globs and several sources: every file is found once, and what does not exist is named."""

import glob
import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadManifest, SourceError, SourceNotFound
from embedstore.sources.open import open_source
from tests.helpers.folder_trees import TREES, build_tree, hostile_folder, labels_by_path, scanned_paths, touch

# ---- files and globs


def test_listed_files_keep_their_order_and_come_once(tmp_path, monkeypatch):
    """A file named in two ways is one image; label and split come from the path as typed."""
    touch(tmp_path, "train/cat/a.jpg", "test/dog/b.jpg", "c.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_source(["test/dog/b.jpg", "train/cat/a.jpg", "./test/../test/dog/b.jpg", "c.jpg"])
    assert scanned_paths(source, tmp_path) == ["test/dog/b.jpg", "train/cat/a.jpg", "c.jpg"]
    assert labels_by_path(source, tmp_path) == {
        "test/dog/b.jpg": ("dog", "test"), "train/cat/a.jpg": ("cat", "train"), "c.jpg": (None, None),
    }  # fmt: skip
    assert source.roots == ()


def test_one_image_is_a_source(tmp_path):
    """A single path can be a string or a Path."""
    path = touch(tmp_path, "cat/a.jpg") / "cat/a.jpg"
    for what in (path, str(path)):
        assert scanned_paths(open_source(what)) == [str(path)]
    assert open_source(path).description == str(path)


def test_a_glob_matches_as_in_a_shell(tmp_path, monkeypatch):
    """``*``, ``?``, sets and ``**`` match; a hidden name needs its dot in the pattern."""
    touch(tmp_path, "p/a.jpg", "p/b.png", "p/.h.jpg", "p/q/c.jpg", "p/q/r/d.jpg", "p/.s/e.jpg")
    monkeypatch.chdir(tmp_path)
    match = lambda pattern: scanned_paths(open_source(pattern), tmp_path)  # noqa: E731
    assert match("p/*.jpg") == ["p/a.jpg"]
    assert match("p/?.[pj]*") == ["p/a.jpg", "p/b.png"]
    assert match("p/**/*.jpg") == ["p/a.jpg", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert match("**/*.jpg") == ["p/a.jpg", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert match("p/**") == ["p/a.jpg", "p/b.png", "p/q/c.jpg", "p/q/r/d.jpg"]
    assert match("p/*/*.jpg") == ["p/q/c.jpg"]
    assert match("p/.*.jpg") == ["p/.h.jpg"]
    assert match(f"{tmp_path}/p/[!b].*") == ["p/a.jpg"]


def test_labels_of_a_glob_come_from_the_path_as_typed(tmp_path, monkeypatch):
    """Both the part without wildcards and the folders below it count."""
    touch(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg")
    monkeypatch.chdir(tmp_path)
    want = {"train/cat/a.jpg": ("cat", "train"), "train/dog/b.jpg": ("dog", "train")}
    assert labels_by_path(open_source("train/*/*.jpg"), tmp_path) == want
    assert labels_by_path(open_source("train/**/*.jpg"), tmp_path) == want


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path, monkeypatch):
    """``img[1].jpg`` exists, so it is not a pattern."""
    touch(tmp_path, "img[1].jpg", "img1.jpg")
    monkeypatch.chdir(tmp_path)
    assert scanned_paths(open_source("img[1].jpg"), tmp_path) == ["img[1].jpg"]


def test_a_glob_follows_no_link_to_a_folder(tmp_path):
    """A loop of links ends."""
    hostile = hostile_folder(tmp_path)
    assert scanned_paths(open_source(f"{hostile}/**/ok.jpg"), hostile) == ["ok.jpg", "deep/ok.jpg"]


PATTERNS = st.lists(
    st.sampled_from(["*", "**", "a", "*.jpg", "?*", "[ab]*", "train", ".h", "*.*"]), min_size=1, max_size=4
)


@settings(max_examples=120, deadline=None)
@given(TREES, PATTERNS)
def test_a_glob_finds_the_files_that_glob_of_python_finds(tmp_path_factory, tree, parts):
    """This holds for any tree and any pattern."""
    root = tmp_path_factory.mktemp("tree")
    build_tree(root, tree)
    pattern = "/".join([str(root), *parts])
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - the oracle is the shell's rule, not pathlib's
    want = {os.path.normpath(p) for p in matches if Path(p).is_file() and not p.endswith("/")}
    if os.path.lexists(pattern):
        return  # a plain name
    if not want:
        with pytest.raises(SourceNotFound):
            open_source(pattern)
        return
    assert sorted(scanned_paths(open_source(pattern))) == sorted(want)


def test_folders_files_and_globs_together_give_each_file_once(tmp_path, monkeypatch):
    """A file named by itself, by a glob and by its folder comes once; nested folders count once."""
    touch(tmp_path, "p/cat/a.jpg", "p/cat/b.jpg", "p/c.png", "q/d.jpg")
    monkeypatch.chdir(tmp_path)
    source = open_source(["p", "q", "p/cat", "p/cat/a.jpg", "p/**/*.jpg", "p/"])
    got = scanned_paths(source, tmp_path)
    assert sorted(got) == ["p/c.png", "p/cat/a.jpg", "p/cat/b.jpg", "q/d.jpg"]
    assert source.roots == (str(tmp_path / "p"), str(tmp_path / "q"))
    for order in itertools.permutations(["p", "p/cat/a.jpg", "p/**/*.jpg"]):
        assert len(scanned_paths(open_source(list(order)))) == 3


def test_a_linked_folder_inside_another_source_is_scanned(tmp_path):
    """``p/link`` leads elsewhere: given by name it is scanned, although it is below ``p``."""
    touch(tmp_path, "p/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "p" / "link").symlink_to(tmp_path / "elsewhere")
    got = scanned_paths(open_source([tmp_path / "p", tmp_path / "p" / "link"]), tmp_path)
    assert got == ["p/a.jpg", "p/link: not_followed", "p/link/b.jpg"]
    got = scanned_paths(open_source([f"{tmp_path}/p/**/*.jpg", tmp_path / "p" / "link"]), tmp_path)
    assert got == ["p/a.jpg", "p/link/b.jpg"]


# ---- what cannot be opened


@pytest.mark.parametrize("name", ["nothing", "nothing/below", "*.jpg", "nothing/**", ""])
def test_a_source_that_does_not_exist_is_named(tmp_path, monkeypatch, name):
    """This holds for a folder, a glob without a match and an empty name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceNotFound, match=name.replace("*", r"\*") or "''"):
        open_source(name)


def test_one_missing_file_of_a_list_is_named(tmp_path):
    """The error comes before the scan."""
    touch(tmp_path, "a.jpg")
    with pytest.raises(SourceNotFound, match=r"b\.jpg"):
        open_source([tmp_path / "a.jpg", tmp_path / "b.jpg"])
    with pytest.raises(SourceNotFound, match="no source was named"):
        open_source([])


def test_a_source_of_an_unknown_scheme_is_refused(tmp_path):
    """Nothing is downloaded; ``file://`` is a path."""
    with pytest.raises(SourceNotFound, match="ftp://"):
        open_source("ftp://host/photos")
    touch(tmp_path, "a b.jpg")
    assert scanned_paths(open_source(f"file://{tmp_path}/a%20b.jpg"), tmp_path) == ["a b.jpg"]


def test_an_unknown_label_rule_and_a_manifest_among_others_are_refused(tmp_path):
    """Each error names its cure."""
    touch(tmp_path, "a.jpg", "m.csv")
    with pytest.raises(SourceError, match="use 'folder'"):
        open_source(tmp_path, label_rule="parent")
    with pytest.raises(BadManifest, match="give a table alone"):
        open_source([tmp_path / "a.jpg", tmp_path / "m.csv"])
