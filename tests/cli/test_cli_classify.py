"""Verbs that classify and label, as a user runs them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from embedstore.cli import main
from tests.helpers.clusters import clusters, store_of


@pytest.fixture
def run(capsys):
    """Run a command in this process: output, error output and exit status."""

    def one(*arguments):
        status = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as e:
            status = e.code or 0
        out = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=out.out, stderr=out.err)

    return one


@pytest.fixture
def ok(run):
    """Return the JSON document that a successful command prints."""

    def one(*arguments):
        out = run(*arguments, "--json")
        assert out.returncode == 0, out.stderr
        return json.loads(out.stdout)

    return one


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """200 rows of three classes, every tenth without a label, two with a wrong one."""
    X, y = clusters(200, noise=1.3)
    labels = [None if n % 10 == 0 else label for n, label in enumerate(y)]
    for n in (1, 2):
        labels[n] = next(c for c in ("c0", "c1") if c != labels[n])
    return store_of(tmp_path_factory.mktemp("cli") / "s", X, label=labels).path


def test_a_saved_head_predicts_and_filters(store, tmp_path, ok):
    """probe --save, heads, predict, search --where and export-head use the same head."""
    page = tmp_path / "r" / "report.html"
    probe = ok("probe", store, "label", "--head", "ridge", "--folds", 3, "--save", "three", "-o", page)
    assert probe["split"] == "3 folds"
    assert probe["unlabelled"] == 20
    assert page.read_text().startswith("<!doctype html>")
    (head,) = ok("heads", store)
    assert (head["head"], head["kind"], head["space"], head["classes"]) == ("three", "ridge", "numbers", 3)
    assert ok("predict", store, "three")["items"] == 200
    hits = ok("search", store, "--item", 2, "-k", 200, "--where", "pred.three = 'c1'")["hits"]
    predicted = ok("sql", store, "SELECT count(*) AS n FROM predictions WHERE label = 'c1'")[0]["n"]
    assert len(hits) == predicted > 20
    ok("export-head", store, "three", tmp_path / "three.npz")
    assert np.load(tmp_path / "three.npz")["weights"].shape == (3, 16)
    assert ok("info", store)["heads"][0]["head"] == "three"


def test_a_given_c_is_used(store, ok, run):
    """One value needs no choice, a list is the path, and text is refused in one line."""
    assert ok("probe", store, "label", "--head-arg", "Cs=[10]")["c_path"] == []
    found = ok("probe", store, "label", "--head-arg", "Cs=[0.1, 10]")
    assert [p["C"] for p in found["c_path"]] == [0.1, 10]
    wrong = run("probe", store, "label", "--head-arg", "Cs=much")
    assert wrong.returncode == 1
    assert len(wrong.stderr.strip().splitlines()) == 1


def test_a_learning_curve_and_a_comparison_of_heads(store, ok, run):
    """The points are the given numbers of labels and all; the second head has a p-value."""
    curve = ok("learning-curve", store, "label", "--head", "prototype", "--labels-per-class", "1,4", "--repeats", 2)
    assert [p["shots"] for p in curve["points"]] == [1, 4, None]
    found = ok("compare-heads", store, "label", "--heads", "ridge,prototype")["contestants"]
    assert found[0]["accuracy"] >= found[1]["accuracy"]
    assert found[0]["p_value"] is None
    assert 0 <= found[1]["p_value"] <= 1
    text = run("compare-heads", store, "label", "--heads", "ridge,knn")
    assert "95% interval" in text.stdout
    assert "McNemar" in text.stderr


def test_label_errors_and_suggestions(store, tmp_path, ok, run):
    """Each is listed with its uri, and drawn on a contact sheet."""
    found = ok("label-errors", store, "label", "--limit", 3, "-o", tmp_path / "s.html")
    assert len(found["suspects"]) == min(3, found["found"]) > 0
    assert found["suspects"][0]["uri"].startswith("/")
    assert f"{found['found']} of " in (tmp_path / "s.html").read_text()
    assert (
        ok("label-errors", store, "label", "--top", 60)["suspects"]
        == ok("label-errors", store, "label", "--all", "--limit", 60)["suspects"]
    )
    suggested = ok("suggest-labels", store, "label", "-k", 4, "-o", tmp_path / "n.html")
    items = [s["item"] for s in suggested["suggestions"]]
    assert len(items) == 4
    assert all((i - 1) % 10 == 0 for i in items)
    assert (tmp_path / "s.html").exists()
    assert (tmp_path / "n.html").exists()
    assert "every item that matches has a label" in run("suggest-labels", store, "--where", "label = 'c1'").stderr


def test_classes_are_read_from_files(store, tmp_path, ok):
    """Class names from a text file and their vectors from a .npy file, for zero-shot and few-shot."""
    names, vectors = tmp_path / "names.txt", tmp_path / "words.npy"
    names.write_text("c0\nc1\n\nc2\n")
    np.save(vectors, clusters(3, noise=0)[0])
    words = ("--classes", names, "--class-vectors", vectors)
    zero = ok("zero-shot", store, "label", *words)
    few = ok("few-shot", store, "label", "--shots", 4, "--head", "blend", "--learning-curve", *words)
    assert (zero["split"], zero["held_out"], zero["classes"]) == ("all", 180, ["c0", "c1", "c2"])
    assert few["shots"] == 4
    assert [p["shots"] for p in few["curve"]] == [1, 2, 4, 8, 16, None]
    assert few["train"] == 12


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("probe", "--head", "forest"), 1, "no head 'forest'"),
        (("probe", "--calibrate", "platt"), 1, "temperature or isotonic"),
        (("probe", "--head", "knn", "--head-arg", "k"), 2, "K=V"),
        (("learning-curve", "--labels-per-class", "one"), 2, "integers such as"),
        (("predict", "nothing"), 1, "has no head 'nothing'"),
        (("zero-shot", "--classes", "a,b"), 1, "has no text tower"),
        (("zero-shot", "--prompts", "missing.json"), 2, "not a JSON file"),
        (("label-errors", "lable"), 1, "did you mean label"),
    ],
)
def test_a_wrong_argument_is_one_error(store, arguments, status, words, run):
    """There is no traceback; the status is 1 for an error of the store and 2 for usage."""
    verb, *rest = arguments
    found = run(verb, store, *rest)
    assert found.returncode == status
    assert words in " ".join(found.stderr.split()).replace("│ ", "")
    assert "Traceback" not in found.stderr


def test_a_report_is_readable_text(store, run):
    """It has every metric with its interval; notes are printed to stderr, so that stdout can be piped."""
    found = run("probe", store, "label", "--head", "prototype", "--near-duplicate-threshold", "0.9")
    assert found.returncode == 0
    assert found.stdout.startswith("prototype on label in space numbers: ")
    assert "mean_per_class_recall" in found.stdout
    assert "20 items have no label" in found.stderr
    assert json.loads(run("probe", store, "label", "--head", "prototype", "--json").stdout)["accuracy"] > 0.5


def test_labels_are_confirmed_from_the_command_line(tmp_path, run):
    """--confirm records ids, and the next list says how many labels it leaves out."""
    X, y = clusters(90, noise=1.6)
    path = str(store_of(tmp_path / "s", X, label=y).path)
    confirmed = run("label-errors", path, "label", "--confirm", "3,5")
    assert confirmed.returncode == 0, confirmed.stderr
    facts = json.loads(run("label-errors", path, "label", "--all", "--limit", "90", "--json").stdout)
    assert facts["confirmed"] == 2
    assert {s["item"] for s in facts["suspects"]} == set(range(1, 91)) - {3, 5}
