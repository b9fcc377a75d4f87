"""A checkup finds the faults that were put into a set, and says what it looked at."""

import json
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image, ImageFilter

from embedstore import create, open
from embedstore.cli import main
from embedstore.errors import BadOption
from embedstore.media.image.quality import Fault, picture_facts
from embedstore.operations.findings import delete_options, listed_items, listed_note
from tests.helpers.natural_images import natural_image

FAULTS = {
    Fault.DARK: lambda image: image.point(lambda level: level // 5),
    Fault.BRIGHT: lambda image: image.point(lambda level: 246 + level // 29),
    Fault.BLURRED: lambda image: image.resize((512, 512)).filter(ImageFilter.GaussianBlur(12)),
    Fault.EMPTY: lambda image: Image.new("RGB", (64, 64), (90, 120, 200)),
    Fault.GRAY: lambda image: image.convert("L"),
    Fault.ODD_SHAPE: lambda image: image.resize((500, 100)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_seen_alone(fault):
    """Twenty good images that get one fault each are reported with that fault and no other."""
    for seed in range(20):
        assert picture_facts(FAULTS[fault](natural_image(seed))).faults == (fault,)


def test_good_images_have_no_fault():
    """Twenty images with detail at every scale have none, at two sizes."""
    for seed in range(20):
        image = natural_image(seed)
        assert [picture_facts(i).faults for i in (image, image.resize((32, 32)))] == [()] * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty-four images: one in both splits, one twice with two labels, one dark, one that is no image."""
    root = tmp_path_factory.mktemp("set")
    photos = root / "photos"
    for n in range(20):
        path = photos / ("train" if n % 2 else "test") / ("cat" if n % 4 < 2 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        natural_image(n).save(path)
    natural_image(0).save(photos / "train" / "cat" / "leak.png")  # 0.png is a cat of the test split
    natural_image(1).save(photos / "train" / "dog" / "other.png")  # 1.png is a cat
    FAULTS[Fault.DARK](natural_image(50)).save(photos / "train" / "dog" / "night.png")
    (photos / "train" / "dog" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    create(root / "s", "tiny").embed(photos)
    return root


def names(store, items):
    """Return the names of the files of items."""
    return {uri.rsplit("/", 1)[1] for uri in store.item_uris(list(items)).values()}


def test_findings_are_listed_the_worst_first(folder):
    """Conflicts and leaks come before failures, and these before copies and dark pictures."""
    store = open(folder / "s")
    report = store.checkup()
    by_check = {}
    for finding in report.findings:
        by_check.setdefault((finding.check, finding.severity), finding)
    assert [f.severity for f in report.findings] == sorted((f.severity for f in report.findings), reverse=True)
    assert names(store, by_check["labels of equal files", 3].items) == {"1.png", "other.png"}
    assert names(store, by_check["copies", 3].items) == {"0.png", "leak.png"}
    assert by_check["failures", 2].count == 1
    assert names(store, by_check["pictures", 1].items) == {"night.png"}
    assert report.checks["pictures"] == "23 of 23 images"


def test_conflicts_are_typed(folder):
    """Both labels and both items are there, and a column that does not exist has none."""
    store = open(folder / "s")
    (conflict,) = store.label_conflicts().conflicts
    assert conflict.different_labels == ("cat", "dog")
    assert names(store, conflict.items) == {"1.png", "other.png"}
    assert store.label_conflicts("nothing").sentence is None


@pytest.mark.parametrize("use", ["info", "label_errors", "probe"])
def test_conflicts_are_notices(folder, use):
    """Counts, label errors and probes say it with both labels, once."""
    store = open(folder / "s")
    for _ in range(2):
        getattr(store, use)(**({"folds": 2} if use == "label_errors" else {}))
    assert [n for n in store.notices if "cat and dog" in n and "equal bytes" in n] == store.notices[-1:]


def test_embedding_says_it_too(folder, tmp_path):
    """The run that adds the second label names both."""
    store = create(tmp_path / "s", "tiny")
    store.embed(folder / "photos")
    assert any("cat and dog" in notice for notice in store.notices)


def test_time_is_bounded_and_what_did_not_run_is_named(folder):
    """With next to no time, later checks do not run and the report says so."""
    report = open(folder / "s").checkup(budget=1e-9)
    assert set(report.checks.values()) == {"not run: no time was left"}
    assert report.findings == ()


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_a_budget_is_above_zero(folder, budget):
    """No time at all is refused."""
    with pytest.raises(BadOption, match="budget"):
        open(folder / "s").checkup(budget=budget)


def test_the_verb_prints_and_writes_the_findings(folder, tmp_path, capfd):
    """Text, JSON and page have the same findings; the page loads nothing from elsewhere."""
    arguments = ["checkup", str(folder / "s"), "--budget", "5m"]
    with pytest.raises(SystemExit):
        main([*arguments, "-o", str(tmp_path / "page.html")])
    text = capfd.readouterr().out
    with pytest.raises(SystemExit):
        main([*arguments, "--json"])
    findings = json.loads(capfd.readouterr().out)["findings"]
    page = (tmp_path / "page.html").read_text()
    assert len(findings) >= 4
    assert all(f["text"] in text for f in findings)
    cures = [f["cure"] for f in findings if f["cure"]]
    assert all(f"then, if it is so: {cure}" in text for cure in cures)
    assert page.count("<code>") == len(findings) + len(cures)
    assert page.count("<img") == sum(len(f["items"][:8]) for f in findings)
    assert "1 of 23 images is dark" in page
    assert not re.search(r"https?://", page)


def test_the_cures_correct_what_was_found(folder, tmp_path):
    """After the commands of the page, run as they are printed, nothing that a command can correct is found again."""
    path = shutil.copytree(folder / "s", tmp_path / "s")
    found = [f for f in open(path).checkup().findings if f.cure and "label-review" not in f.cure]
    cures = [f.cure for f in found if f.check != "failures"]
    assert {shlex.split(cure)[1] for cure in cures} == {"duplicates", "edit", "delete"}
    for cure in cures:
        with pytest.raises(SystemExit, match="0"):
            main(shlex.split(cure)[1:])
    left = {f.check for f in open(path).checkup().findings if "label-review" not in f.cure}
    assert left <= {"failures"}
    assert open(path).info().items == 20 + 3 - 2 - 1


@pytest.mark.parametrize("how", ["repaired", "deleted"])
def test_failures_are_gone_once_their_files_are_and_the_source_is_embedded_again(folder, tmp_path, how, capfd):
    """The finding counts the reasons and names both commands; after the second one it is found no more."""
    photos = shutil.copytree(folder / "photos", tmp_path / "my photos")
    (photos / "train" / "cat" / "empty.png").touch()
    store = create(tmp_path / "my store", "tiny")
    store.embed(photos)
    (finding,) = (f for f in store.checkup().findings if f.check == "failures")
    assert finding.text == (
        "2 images could not be embedded: 1 corrupt, 1 empty; repair or delete the files, then embed them again"
    )
    with pytest.raises(SystemExit, match="0"):
        main(shlex.split(finding.command)[1:])
    assert capfd.readouterr().out.count(".png") == 2
    for path in (photos / "train" / "dog" / "broken.png", photos / "train" / "cat" / "empty.png"):
        if how == "deleted":
            path.unlink()
        else:
            natural_image(len(path.name)).save(path)
    with pytest.raises(SystemExit, match="0"):
        main(shlex.split(finding.cure)[1:])
    assert [f for f in open(tmp_path / "my store").checkup().findings if f.check == "failures"] == []
    assert open(tmp_path / "my store").info().items == (23 if how == "deleted" else 25)


def test_a_command_for_many_items_says_that_it_lists_some():
    """Twenty ids are in a command; of more it says so, and offers no deletion of a part."""
    assert (listed_note(range(20)), listed_items(range(1, 4))) == ("", "1,2,3")
    assert listed_note(range(21)) == "; the command lists 20 of them"
    assert delete_options([3, 5]) == '--where "item in (3,5)"'
    assert delete_options(range(21)) == ""


def test_faults_that_most_images_have_are_not_findings(tmp_path):
    """In a set of gray images, being gray is how the images are."""
    for n in range(12):
        natural_image(n).convert("L").save(tmp_path / f"{n}.png")
    store = create(tmp_path / "s")
    store.add_vectors(np.eye(12, dtype=np.float32), {"uri": [str(tmp_path / f"{n}.png") for n in range(12)]})
    assert [f for f in store.checkup().findings if f.check == "pictures"] == []
