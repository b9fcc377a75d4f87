"""A checkup finds faults of classes and columns in a store, and its commands show them."""

import shlex

import numpy as np
import pytest
from PIL import Image

from embedstore import create, open
from embedstore.cli import main
from embedstore.media.image.quality import Fault
from tests.helpers.natural_images import natural_image
from tests.helpers.text_pages import text_page


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of six groups of vectors: two of one name, two names for one, two that a camera tells apart."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(6), 80)
    means = rng.normal(size=(6, 32)) * 2.5
    means[5] = means[4] + rng.normal(size=32) * 0.25
    X = means[groups] + rng.normal(size=(480, 32))
    names = np.array(["cat", "cat", "dog", "cow", "ant", "bee"])[groups]
    names[(groups == 3) & (rng.random(480) < 0.5)] = "ox"
    camera = np.where(rng.random(480) < 0.02, "phone", np.char.add("camera ", names.astype(str)))
    X = np.concatenate([X, rng.normal(size=(2, 32)) * 4]).astype(np.float32)
    metadata = {
        "uri": [f"/photos/{n}.jpg" for n in range(482)],
        "label": [*names.tolist(), "dog", "dog"],
        "camera": [*camera.tolist(), "phone", "phone"],
        "shade": rng.random(482).tolist(),
    }
    path = tmp_path_factory.mktemp("classes") / "s"
    create(path).add_vectors(X, metadata)
    return open(path)


@pytest.fixture(scope="module")
def findings(store):
    """The texts of the findings of the classes and columns."""
    report = store.checkup(budget=600)
    return {f.check + str(n): f for n, f in enumerate(report.findings) if f.check in ("classes", "columns")}, report


def text_with(findings, words):
    """Return the one finding whose text has some words."""
    (found,) = [f for f in findings[0].values() if words in f.text]
    return found


def test_each_fault_is_found_once(findings):
    """Two clusters, two names, two outliers and the camera are reported; shade and the other classes are not."""
    assert (
        "1 class is made of two clusters and may be two classes: cat (80 and 80)" in text_with(findings, "two cl").text
    )
    assert "cow and ox" in text_with(findings, "one class of two names").text
    assert set(text_with(findings, "unlike all others").items) == {481, 482}
    assert text_with(findings, "camera predicts label better than the vectors do").severity == 2
    assert len(findings[0]) == 4


def test_what_was_looked_at_is_said(findings):
    """The report names the number of items and classes."""
    assert findings[1].checks["classes"] == "482 items, of the 6 of 6 classes with at least 20"
    assert findings[1].checks["columns"].startswith("482 items")


def test_the_commands_run(findings, capfd):
    """Every command that a finding gives shows something."""
    for finding in findings[0].values():
        with pytest.raises(SystemExit) as stopped:
            main(shlex.split(finding.command)[1:])
        assert stopped.value.code == 0, finding.command
        assert capfd.readouterr().out.strip()


def test_labels_that_are_no_classes_are_not_looked_at(store):
    """Numbers have no classes, and a column that does not exist has none."""
    checks = store.checkup("shade", budget=600).checks
    assert checks["classes"].startswith("not run: ")
    assert checks["columns"] == "not run: the labels were not checked"


def test_tiny_pictures_and_scans_of_text_are_found(tmp_path):
    """Two thumbnails and two pages among 14 photos are found, each with its name, and the size tells no label."""
    for n in range(14):
        natural_image(n).save(tmp_path / f"photo{n}.png")
    for n in range(2):
        natural_image(90 + n).resize((40, 40), Image.Resampling.BOX).save(tmp_path / f"tiny{n}.png")
        text_page(n).save(tmp_path / f"page{n}.png")
    store = create(tmp_path / "s", "tiny")
    store.embed(tmp_path)
    found = {f.check: f for f in store.checkup(budget=600).findings if f.check in ("sizes", "pictures")}
    names = {
        check: {uri.rsplit("/", 1)[1][:4] for uri in store.item_uris(f.items).values()} for check, f in found.items()
    }
    assert names == {"sizes": {"tiny"}, "pictures": {"page"}}
    assert found["pictures"].text.endswith(f"are {Fault.TEXT}")


@pytest.mark.parametrize("form", ["%Y:%m:%d %H:%M:%S", "%Y-%m-%d", "%d.%m.%Y"])
def test_dates_are_compared_as_times(tmp_path, form):
    """Dates as text, in the form of EXIF and others, tell the label if each class was taken in its own month."""
    import datetime

    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(2), 60)
    start = datetime.datetime(2024, 1, 1)
    days = [start + datetime.timedelta(days=float(31 * label + rng.uniform(0, 30)), hours=1) for label in y.tolist()]
    metadata = {
        "uri": [f"/p/{n}.jpg" for n in range(120)],
        "label": [("ant", "bee")[label] for label in y],
        "taken": [day.strftime(form) for day in days],
    }
    store = create(tmp_path / "s")
    store.add_vectors(rng.normal(size=(120, 16)).astype(np.float32), metadata)
    (found,) = [f for f in store.checkup(budget=600).findings if f.check == "columns"]
    assert found.text.startswith("taken predicts label better")
