"""Heads on disk: exact round trips, published names, refusals and exports."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from embedstore.classify import heads
from embedstore.classify.heads import head_files
from embedstore.classify.heads.numerics import softmax
from embedstore.errors import BadHead, MissingExtra, SpaceMismatch, StoreDamaged, StoreNotFound, StoreTooNew
from tests.golden import make_heads

GOLDEN = Path(make_heads.__file__).parent / "heads"
BINDING = {"space": "0123456789abcdef", "label": "species"}


@pytest.fixture(scope="module")
def rows():
    """Features and labels of three classes."""
    return make_heads.training_rows()[:2]


@pytest.fixture(scope="module")
def fitted():
    """A fitted head of every kind that can be stored."""
    return make_heads.fitted_heads()


KINDS = sorted(p.name for p in GOLDEN.iterdir() if p.is_dir())


@pytest.mark.parametrize("name", KINDS)
def test_a_head_comes_back_exactly(name, fitted, rows, tmp_path):
    """Probabilities and predictions are equal bit for bit, and nothing on disk is a pickle."""
    head = fitted[name]
    folder = heads.save(head, tmp_path / "head", BINDING)
    again = heads.load(folder, BINDING)
    assert (heads.probabilities(again, rows[0]) == heads.probabilities(head, rows[0])).all()
    assert (again.predict(rows[0]) == head.predict(rows[0])).all()
    assert sorted(p.name for p in folder.iterdir()) == ["head.json", "head.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head"]


@pytest.mark.parametrize("name", KINDS)
def test_a_published_head_loads_and_answers_the_same(name):
    """Each stored kind loads under today's Python names and gives the recorded probabilities and predictions."""
    with np.load(GOLDEN / "answers.npz", allow_pickle=False) as answers:
        X, probabilities, predictions = (answers[k] for k in ("rows", f"{name}/probabilities", f"{name}/predictions"))
    head = heads.load(GOLDEN / name, {"space": make_heads.SPACE})
    assert heads.probabilities(head, X) == pytest.approx(probabilities, abs=1e-6)
    assert np.asarray(head.predict(X)).astype(str).tolist() == predictions.astype(str).tolist()


@pytest.mark.parametrize("name", KINDS)
def test_a_head_is_stored_under_the_published_names(name, fitted, tmp_path):
    """Kinds, parameters and learned attributes of the published heads keep their names on disk; others may be added."""
    folder = heads.save(fitted[name], tmp_path / "head", BINDING)
    written, published = (json.loads((f / "head.json").read_text())["head"] for f in (folder, GOLDEN / name))
    assert without_additions(names_of(written), names_of(published)) == names_of(published)


def without_additions(written, published):
    """Return the written names without those that a published head lacks, at every depth."""
    if isinstance(published, dict):
        return {k: without_additions(written[k], v) for k, v in published.items() if k in written}
    if isinstance(published, list) and len(published) == len(written):
        return [without_additions(*pair) for pair in zip(written, published, strict=True)]
    return written


def names_of(tree):
    """Return the kinds and the names of parameters and learned attributes of a stored head, at every depth."""
    if isinstance(tree, list):
        return [names for names in map(names_of, tree) if names]
    if not isinstance(tree, dict):
        return []
    if "kind" in tree:
        named = {part: {k: names_of(v) for k, v in tree[part].items()} for part in ("params", "learned")}
        return {"kind": tree["kind"], **named}
    return [names for names in map(names_of, tree.values()) if names]


def test_the_regularization_path_and_integer_classes_are_restored(rows, tmp_path):
    """The values of C, the path and the kind of labels are equal after loading."""
    X, y = rows
    head = heads.LogisticProbe([0.01, 0.1, 1.0]).fit(X, np.searchsorted(np.unique(y), y))
    again = heads.load(heads.save(head, tmp_path / "head", {}))
    assert (again.C_, again.path_, again.Cs) == (head.C_, head.path_, [0.01, 0.1, 1.0])
    assert again.classes_.dtype == head.classes_.dtype
    assert again.estimator_.predict(X).tolist() == head.predict(X).tolist()


@pytest.fixture
def folder(fitted, tmp_path):
    """A saved prototype head."""
    return heads.save(fitted["prototype"], tmp_path / "head", BINDING)


def test_the_description_can_be_read_as_json(folder):
    """Binding, classes, dimension and versions are readable without the arrays."""
    description = json.loads((folder / "head.json").read_text())
    assert description["binding"] == BINDING
    assert (description["classes"], description["features"]) == (["ant", "bee", "wasp"], 12)
    assert "scikit-learn" in description["versions"]


def test_a_head_of_another_space_is_refused(folder):
    """The message names both spaces."""
    with pytest.raises(SpaceMismatch, match=r"0123456789abcdef.*fedcba"):
        heads.load(folder, {"space": "fedcba"})


@pytest.mark.parametrize("file", ["head.json", "head.safetensors"])
def test_a_changed_byte_is_detected_at_any_place(file, folder):
    """Every sixth byte of either file is changed alone: each time the head is refused."""
    whole = (folder / file).read_bytes()
    for at in range(0, len(whole), 6):
        damaged = bytearray(whole)
        damaged[at] ^= 0x04
        if file == "head.json" and json_equal(bytes(damaged), whole):
            continue
        (folder / file).write_bytes(damaged)
        with pytest.raises((StoreDamaged, StoreTooNew)):
            heads.load(folder)


def json_equal(a, b):
    """Return whether two texts are the same JSON: white space between tokens carries no meaning."""
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_truncated_array_file_is_detected_before_it_is_read(keep, folder):
    """Fewer bytes than were written, none at all, and a missing file are refused with both sizes."""
    arrays = folder / "head.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:keep])
    with pytest.raises(StoreDamaged, match=f"{keep} bytes"):
        heads.load(folder)
    arrays.unlink()
    with pytest.raises(StoreDamaged, match="0 bytes"):
        heads.load(folder)


def test_a_description_above_the_size_limit_is_not_read(folder, monkeypatch):
    """The size of the file is checked before its content."""
    monkeypatch.setattr(head_files, "MAX_HEAD_BYTES", 100)
    with pytest.raises(StoreDamaged, match="more than 100 bytes"):
        heads.load(folder)


def reseal(folder, change):
    """Change head.json and write a valid digest, as someone would who edits it by hand."""
    description = json.loads((folder / "head.json").read_text())
    description.pop("digest")
    change(description)
    (folder / "head.json").write_bytes(head_files.seal_description(description))


@pytest.mark.parametrize("kind", ["Popen", "LogisticProbe2", "__import__"])
def test_only_known_classes_are_built(kind, folder):
    """A description with a valid digest that names another class builds nothing."""
    reseal(folder, lambda d: d["head"].update(kind=kind))
    with pytest.raises(StoreDamaged, match="does not describe a classifier"):
        heads.load(folder)


def test_arrays_that_differ_from_the_description_are_refused(folder):
    """A described shape that the file does not hold is an error."""
    reseal(folder, lambda d: d["arrays"].update({"head.prototypes_": ["float32", [3, 13]]}))
    with pytest.raises(StoreDamaged, match="other arrays"):
        heads.load(folder)


def test_a_head_with_other_probabilities_than_when_saved_is_refused(folder):
    """The same arrays with another temperature stand for a library whose meaning has changed."""
    reseal(folder, lambda d: d["head"]["params"].update(temperature=1.0))
    with pytest.raises(StoreDamaged, match="answers differently"):
        heads.load(folder)


def test_a_later_format_is_refused(folder):
    """A format above ours asks to upgrade."""
    reseal(folder, lambda d: d.update(format=2))
    with pytest.raises(StoreTooNew, match="upgrade embedstore"):
        heads.load(folder)


@pytest.mark.parametrize("name", [".", "none"])
def test_a_folder_without_a_head_is_refused(name, tmp_path):
    """An empty folder and a missing folder hold no head."""
    with pytest.raises(StoreNotFound, match=r"head\.json is missing"):
        heads.load(tmp_path / name)


def test_an_estimator_that_cannot_be_stored_is_refused(fitted, rows, tmp_path):
    """An estimator of another class, an unfitted one and a binding that is not JSON leave no file behind."""
    from sklearn.ensemble import RandomForestClassifier

    X, y = rows
    for head, binding, message in (
        (RandomForestClassifier(n_estimators=2).fit(X, y), {}, "RandomForestClassifier, which cannot be stored"),
        (heads.NearestPrototype(), {}, "not fitted"),
        (fitted["prototype"], {"space": object()}, "not JSON"),
    ):
        with pytest.raises(BadHead, match=message):
            heads.save(head, tmp_path / "head", binding)
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_the_whole_head_or_nothing(fitted, tmp_path, monkeypatch):
    """The second head replaces the first; a full disk while writing the third leaves the second unchanged."""
    folder = heads.save(fitted["prototype"], tmp_path / "head", {"n": 1})
    heads.save(fitted["knn"], folder, {"n": 2})
    assert type(heads.load(folder, {"n": 2})).__name__ == "WeightedKNN"

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        heads.save(fitted["prototype"], folder, {"n": 3})
    monkeypatch.undo()
    assert type(heads.load(folder, {"n": 2})).__name__ == "WeightedKNN"
    assert [p.name for p in tmp_path.iterdir()] == ["head"]


@pytest.mark.parametrize("name", ["logistic", "lda", "svm", "ridge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_head_as_npz_gives_the_same_probabilities(name, classes, rows, tmp_path):
    """softmax(X W' + b) of the three arrays equals the head's probabilities, also for two classes."""
    X, y = rows[0][: 20 * classes], rows[1][: 20 * classes]
    head = heads.make_head(name).fit(X, y)
    with np.load(heads.export_npz(head, tmp_path / "head.npz"), allow_pickle=False) as data:
        logits = X @ data["weights"].T + data["intercepts"]
        assert data["classes"].tolist() == list(head.classes_)
    assert softmax(logits) == pytest.approx(heads.probabilities(head, X), abs=1e-4)


@pytest.mark.parametrize("labels", ["words", "numbers"])
@pytest.mark.parametrize("name", ["logistic", "lda", "svm", "ridge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_head_as_onnx_gives_the_same_answers(classes, name, labels, rows, tmp_path):
    """The ONNX runtime gives the probabilities and the labels of the head, for any number of rows."""
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    X, y = rows[0][: 20 * classes], rows[1][: 20 * classes]
    y = y if labels == "words" else np.searchsorted(np.unique(y), y) + 5
    head = heads.make_head(name).fit(X, y)
    path = heads.export_onnx(head, tmp_path / "head.onnx")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (len(X), 1):
        proba, label = session.run(["probabilities", "label"], {"features": X[:count]})
        assert proba == pytest.approx(heads.probabilities(head, X[:count]), abs=1e-5)
        assert [str(v) for v in label] == [str(v) for v in head.predict(X[:count])]


def test_a_calibrated_linear_head_is_exported_with_its_temperature(rows, tmp_path):
    """Weights and intercepts divided by the temperature give the calibrated probabilities."""
    X, y = rows
    head = heads.CalibratedHead(heads.make_head("svm").fit(X[::2], y[::2])).fit(X[1::2], y[1::2])
    with np.load(heads.export_npz(head, tmp_path / "head.npz"), allow_pickle=False) as data:
        logits = X @ data["weights"].T + data["intercepts"]
    assert softmax(logits) == pytest.approx(head.predict_proba(X), abs=1e-5)


def test_export_to_onnx_without_its_package_names_the_cure(fitted, tmp_path, monkeypatch):
    """The error names the command that installs the package; no file is left behind."""
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match="pip install onnx"):
        heads.export_onnx(fitted["logistic"], tmp_path / "head.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_not_linear_cannot_be_exported(fitted, tmp_path):
    """A nearest-neighbor head has no weights."""
    with pytest.raises(BadHead, match="not a linear head"):
        heads.export_npz(fitted["knn"], tmp_path / "head.npz")
