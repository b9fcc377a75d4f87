"""Splits in the names of what is given: folders below their common parent, archives and the folders above them."""

import itertools

import pytest

from embedstore.errors import SourceError
from embedstore.sources.archives.source import ArchiveSource
from embedstore.sources.given_names import names_below_common, splits_of_archives, without_system_names
from embedstore.sources.open import open_source
from tests.helpers.s3_server import serve_bucket
from tests.sources.test_archives import picture, tar_bytes


def read(names, **rules):
    """Label and split of every image, by its path."""
    return {ref.path: (ref.label, ref.split) for ref in open_source(names, **rules).scan()}


def place(folder, *paths):
    """Write a small image to each path."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(picture(len(path)))


@pytest.mark.parametrize("deep", ["", "fluffy"])
def test_folders_of_one_class_in_several_splits_are_in_their_splits(tmp_path, deep):
    """`embed train/cat dev/cat` reads what `embed .` reads there."""
    paths = [f"{split}/{label}/{deep}/1.png" for split, label in itertools.product(("train", "dev"), ("cat", "dog"))]
    place(tmp_path, *paths)
    folders = [str(tmp_path / split / label) for split in ("train", "dev") for label in ("cat", "dog")]
    found, whole = read(folders), read([str(tmp_path)])
    assert found == whole
    assert set(found.values()) == set(itertools.product((deep,) if deep else ("cat", "dog"), ("train", "val")))


def test_folders_without_a_split_above_are_as_each_alone(tmp_path):
    """Their own names are no labels, and nothing above their common parent counts."""
    place(tmp_path, "train/a/1.png", "train/b/x/2.png")
    found = read([str(tmp_path / "train" / "a"), str(tmp_path / "train" / "b")])
    assert sorted(found.values(), key=str) == [("x", None), (None, None)]


def test_a_folder_without_a_split_beside_folders_in_splits_is_refused(tmp_path):
    """Its images would be in no split."""
    place(tmp_path, "train/cat/1.png", "more/cat/2.png")
    folders = [str(tmp_path / "train" / "cat"), str(tmp_path / "more" / "cat")]
    with pytest.raises(SourceError, match="which names splits"):
        read(folders)
    assert {split for _, split in read(folders, split_rule=None).values()} == {None}


def archives(folder, *names):
    """Write tars of one photo in a folder of its class."""
    for n, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(tar_bytes([(f"cat/{n}.png", picture(n))]))
    return [str(folder / name) for name in names]


@pytest.mark.parametrize(
    "names",
    [
        ("train/s0.tar", "train/s1.tar", "val/s0.tar"),
        ("train.tar", "train-2.tar", "dev.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-train-0001.tar", "imagenet1k-validation-00.tar"),
        ("a/pets_train-00000-of-00002.tar", "a/pets_train-00001-of-00002.tar", "b/pets_test-00000-of-00001.tar"),
    ],
)
def test_shards_are_in_the_split_of_their_names(tmp_path, names):
    """The name of each shard states it, or the folder that holds the shard."""
    found = [(ref.label, ref.split) for ref in open_source(archives(tmp_path, *names)).scan()]
    last = "test" if "test" in names[2] else "val"
    assert found == [("cat", "train"), ("cat", "train"), ("cat", last)]
    found = [ref.split for ref in open_source(archives(tmp_path, *names), split_rule=None).scan()]
    assert found == [None] * 3


def test_what_an_archive_says_inside_counts_first(tmp_path):
    """A folder in it is nearer than its name."""
    (tmp_path / "train.tar").write_bytes(tar_bytes([("val/cat/1.png", picture(1)), ("train/cat/2.png", picture(2))]))
    found = [(ref.label, ref.split) for ref in open_source([str(tmp_path / "train.tar")]).scan()]
    assert found == [("cat", "val"), ("cat", "train")]


def test_an_archive_without_a_split_beside_one_with_a_split_is_refused(tmp_path):
    """It is named, with what to do; without splits from names both are read."""
    names = archives(tmp_path, "train.tar", "more.tar")
    with pytest.raises(SourceError, match=r"more\.tar is given with .*train\.tar, which names a split.*--splits-from"):
        list(open_source(names).scan())
    assert len(list(open_source(names, split_rule=None).scan())) == 2


def test_the_names_of_a_bucket_count_alike(monkeypatch):
    """Prefixes and archives on a real S3 server."""
    with serve_bucket(monkeypatch) as bucket:
        for split in ("train", "test"):
            shard = tar_bytes([("cat/1.png", picture(1))])
            bucket.put({f"{split}/cat/1.png": picture(1), f"shards/{split}/s0.tar": shard})
        prefixes = [f"{bucket.url}/{split}/cat" for split in ("train", "test")]
        assert [(r.label, r.split) for r in open_source(prefixes).scan()] == [("cat", "train"), ("cat", "test")]
        shards = [f"{bucket.url}/shards/{split}/s0.tar" for split in ("train", "test")]
        assert [(r.label, r.split) for r in open_source(shards).scan()] == [("cat", "train"), ("cat", "test")]


def test_names_below_the_common_parent():
    """One place has its own name; of several the first that differs is the outermost."""
    assert names_below_common(["/a/b"]) == [("b",)]
    assert names_below_common(["/a/b/", "/a/c/d"]) == [("b",), ("c", "d")]
    assert names_below_common(["/a/b", "/a/b/c"]) == [("b",), ("b", "c")]
    assert names_below_common([]) == []


@pytest.mark.parametrize("count", [1, 3])
def test_archives_are_in_the_split_of_the_folder_that_holds_them(tmp_path, monkeypatch, count):
    """As the files of a folder that is given, however the path is typed."""
    names = archives(tmp_path, *(f"val/s{n}.tar" for n in range(count)))
    monkeypatch.chdir(tmp_path)
    relative = [f"val/s{n}.tar" for n in range(count)]
    for typed in (names, relative, ["val/*.tar"], [f"./val/s{{0..{count - 1}}}.tar"]):
        assert [(ref.label, ref.split) for ref in open_source(typed).scan()] == [("cat", "val")] * count


HOMES = [("/home/me", "/home/me"), ("/srv/users/test", "/srv/users/test"), ("/home/me", "/home/dev"), ("/root", "/dev")]


@pytest.mark.parametrize(("home", "system"), HOMES)
def test_the_home_folder_and_devices_state_no_split(monkeypatch, home, system):
    """Neither the user's own home, nor another's, nor `/dev/shm`."""
    monkeypatch.setenv("HOME", home)
    assert without_system_names(f"{system}/photos/val") == (system, ["photos", "val"])
    assert without_system_names(system) == (system, [])
    assert splits_of_archives([f"{system}/s0.tar"]) == {f"{system}/s0.tar": None}
    assert splits_of_archives([f"{system}/val/s0.tar"]) == {f"{system}/val/s0.tar": "val"}


def test_a_home_folder_states_neither_label_nor_split(tmp_path, monkeypatch):
    """Files and patterns with an absolute path: the folders below the home folder count, and are compared."""
    home = tmp_path / "test"
    place(home, "1.png", "cat/2.png", "val/cat/3.png")
    monkeypatch.setenv("HOME", str(home))
    expected = {"1.png": (None, None), "cat/2.png": ("cat", None), "val/cat/3.png": ("cat", "val")}
    for name, found in expected.items():
        assert read([str(home / name)]) == {str(home / name): found}
        pattern = (home / name).with_suffix(".*")
        assert read([str(pattern)]) == {str(home / name): found}
    with pytest.raises(SourceError, match=rf"{home} has 'cat' next to the split val"):
        read([str(home / name) for name in expected])


def test_names_of_the_path_as_typed_count(tmp_path, monkeypatch):
    """A relative path states what is written in it, whatever is above."""
    home = tmp_path / "home" / "dev"
    place(home, "dev/1.png")
    monkeypatch.chdir(home)
    assert read(["dev/1.png"]) == {str(home / "dev" / "1.png"): (None, "val")}
    assert without_system_names("../dev/./a") == ("", ["dev", "a"])


def test_a_description_names_the_archive():
    """It is the path of the first."""
    assert ArchiveSource([("tar", "/home/test/s0.tar")]).description == "/home/test/s0.tar"
