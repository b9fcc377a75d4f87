"""The quickstart, the first command of the README, which needs no download."""

import csv
import json
from pathlib import Path

import pytest

import embedstore as es
from tests.cli.test_cli import run
from tests.conftest import picture


def steps_of(out):
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def steps_of_verb(steps, verb):
    """Return the steps of one verb."""
    return [s for s in steps if s["command"].startswith(f"embedstore {verb} ")]


def files_below(folder):
    return {p.relative_to(folder): p.stat().st_mtime_ns for p in Path(folder).rglob("*") if p.is_file()}


def test_the_quickstart_runs_every_step_in_order(quickstart):
    """It embeds 1,500 scenes and 1,797 scanned digits, searches, classifies and draws the map."""
    verbs = [s["command"].split()[1] for s in quickstart.steps]
    assert verbs == ["embed", "index", *["search"] * 4, "probe", "knn", "zero-shot", "map"]
    report = steps_of_verb(quickstart.steps, "embed")[0]["result"]
    assert (report["found"], report["embedded"], report["failures"]) == (3297, 3297, 0)


def test_text_queries_find_matching_images(quickstart):
    """By the manifest at least nine of the ten best hits of each of the three queries match."""
    images = quickstart.folder / "images"
    with (images / "collection.csv").open(encoding="utf-8") as f:
        truth = {str(images / row["uri"]): row for row in csv.DictReader(f)}

    def hits_of(text):
        (step,) = (s for s in steps_of_verb(quickstart.steps, "search") if f'"{text}"' in s["command"])
        return [truth[h["uri"]] for h in step["result"]["hits"]]

    hearts = hits_of("a red heart")
    assert sum(r["label"] == "heart" for r in hearts) >= 9
    assert [r["colour"] for r in hearts[:3]] == ["red"] * 3
    assert sum(r["label"] == "digit 7" for r in hits_of("the digit seven")) >= 9
    assert sum(r["kind"] == "count" and int(r["number"]) >= 5 for r in hits_of("six small circles")) >= 9


def test_three_classifiers_are_far_better_than_chance(quickstart):
    """Logistic regression, kNN and zero-shot on twenty-six classes are judged on the same held-out items."""
    accuracy = {}
    for verb in ("probe", "knn", "zero-shot"):
        (step,) = steps_of_verb(quickstart.steps, verb)
        accuracy[verb] = step["result"]["metrics"]["accuracy"]["value"]
        assert step["result"]["held_out"] == 633
    assert accuracy == pytest.approx({"probe": 0.90, "knn": 0.83, "zero-shot": 0.83}, abs=0.02)


def test_pages_and_images_are_written(quickstart):
    """There is a contact sheet of each search and a map, as HTML and PNG, each with the images inside."""
    files = [Path(f) for s in quickstart.steps for f in s["files"]]
    assert len(files) == 10
    for file in files:
        assert file.exists()
        assert file.parent == quickstart.folder
        if file.suffix == ".html":
            page = file.read_text(encoding="utf-8")
            assert page.count("/9j/") >= (1000 if "map" in file.name else 10)
            assert "http://" not in page
            assert "https://" not in page


def test_a_second_run_embeds_nothing_and_gives_the_same_results(quickstart):
    """No image and no vector is written again."""
    before = files_below(quickstart.folder / "images")
    again = steps_of(run("quickstart", "-o", quickstart.folder, "--json", timeout=280))
    assert steps_of_verb(again, "embed")[0]["result"]["embedded"] == 0
    assert files_below(quickstart.folder / "images").keys() == before.keys()
    for old, new in zip(steps_of_verb(quickstart.steps, "search"), steps_of_verb(again, "search"), strict=True):
        assert [h["item"] for h in old["result"]["hits"]] == [h["item"] for h in new["result"]["hits"]]


def test_nothing_is_written_outside_the_folder(quickstart):
    """The working folder holds the quickstart folder and nothing else."""
    assert [p.name for p in quickstart.folder.parent.iterdir()] == [quickstart.folder.name]


def test_the_quickstart_runs_on_a_users_own_folder(tmp_path):
    """The photos are embedded, searched and probed, and nothing is written among them."""
    photos = tmp_path / "photos"
    for n in range(24):
        path = photos / ("cat" if n < 12 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    before = files_below(photos)
    steps = steps_of(run("quickstart", photos, "-o", tmp_path / "out", "--json", timeout=280))
    assert steps_of_verb(steps, "embed")[0]["result"]["embedded"] == 24
    assert len(steps_of_verb(steps, "search")) == 4
    assert len(steps_of_verb(steps, "probe")) == 1
    assert files_below(photos) == before
    store = es.open(tmp_path / "out" / "yours.store")
    assert store.info().spaces[0].backbone == "embedstore/tiny"


def test_a_folder_without_labels_is_searched_and_mapped(tmp_path):
    """There is no probe, a note says so, and there is no error."""
    for n in range(8):
        path = tmp_path / "photos" / f"{n}.png"
        path.parent.mkdir(exist_ok=True)
        picture(n).save(path)
    out = run("quickstart", tmp_path / "photos", "-o", tmp_path / "out", timeout=280)
    assert out.returncode == 0, out.stderr
    assert "nothing to probe" in out.stderr
    assert "$ embedstore map" in out.stdout


def test_a_missing_folder_is_named_in_the_error(tmp_path):
    """The error is one line, and the exit status is 1."""
    out = run("quickstart", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert out.returncode == 1
    assert str(tmp_path / "nowhere") in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1
