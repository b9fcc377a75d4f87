"""The protocols of sound: equal to networks that are trained here with PyTorch as the publications describe it."""

import random

import numpy as np
import pytest
import torch
from sklearn.model_selection import ParameterGrid
from torch import nn

import embedstore as es
from embedstore.classify.protocols import sound_probes
from embedstore.errors import BadOption, LabelError
from tests.helpers.clusters import clusters, store_of

CLASSES, DIM = 3, 6


def data_set(count=75, *, val=True, noise=2.0, seed=0):
    """Vectors of three classes with splits, as arrays by split and as columns."""
    X, y = clusters(count, CLASSES, dim=DIM, noise=noise, seed=seed)
    parts = ("train", "train", "train", "val", "test") if val else ("train", "train", "train", "train", "test")
    split = [parts[n // CLASSES % 5] for n in range(count)]
    y, of = np.array(y), np.array(split)
    return {s: (X[of == s], y[of == s]) for s in set(split)}, X, {"label": y.tolist(), "split": split}


def reference(points, rows, *, hidden, every, batch, most, patience=20):
    """Train each ``(layers, rate, initialization)``; return validation accuracies and the best one's predictions."""
    names = sorted(set(rows["train"][1]))
    X, X_val, X_test = (torch.from_numpy(rows[s][0]) for s in ("train", "val", "test"))
    y = torch.tensor([names.index(label) for label in rows["train"][1]])
    results = []
    for layers, rate, init in points:
        torch.manual_seed(42)
        parts, dim, gain = [], X.shape[1], "linear"
        for _ in range(layers):
            parts += [nn.Linear(dim, hidden), nn.BatchNorm1d(hidden), nn.Dropout(0.1), nn.ReLU()]
            if init:
                init(parts[-4].weight, gain=nn.init.calculate_gain(gain))
            dim, gain = hidden, "relu"
        parts.append(nn.Linear(dim, len(names)))
        if init:
            init(parts[-1].weight, gain=nn.init.calculate_gain(gain))
        model = nn.Sequential(*parts)
        adam, best, waited, predicted = torch.optim.Adam(model.parameters(), rate), -1.0, 0, None
        for epoch in range(1, most + 1):
            model.train()
            for chosen in torch.randperm(len(X)).split(batch):
                loss = nn.CrossEntropyLoss()(model(X[chosen]), y[chosen])
                adam.zero_grad()
                loss.backward()
                adam.step()
            if epoch % every:
                continue
            model.eval()
            with torch.no_grad():
                found = [names[i] for i in model(X_val).argmax(1)]
                score, waited = float(np.mean([f == e for f, e in zip(found, rows["val"][1], strict=True)])), waited + 1
                if score > best:
                    best, waited = score, 0
                    predicted = torch.softmax(model(X_test), 1).numpy()
            if waited >= patience:
                break
        results.append((best, predicted))
    scores = [score for score, _ in results]
    return scores, results[int(np.argmax(scores))][1], names


def check(store, protocol, rows, expected):
    """Compare a protocol with the reference: all validation accuracies, the probabilities, the accuracy."""
    scores, probabilities, names = expected
    assert len(set(scores)) > 1, "the data tell the candidates apart"
    e = store.probe("label", protocol=protocol, near_duplicates="ignore")
    assert sorted(c.choice_accuracy for c in e.protocol.candidates) == pytest.approx(sorted(scores))
    np.testing.assert_allclose(e.estimator.predict_proba(rows["test"][0]), probabilities, atol=2e-3)
    right = np.array(names)[probabilities.argmax(1)] == rows["test"][1]
    assert e.accuracy == pytest.approx(right.mean())
    return e


def test_hear_trains_what_its_program_trains(tmp_path, monkeypatch):
    """Eight settings in the order of the program's grid; validation accuracies and predictions are equal."""
    rows, X, columns = data_set()
    monkeypatch.setattr(sound_probes, "HIDDEN", 48)  # 1,024 units take minutes here
    grid = ParameterGrid({
        "hidden_layers": [1, 2], "lr": [3.2e-3, 1e-3, 3.2e-4, 1e-4],
        "initialization": [nn.init.xavier_uniform_, nn.init.xavier_normal_],
    })  # fmt: skip
    grid = list(grid)
    random.seed(42)
    random.shuffle(grid)
    points = [(p["hidden_layers"], p["lr"], p["initialization"]) for p in grid[:8]]
    expected = reference(points, rows, hidden=48, every=3, batch=1024, most=500)
    e = check(store_of(tmp_path / "s", X, **columns), "hear", rows, expected)
    by_number = [c.choice_accuracy for c in sorted(e.protocol.candidates, key=lambda c: c.value)]
    assert by_number == pytest.approx(expected[0])
    assert e.protocol.selected == 1 + int(np.argmax(expected[0]))
    assert (e.protocol.chosen_on, e.protocol.n_choice, e.n_train) == ("the val items", 15, 45)
    assert "hidden layer" in e.protocol.notes[0]


def test_superb_trains_a_linear_probe_at_each_learning_rate(tmp_path):
    """From 1e-1 to 1e-7; validation accuracies and predictions are equal."""
    rows, X, columns = data_set()
    rates = [10.0**-n for n in range(1, 8)]
    expected = reference([(0, rate, None) for rate in rates], rows, hidden=0, every=1, batch=32, most=200)
    e = check(store_of(tmp_path / "s", X, **columns), "superb", rows, expected)
    assert e.protocol.selected == pytest.approx(rates[int(np.argmax(expected[0]))])
    assert any("weighted mean over the layers" in note for note in e.protocol.notes)


@pytest.mark.parametrize("protocol", ["hear", "superb"])
def test_without_val_items_a_fifth_of_each_class_selects(tmp_path, monkeypatch, protocol):
    """No group is on both sides, and the held-out items take no part."""
    monkeypatch.setattr(sound_probes, "HIDDEN", 16)
    _, X, columns = data_set(val=False)
    groups = [f"{label} {n // 6}" for n, label in enumerate(columns["label"])]
    seen = []
    train_probe = sound_probes.train_probe
    monkeypatch.setattr(sound_probes, "train_probe", lambda s, a, b, k: seen.append((a, b)) or train_probe(s, a, b, k))
    store = store_of(tmp_path / "s", X, **columns, group=groups)
    e = store.probe("label", protocol=protocol, near_duplicates="ignore")
    fitted, choice = seen[0]
    group_of = {
        row.tobytes(): g for row, g in zip(store.features("label").X, store.features("label").groups, strict=True)
    }
    sides = [{group_of[row.tobytes()] for row in rows.X} for rows in (fitted, choice)]
    assert not sides[0] & sides[1]
    assert 0.15 <= len(choice.y) / (len(fitted.y) + len(choice.y)) <= 0.35
    assert set(choice.y) == {0, 1, 2}
    assert e.protocol.n_choice == len(choice.y)


@pytest.mark.parametrize("protocol", ["hear", "superb"])
def test_the_head_is_saved_and_predicts_without_torch(tmp_path, monkeypatch, protocol):
    """The batch normalization is part of the layers; the saved head and its ONNX form give the same classes."""
    monkeypatch.setattr(sound_probes, "HIDDEN", 16)
    _, X, columns = data_set()
    store = store_of(tmp_path / "s", X, **columns)
    e = store.probe("label", protocol=protocol, save_as="h")
    again = es.open(store.path).head("h")
    np.testing.assert_array_equal(again.predict_proba(X), e.estimator.predict_proba(X))
    assert es.open(store.path).predict("h").items == len(X)
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra [onnx])")
    pytest.importorskip("onnx", reason="onnx is not installed (extra [onnx])")
    file = store.export_head("h", tmp_path / "h.onnx")
    session = onnxruntime.InferenceSession(str(file))
    found = session.run(None, {session.get_inputs()[0].name: X})
    scores = next(value for value in found if value.ndim == 2)
    np.testing.assert_allclose(scores, e.estimator.predict_proba(X), atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("choose_on", {"choose_on": "val"}),
        ("refit", {"refit": True}),
        ("folds", {"folds": 5}),
        ("C=1", {"head_options": {"C": 1}}),
        ("head mlp", {"head": "mlp"}),
        ("nearest neighbors", {"head": "knn"}),
    ],
)
@pytest.mark.parametrize("protocol", ["hear", "superb"])
def test_what_contradicts_a_protocol_is_refused(tmp_path, protocol, name, options):
    """Selection, refit, folds, options of other heads and other heads are refused by name."""
    _, X, columns = data_set()
    with pytest.raises(BadOption, match=name):
        store_of(tmp_path / "s", X, **columns).probe("label", protocol=protocol, **options)


def test_too_few_items_to_select_on_are_one_line(tmp_path):
    """A class with one training item cannot be on both sides."""
    _, X, columns = data_set(val=False)
    columns["label"][0] = "rare"
    with pytest.raises(LabelError, match="selects on a fifth of the training items"):
        store_of(tmp_path / "s", X, **columns).probe("label", protocol="superb", near_duplicates="ignore")


def test_one_row_at_the_end_of_an_epoch_is_left_out():
    """Batch normalization has no variance over one row; the other batches of the epoch train."""
    rng = np.random.default_rng(0)
    rows = sound_probes.ProbeRows(rng.normal(size=(9, 4)).astype(np.float32), np.arange(9) % 2)
    settings = sound_probes.ProbeSettings(
        1, 1e-3, "xavier_normal", batch_size=4, check_every=1, patience=1, max_epochs=2
    )
    assert sound_probes.train_probe(settings, rows, rows, 2).epochs == 2
