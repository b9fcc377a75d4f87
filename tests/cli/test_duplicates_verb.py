"""What `embedstore duplicates` shows, writes and deletes."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

from embedstore import create, open
from embedstore.cli import main
from tests.helpers.natural_images import natural_image, saved_again


@pytest.fixture
def store(tmp_path):
    """Three files of one picture (two of equal bytes, with two labels), a pair of equal bytes, and one alone."""
    folder = tmp_path / "photos"
    for split, label, name, seed in [
        ("train", "cat", "a", 1), ("test", "dog", "b", 1), ("train", "cat", "d", 3), ("train", "cat", "e", 3),
        ("test", "owl", "f", 4),
    ]:  # fmt: skip
        path = folder / split / label / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        natural_image(seed).save(path)
    saved_again(natural_image(1), 90).convert("RGB").save(folder / "test" / "dog" / "copy.png")
    create(tmp_path / "s", "tiny").embed(folder)
    return tmp_path / "s"


@pytest.fixture
def run(capfd):
    """Run the verb and return what it wrote to stdout and stderr."""

    def call(*arguments, status=0):
        with pytest.raises(SystemExit) as ended:
            main(["duplicates", *map(str, arguments)])
        assert (ended.value.code or 0) == status
        return capfd.readouterr()

    return call


def test_the_page_shows_both_kinds_of_groups(run, store, tmp_path):
    """Equal bytes come first, the larger group of look-alikes with its labels after; every item has its facts."""
    run(store, "--check-pixels", "-o", tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    kinds = re.findall(r"<h2>(.*?)</h2>", page)
    assert kinds == ["Equal bytes: 1 group", "Look alike: 1 group"]
    assert re.findall(r"<h3>group \d+: (\d+) items", page) == ["2", "3"]
    assert "5 items in 2 groups" in page
    assert "--delete-extra" in page
    assert "labels differ: cat, dog" in page
    assert "in 1 group labels differ" in page
    assert page.count("<b>keep</b>") == 2
    assert page.count("<img") == 5
    assert "http" not in re.sub(r'src="data:[^"]*"', "", page)


def test_the_page_of_pairs_names_both_sides(run, store, tmp_path):
    """With --across-splits, the two pairs across the split are shown with uri, label and split of both sides."""
    run(store, "--check-pixels", "--across-splits", "-o", tmp_path / "p.html", "-o", tmp_path / "p.csv")
    page = (tmp_path / "p.html").read_text()
    assert "Across splits: 2 pairs" in page
    assert page.count("cat · train") == 2
    assert re.findall(r"<h3>(equal bytes|cosine)[^<]* <b[^>]*>(labels differ: [^<]*)</b>", page) == [
        ("equal bytes", "labels differ: cat, dog"),
        ("cosine", "labels differ: cat, dog"),
    ]
    assert "--drop-near-duplicates" in page
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    sides = [{(r["label"], r["split"]), (r["other_label"], r["other_split"])} for r in rows]
    assert sides == [{("cat", "train"), ("dog", "test")}] * 2
    assert sorted(r["uri"].rsplit("/", 1)[1] for r in rows) == ["b.png", "copy.png"]


def test_extra_items_are_listed_and_deleted(run, store):
    """What is not to keep is listed by path, and deleted from the store alone."""
    listed = run(store, "--check-pixels", "--keep", "train-first", "--extra", "--paths").out.split()
    assert sorted(path.rsplit("/", 1)[1] for path in listed) == ["b.png", "copy.png", "e.png"]
    result = run(store, "--check-pixels", "--keep", "train-first", "--delete-extra")
    assert "deleted 3 items from the store" in result.err
    assert open(store).sql("select count(*) from items").rows == ((3,),)
    assert len(list((store.parent / "photos").rglob("*.png"))) == 6
    assert run(store, "--check-pixels").err.startswith("0 items in 0 groups")


def test_keep_rules(store):
    """Each rule keeps what its name says: the largest file, the most pixels, the oldest, the training item."""
    photos = store.parent / "photos"
    opened = open(store)
    found = {
        rule: next(i.uri for i in opened.duplicates(keep=rule, check_pixels=True).items if i.keep)
        for rule in ("first", "largest", "oldest", "train-first")
    }
    sizes = {p: p.stat().st_size for p in photos.rglob("*.png") if p.name in ("a.png", "b.png", "copy.png")}
    assert Path(found["largest"]).stat().st_size == max(sizes.values())
    assert found["train-first"].endswith("a.png")
    times = [(photos / name).stat().st_mtime_ns for name in ("train/cat/a.png", "test/dog/b.png", "test/dog/copy.png")]
    assert found["oldest"].endswith(["a.png", "b.png", "copy.png"][int(np.argmin(times))])


def test_json_says_what_was_compared(run, store):
    """The counts of the pixels, the chosen threshold and the names of pairs are in the JSON."""
    facts = json.loads(run(store, "--check-pixels", "--json").out)
    assert facts["pixels"]["same"] == 1
    assert facts["threshold"] == 0.95
    assert facts["across_splits"][0]["other_uri"].endswith(".png")
    assert json.loads(run(store, "--threshold", "0.9", "--json").out)["pixels"] is None


@pytest.mark.parametrize(
    ("option", "status"), [(["--threshold", "high"], 2), (["--across-splits", "--extra"], 2), (["--keep", "newest"], 1)]
)
def test_options_that_make_no_sense_are_refused(run, store, option, status):
    """A threshold that is no number and extra items of pairs are usage errors; an unknown rule is an error of ours."""
    assert run(store, *option, status=status).err
