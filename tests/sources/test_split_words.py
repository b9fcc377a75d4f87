"""Words for splits in the names of folders and files: understood or refused alike in every kind of source."""

import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embedstore as es
from embedstore.errors import SourceError
from embedstore.sources.open import open_source
from embedstore.text_form import SPLIT_WORDS
from tests.conftest import TINY
from tests.helpers.s3_server import serve_bucket
from tests.helpers.scans import scan
from tests.sources.test_archives import picture, tar_bytes, zip_bytes

KINDS = [
    "folder",
    "glob",
    "files",
    "tar",
    "zip",
    "bucket",
    "bucket glob",
    "tar in a bucket",
    "parquet",
    "parquet folders",
]
WORDS = [(word, split.value) for split, words in SPLIT_WORDS.items() for word in (words[0], words[-1].upper())]
WORDS += [("DEV", "val"), (" Held-Out", "test"), ("test2017", "test"), ("training_set", "train")]


class Place:
    """Where images of some folders are written in one kind of source.

    Attributes:
        source: what a user names.
    """

    def __init__(self, kind, folder, bucket):
        self.kind, self.folder, self.bucket = kind, folder, bucket
        self.source = {
            "glob": str(folder / "*/cat/*.png"), "tar": str(folder / "a.tar"), "zip": str(folder / "a.zip"),
            "bucket": f"{bucket.url}/top", "bucket glob": f"{bucket.url}/top/*/cat/*.png",
            "tar in a bucket": f"{bucket.url}/a.tar",
        }.get(kind, str(folder))  # fmt: skip

    def write(self, names, seed=0):
        """Write one image below each folder, or a table of one image of each name."""
        images = [(f"{name}/cat/{n}.png", picture(seed + n)) for n, name in enumerate(names)]
        if self.kind.startswith("parquet"):
            for (_, data), name in zip(images, names, strict=True):
                file = self.folder / (f"{name}/0.parquet" if "folders" in self.kind else f"{name}-00000.parquet")
                file.parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(pa.table({"image": [data], "label": ["cat"]}), file)
        elif "bucket" in self.kind:
            self.bucket.put({"a.tar": tar_bytes(images)} if "tar" in self.kind else {f"top/{n}": d for n, d in images})
        elif self.kind in ("tar", "zip"):
            data = {"tar": tar_bytes, "zip": zip_bytes}[self.kind](images)
            (self.folder / f"a.{self.kind}").write_bytes(data)
        else:
            for name, data in images:
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                (self.folder / name).write_bytes(data)
            if self.kind == "files":
                self.source = [str(self.folder / name) for name, _ in images]


@pytest.fixture(params=KINDS)
def place(request, tmp_path, monkeypatch):
    """One kind of source in a new folder, or in a bucket of a real server."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with serve_bucket(monkeypatch) as bucket:
        yield Place(request.param, folder, bucket)


def test_every_word_for_a_split_is_understood(place):
    """Whatever its case, separators and year; the label is the folder below, or that of the row."""
    place.write([word for word, _ in WORDS])
    refs, failures = scan(open_source(place.source))
    assert failures == []
    assert sorted(r.split for r in refs) == sorted(split for _, split in WORDS)
    assert {r.label for r in refs} == {"cat"}


def test_a_word_that_is_not_understood_next_to_a_split_is_refused(place):
    """Its images would be in no split; the cure in the message works."""
    place.write(["train", "probe_set"])
    with pytest.raises(SourceError, match="probe_set") as e:
        scan(open_source(place.source))
    assert "--splits-from none" in str(e.value)
    refs, _ = scan(open_source(place.source, split_rule=None))
    assert {r.split for r in refs} == {None}
    assert len(refs) == 2


@pytest.mark.parametrize("names", [["train_1", "validation2"], ["validation2"]], ids=" ".join)
def test_the_name_of_a_split_with_a_number_is_refused(place, names):
    """It names no split, and looks as if it did; the cure in the message works."""
    place.write(names)
    with pytest.raises(SourceError, match="|".join(names)) as e:
        scan(open_source(place.source))
    assert "--splits-from none" in str(e.value)
    refs, _ = scan(open_source(place.source, split_rule=None))
    assert [r.split for r in refs] == [None] * len(names)


@pytest.mark.parametrize("names", [["train", "other"], ["other", "test"], ["other/deep", "other/val"]], ids=" ".join)
def test_folders_given_together_are_all_in_splits_or_none_is(tmp_path, names):
    """A folder without a split beside one with a split is refused, in any order; either alone is taken."""
    folders = [tmp_path / name for name in names]
    for n, folder in enumerate(folders):
        (folder / "cat").mkdir(parents=True)
        (folder / "cat" / "0.png").write_bytes(picture(n))
    with pytest.raises(SourceError, match="in no split"):
        scan(open_source([str(folder) for folder in folders]))
    refs, _ = scan(open_source([str(folder) for folder in folders], split_rule=None))
    assert [r.split for r in refs] == [None, None]
    for folder in folders:
        scan(open_source(str(folder)))


@pytest.mark.parametrize(
    ("name", "refused"), [("validation2", True), ("val-03", True), ("train2017", False), ("a1", False)]
)
def test_the_name_of_the_folder_itself_is_understood_or_refused(tmp_path, name, refused):
    """A folder that a user names may be a split."""
    (tmp_path / name / "cat").mkdir(parents=True)
    (tmp_path / name / "cat" / "0.png").write_bytes(picture(0))
    if refused:
        with pytest.raises(SourceError, match=name):
            scan(open_source(str(tmp_path / name)))
    else:
        refs, _ = scan(open_source(str(tmp_path / name)))
        assert [r.split for r in refs] == ["train" if name.startswith("train") else None]


def test_a_class_may_have_the_name_of_a_split_and_a_number(tmp_path):
    """Folders that hold the images themselves are classes."""
    for n, name in enumerate(["test1", "rose"]):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes(picture(n))
    refs, _ = scan(open_source(str(tmp_path)))
    assert sorted(r.label for r in refs) == ["rose", "test1"]


def test_what_a_user_says_of_an_item_outweighs_the_names_of_folders(place, tmp_path):
    """After an edit, a scan, a scan of files that changed, and a run into a second space keep label and split."""
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    place.write(["train", "holdout"])
    store.embed(place.source, progress=False)
    store.edit({"split": "'val'"}, "true")
    store.edit({"label": "'dog'"}, "true")
    mine = {("dog", "val")} if not place.kind.startswith("parquet") else {("cat", "val")}  # a cell states the label

    def kept():
        return set(store.sql("SELECT label, split FROM items WHERE present").rows)

    store.embed(place.source, progress=False)
    assert kept() == mine
    place.write(["train", "holdout"], seed=50)
    for path in place.folder.rglob("*"):
        os.utime(path, ns=(1, 10**18))
    report = store.embed(place.source, progress=False)
    assert report.embedded == 2
    assert kept() == mine
    store.add_space(TINY, random_init=True, preprocess={"size": 32, "resize": 32}, space_name="second")
    assert store.embed(place.source, space="second", progress=False).embedded == 2
    assert kept() == mine
