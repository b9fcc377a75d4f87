"""Heads on disk: exact round trips, refusals, exports."""

import json
import os

import numpy as np
import pytest

from embedstore.classify import heads
from embedstore.classify.heads import serialization
from embedstore.errors import BadHead, MissingExtra, SpaceMismatch, StoreDamaged, StoreNotFound, StoreTooNew

BINDING = {"space": "0123456789abcdef", "label": "species"}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    y = np.repeat(["ant", "bee", "wasp"], 20)
    X = (np.eye(3, 12)[np.repeat(np.arange(3), 20)] * 2 + rng.standard_normal((60, 12))).astype(np.float32)
    return X, y


def made(name, rows):
    """A fitted head of every kind that can be stored."""
    X, y = rows
    logistic = heads.LogisticProbe([0.01, 0.1, 1.0]).fit(X, y)
    wrappers = {
        "calibrated": lambda: heads.Calibrated(logistic).fit(X, y),
        "isotonic": lambda: heads.Calibrated(logistic, "isotonic").fit(X, y),
        "abstain": lambda: heads.Abstain(heads.Calibrated(logistic).fit(X, y)).fit(X, y),
        "conformal": lambda: heads.ConformalSets(logistic).fit(X, y),
        "zero-shot": lambda: heads.ZeroShot(np.eye(3, 12, dtype=np.float32), np.unique(y)),
        "tip": lambda: heads.TipAdapter(np.eye(3, 12), np.unique(y), fine_tune=True).fit(X, y),
        "blend": lambda: heads.PromptBlend(np.eye(3, 12), np.unique(y)).fit(X, y),
        "plain": lambda: logistic.estimator_,
    }
    return wrappers[name]() if name in wrappers else heads.make_head(name).fit(X, y)


@pytest.mark.parametrize(
    "name",
    [*heads.HEAD_NAMES, "calibrated", "isotonic", "abstain", "conformal", "zero-shot", "tip", "blend", "plain"],
)
def test_a_head_comes_back_exactly(name, rows, tmp_path):
    """Probabilities and predictions are equal bit for bit, and nothing on disk is a pickle."""
    head = made(name, rows)
    folder = heads.save(head, tmp_path / "head", BINDING)
    again = heads.load(folder, BINDING)
    assert (heads.probabilities(again, rows[0]) == heads.probabilities(head, rows[0])).all()
    assert (again.predict(rows[0]) == head.predict(rows[0])).all()
    assert sorted(p.name for p in folder.iterdir()) == ["head.json", "head.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head"]


def test_what_was_learned_comes_back_too(rows, tmp_path):
    """The C path, the labels' kind, and numbers as classes."""
    X, y = rows
    head = heads.LogisticProbe([0.01, 0.1, 1.0]).fit(X, np.searchsorted(np.unique(y), y))
    again = heads.load(heads.save(head, tmp_path / "head", {}))
    assert (again.C_, again.path_, again.Cs) == (head.C_, head.path_, [0.01, 0.1, 1.0])
    assert again.classes_.dtype == head.classes_.dtype
    assert again.estimator_.predict(X).tolist() == head.predict(X).tolist()


def test_a_head_says_what_it_is_bound_to(rows, tmp_path):
    """Binding, classes and versions are readable without reading the arrays."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    facts = json.loads((folder / "head.json").read_text())
    assert heads.read_binding(folder) == BINDING
    assert (facts["classes"], facts["features"]) == (["ant", "bee", "wasp"], 12)
    assert "scikit-learn" in facts["versions"]


def test_a_head_of_another_space_is_refused(rows, tmp_path):
    """The message names both spaces."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    with pytest.raises(SpaceMismatch, match=r"0123456789abcdef.*fedcba"):
        heads.load(folder, {"space": "fedcba"})


@pytest.mark.parametrize("file", ["head.json", "head.safetensors"])
def test_a_flipped_byte_is_noticed_wherever_it_is(file, rows, tmp_path):
    """Every sixth byte of either file, changed alone: each time the head is refused."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
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
    """White space between JSON tokens may change: it says nothing."""
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_cut_file_is_noticed_before_it_is_read(keep, rows, tmp_path):
    """Fewer bytes than were written, down to none, and a missing file."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    arrays = folder / "head.safetensors"
    arrays.write_bytes(arrays.read_bytes()[:keep])
    with pytest.raises(StoreDamaged, match=f"{keep} bytes"):
        heads.load(folder)
    arrays.unlink()
    with pytest.raises(StoreDamaged, match="0 bytes"):
        heads.load(folder)


def test_a_description_that_is_absurdly_large_is_not_read(rows, tmp_path, monkeypatch):
    """The size is looked at first."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    monkeypatch.setattr(serialization, "_MAX_JSON", 100)
    with pytest.raises(StoreDamaged, match="at most 100"):
        heads.load(folder)


def resealed(folder, change):
    """Change head.json and give it a right digest, as someone would who edits it by hand."""
    facts = json.loads((folder / "head.json").read_text())
    facts.pop("digest")
    change(facts)
    (folder / "head.json").write_bytes(serialization._sealed(facts))


def test_only_known_classes_are_made(rows, tmp_path):
    """A description that names another class, even with a right digest, makes nothing."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    for kind in ("Popen", "LogisticProbe2", "__import__"):
        resealed(folder, lambda facts, kind=kind: facts["head"].update(kind=kind))
        with pytest.raises(StoreDamaged, match="does not describe a classifier"):
            heads.load(folder)


def test_arrays_that_are_others_than_described_are_refused(rows, tmp_path):
    """A shape in the description that the file does not have."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    resealed(folder, lambda facts: facts["arrays"].update({"head.prototypes_": ["float32", [3, 13]]}))
    with pytest.raises(StoreDamaged, match="other arrays"):
        heads.load(folder)


def test_a_head_that_answers_differently_is_refused(rows, tmp_path):
    """The same arrays under another temperature, as a library of other meaning would read them: noticed."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    resealed(folder, lambda facts: facts["head"]["params"].update(temperature=1.0))
    with pytest.raises(StoreDamaged, match="answers differently"):
        heads.load(folder)


def test_a_later_format_is_refused(rows, tmp_path):
    """A format above ours says to upgrade."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", BINDING)
    resealed(folder, lambda facts: facts.update(format=2))
    with pytest.raises(StoreTooNew, match="upgrade embedstore"):
        heads.load(folder)


def test_no_head_there_is_said(tmp_path):
    """An empty folder and no folder."""
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(StoreNotFound, match=r"head\.json is missing"):
            heads.load(folder)


def test_what_cannot_be_stored_is_refused(rows, tmp_path):
    """An estimator of another library, one that is not fitted, a binding that is no JSON; nothing is left behind."""
    from sklearn.ensemble import RandomForestClassifier

    X, y = rows
    for head, facts, words in (
        (RandomForestClassifier(n_estimators=2).fit(X, y), {}, "RandomForestClassifier, which cannot be stored"),
        (heads.NearestPrototype(), {}, "not fitted"),
        (made("prototype", rows), {"space": object()}, "no JSON"),
    ):
        with pytest.raises(BadHead, match=words):
            heads.save(head, tmp_path / "head", facts)
    assert list(tmp_path.iterdir()) == []


def test_saving_again_replaces_all_or_nothing(rows, tmp_path, monkeypatch):
    """The second head takes the first one's place; a failure while writing leaves the first one whole."""
    folder = heads.save(made("prototype", rows), tmp_path / "head", {"n": 1})
    heads.save(made("knn", rows), folder, {"n": 2})
    assert type(heads.load(folder, {"n": 2})).__name__ == "WeightedKNN"

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        heads.save(made("prototype", rows), folder, {"n": 3})
    monkeypatch.undo()
    assert type(heads.load(folder, {"n": 2})).__name__ == "WeightedKNN"
    assert [p.name for p in tmp_path.iterdir()] == ["head"]


@pytest.mark.parametrize("name", ["logistic", "lda", "svm", "ridge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_head_as_npz_gives_the_same_probabilities(name, classes, rows, tmp_path):
    """softmax(X W' + b) of the three arrays, also for two classes."""
    X, y = rows[0][: 20 * classes], rows[1][: 20 * classes]
    head = heads.make_head(name).fit(X, y)
    with np.load(heads.export_npz(head, tmp_path / "head.npz"), allow_pickle=False) as data:
        logits = X @ data["weights"].T + data["intercepts"]
        assert data["classes"].tolist() == list(head.classes_)
    proba = np.exp(logits - logits.max(1, keepdims=True))
    assert proba / proba.sum(1, keepdims=True) == pytest.approx(heads.probabilities(head, X), abs=1e-4)


@pytest.mark.parametrize("labels", ["words", "numbers"])
@pytest.mark.parametrize("name", ["logistic", "lda", "svm", "ridge"])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_linear_head_as_onnx_gives_the_same_answers(classes, name, labels, rows, tmp_path):
    """onnxruntime gives the probabilities and the labels of the head, for any number of rows."""
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


def test_a_calibrated_linear_head_is_exported_as_it_answers(rows, tmp_path):
    """Weights and intercepts divided by the temperature give the calibrated probabilities."""
    X, y = rows
    head = heads.Calibrated(heads.make_head("svm").fit(X[::2], y[::2])).fit(X[1::2], y[1::2])
    with np.load(heads.export_npz(head, tmp_path / "head.npz"), allow_pickle=False) as data:
        logits = X @ data["weights"].T + data["intercepts"]
    proba = np.exp(logits - logits.max(1, keepdims=True))
    assert proba / proba.sum(1, keepdims=True) == pytest.approx(head.predict_proba(X), abs=1e-5)


def test_onnx_without_its_package_names_the_cure(rows, tmp_path, monkeypatch):
    """One line says what to install; no half-written file stays."""
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"embedstore\[onnx\]"):
        heads.export_onnx(made("logistic", rows), tmp_path / "head.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_head_that_is_not_linear_cannot_be_exported(rows, tmp_path):
    """Neighbours have no weights."""
    with pytest.raises(BadHead, match="not a linear head"):
        heads.export_npz(made("knn", rows), tmp_path / "head.npz")
