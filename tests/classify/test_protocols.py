"""Protocols by name: equal to the published procedures, written again here from their descriptions."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from typer.testing import CliRunner

from embedstore.classify.protocols.c_search import halving_search
from embedstore.classify.protocols.choice_rows import drawn_rows
from embedstore.classify.protocols.knn_votes import votes_by_k
from embedstore.classify.protocols.protocol import Protocol
from embedstore.cli import app as cli_app
from embedstore.cli import load_commands
from embedstore.errors import BadOption, LabelError
from embedstore.reports.evaluation_page import evaluation_page
from embedstore.reports.protocol_text import protocol_notes
from tests.helpers.clusters import clusters, store_of

GRID = [float(C) for C in 10 ** torch.linspace(-6, 5, 45, dtype=torch.float64)]


def fitted(X, y, C, tol):
    """The published fit: scikit-learn's L-BFGS with 1,000 iterations."""
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore")
        return LogisticRegression(C=C, max_iter=1000, tol=tol, random_state=0).fit(X, y)


def first_best_c(grid, fit, X, y):
    """The first C of a grid with the highest accuracy."""
    return grid[int(np.argmax([(fit(C).predict(X) == y).mean() for C in grid]))]


def reference_dino(rows, *, stratified):
    """C and test accuracy as the code of DINOv2 and DINOv3: a tenth (or val) selects among 45 values, then a refit.

    Everything is float64, as there.
    """
    rows = {split: (X.astype(np.float64), y) for split, (X, y) in rows.items()}
    (X, y), (X_test, y_test) = rows["train"], rows["test"]
    if "val" in rows:
        X_fit, y_fit, X_val, y_val = X, y, *rows["val"]
    else:
        torch.manual_seed(0)
        order = torch.randperm(len(X))
        if stratified:
            val = []
            for label in sorted(set(y)):
                members = [i for i in order.tolist() if y[i] == label]
                val += members[: max(1, len(members) // 10)] if len(members) > 1 else []
        else:
            val = order[: len(X) // 10].tolist()
        fit_rows = sorted(set(range(len(X))) - set(val))
        X_fit, y_fit, X_val, y_val = X[fit_rows], y[fit_rows], X[val], y[val]
    C = first_best_c(GRID, lambda C: fitted(X_fit, y_fit, C, 1e-12), X_val, y_val)
    final = fitted(np.concatenate([X_fit, X_val]), np.concatenate([y_fit, y_val]), C, 1e-12)
    return C, (final.predict(X_test) == y_test).mean()


def reference_clip(rows):
    """C and test accuracy as appendix A.3: seven values, then the peak's neighbors at ever smaller steps, on val."""
    (X, y), (X_val, y_val), (X_test, y_test) = rows["train"], rows["val"], rows["test"]
    seen = {}
    exponents = [float(e) for e in range(-6, 7, 2)]
    for step in (1, 1 / 2, 1 / 4, 1 / 8, None):
        for e in exponents:
            if e not in seen and abs(e) <= 6:
                seen[e] = (fitted(X, y, 10**e, 1e-4).predict(X_val) == y_val).mean()
        peak = min(e for e in seen if seen[e] == max(seen.values()))
        exponents = [peak - step, peak + step] if step else []
    final = fitted(np.concatenate([X, X_val]), np.concatenate([y, y_val]), 10**peak, 1e-4)
    return 10**peak, (final.predict(X_test) == y_test).mean()


def reference_votes(train, labels, queries, ks, temperature=0.07):
    """The published module: the softmax of the cosines of the most neighbors, summed by class over the first k."""
    unit = [torch.nn.functional.normalize(torch.tensor(x, dtype=torch.float64), dim=1) for x in (train, queries)]
    cosines, rows = (unit[1] @ unit[0].T).topk(max(ks), dim=1)
    weights = torch.softmax(cosines / temperature, dim=1)
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels)[rows], num_classes=int(max(labels)) + 1)
    return {k: (one_hot[:, :k] * weights[:, :k, None]).sum(1).numpy() for k in ks}


def data_set(n, classes, *, dim=24, noise=1.5, val=True, seed=0):
    """Rows by split, and the columns of a store that holds them."""
    X, y = clusters(n, classes, dim=dim, noise=noise, seed=seed)
    order = np.random.default_rng(seed).permutation(n)
    names = ("train", "train", "val" if val else "train", "test")
    split = np.array([names[i % 4] for i in order])
    y = np.array(y)
    return {s: (X[split == s], y[split == s]) for s in set(split.tolist())}, X, {"label": y, "split": split.tolist()}


def exact(store, protocol, **options):
    """The protocol without a search for near-duplicates, which the published code does not know."""
    return store.probe("label", protocol=protocol, near_duplicates="ignore", **options)


@pytest.mark.parametrize("protocol", ["dinov2", "dinov3"])
@pytest.mark.parametrize("val", [True, False])
def test_dino_selects_the_published_c(tmp_path, protocol, val):
    """C is the same and the accuracy within a tenth of a point, with and without validation rows."""
    rows, X, columns = data_set(480, 5, val=val)
    e = exact(store_of(tmp_path / "s", X, **columns), protocol)
    C, accuracy = reference_dino(rows, stratified=protocol == "dinov3")
    assert e.hyperparameters["C"] == pytest.approx(C)
    assert e.accuracy == pytest.approx(accuracy, abs=1e-3)
    assert e.n_train == 360
    assert [c.value for c in e.protocol.candidates] == pytest.approx(GRID)


def test_clip_selects_the_published_c(tmp_path):
    """C by the search of appendix A.3 on val, with scikit-learn's own stopping rule."""
    rows, X, columns = data_set(480, 5)
    e = exact(store_of(tmp_path / "s", X, **columns), "clip")
    C, accuracy = reference_clip(rows)
    assert e.hyperparameters["C"] == pytest.approx(C)
    assert e.accuracy == pytest.approx(accuracy, abs=1e-3)
    assert len(e.protocol.candidates) <= 15
    assert (e.protocol.n_choice, e.protocol.n_fitted, e.n_train) == (120, 240, 360)


def reference_mteb(rows):
    """The published program: a global generator with seed 42, an order that is shuffled on, eight labels, 100 steps."""
    (X, y), (X_test, y_test) = rows["train"], rows["test"]
    state, order, accuracies = np.random.RandomState(42), np.arange(len(y)), []
    for _ in range(10):
        state.shuffle(order)
        chosen = [row for n, row in enumerate(order) if sum(y[other] == y[row] for other in order[:n]) < 8]
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            head = LogisticRegression(max_iter=100, random_state=42).fit(X[chosen], y[chosen])
        accuracies.append((head.predict(X_test) == y_test).mean())
    return accuracies


def test_mteb_draws_what_the_published_program_draws(tmp_path):
    """The accuracy of each of ten draws, and their mean, equal those of the procedure on the same vectors."""
    rows, X, columns = data_set(240, 4, val=False, noise=2.5)
    store = store_of(tmp_path / "s", X, **columns)
    e = exact(store, "mteb")
    expected = reference_mteb(rows)
    assert len(set(expected)) > 1
    assert [c.accuracy.value for c in e.protocol.candidates] == pytest.approx(expected)
    assert e.protocol.mean_accuracy == pytest.approx(np.mean(expected))
    assert (e.n_train, e.accuracy) == (32, pytest.approx(expected[0]))
    assert f"mean accuracy {np.mean(expected):.3f} over 10 draws" in evaluation_page(e, {})
    assert "picked on" not in evaluation_page(e, {})
    assert e.to_json()["protocol"]["mean_accuracy"] == pytest.approx(np.mean(expected))
    assert e.to_json()["protocol"]["picked_on_held_out"] is None


def test_mteb_says_which_labels_are_few(tmp_path):
    """A class with fewer than eight training items is in every draw whole, and a note names it."""
    _, X, columns = data_set(240, 4, val=False)
    columns["label"] = columns["label"].astype(object)
    few = [n for n, (y, s) in enumerate(zip(columns["label"], columns["split"], strict=True)) if s == "train"][:3]
    columns["label"][few] = "rare"
    e = exact(store_of(tmp_path / "s", X, label=columns["label"].tolist(), split=columns["split"]), "mteb")
    assert any("the label rare: every draw" in note for note in e.protocol.notes)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("choose_on", {"choose_on": "val"}),
        ("refit", {"refit": True}),
        ("folds", {"folds": 5}),
        ("max_iter=50", {"head_options": {"max_iter": 50}}),
    ],
)
def test_mteb_refuses_what_contradicts_it(tmp_path, name, options):
    """Selection, refit, folds and another number of iterations are refused by name."""
    _, X, columns = data_set(120, 3)
    store = store_of(tmp_path / "s", X, **columns)
    with pytest.raises(BadOption, match=name):
        store.probe("label", protocol="mteb", **options)


def test_protocols_on_clip_vectors_of_cifar(tmp_path, shared_data):
    """The same on real vectors: C equal, accuracy within a tenth of a point, for all three selections."""
    folder = shared_data / "clip_vectors"
    X, y = np.load(folder / "cifar500_image_vectors.npy"), np.load(folder / "cifar500_labels.npy").astype(str)
    split = np.array([("train", "train", "train", "val", "test")[i % 5] for i in range(len(X))])
    rows = {s: (X[split == s], y[split == s]) for s in ("train", "val", "test")}
    store = store_of(tmp_path / "s", X, label=y, split=split.tolist())
    for protocol, expected in (("dinov3", reference_dino(rows, stratified=True)), ("clip", reference_clip(rows))):
        e = exact(store, protocol)
        assert (e.hyperparameters["C"], e.accuracy) == pytest.approx(expected, abs=1e-3)
        assert any("unit length" in note for note in e.protocol.notes)


def test_vtab_takes_the_first_rows(tmp_path):
    """800 training rows fit, 200 select, 1,000 are refitted; the other rows are used for nothing."""
    X, y = clusters(1600, 4, noise=2.5)
    split = ["test" if i % 4 == 3 else "train" for i in range(1600)]
    store = store_of(tmp_path / "s", X, label=y, split=split)
    e = exact(store, "vtab1k")
    train, test = np.flatnonzero(np.array(split) == "train"), np.flatnonzero(np.array(split) == "test")
    X, y = X.astype(np.float64), np.array(y)
    fit, val, both = train[:800], train[800:1000], train[:1000]
    C = first_best_c(GRID, lambda C: fitted(X[fit], y[fit], C, 1e-12), X[val], y[val])
    assert e.hyperparameters["C"] == pytest.approx(C)
    assert e.accuracy == pytest.approx(
        (fitted(X[both], y[both], C, 1e-12).predict(X[test]) == y[test]).mean(), abs=1e-3
    )
    assert (e.protocol.n_fitted, e.protocol.n_choice, e.n_train) == (800, 200, 1000)
    with pytest.raises(LabelError, match="needs 800 training items and 200"):
        exact(store, "vtab1k", where="item < 1000")


def test_dino_neighbors_vote_as_published(tmp_path):
    """Votes for all k are those of the published module to 1e-6, and the table has its accuracies."""
    rows, X, columns = data_set(900, 7, val=False, noise=2.0)
    store = store_of(tmp_path / "s", X, **columns)
    e = store.knn("label", protocol="dinov2", near_duplicates="ignore")
    (X_train, y_train), (X_test, y_test) = rows["train"], rows["test"]
    names, codes = np.unique(y_train, return_inverse=True)
    expected = reference_votes(X_train, codes, X_test, (10, 20, 100, 200))
    accuracy = {k: (names[votes.argmax(1)] == y_test).mean() for k, votes in expected.items()}
    top5 = {
        k: np.mean([t in names[np.argsort(-v, kind="stable")[:5]] for t, v in zip(y_test, x, strict=True)])
        for k, x in expected.items()
    }
    table = {c.value: c for c in e.protocol.candidates}
    assert {k: c.accuracy.value for k, c in table.items()} == pytest.approx(accuracy)
    assert {k: c.top5_accuracy.value for k, c in table.items()} == pytest.approx(top5)
    votes = expected[e.protocol.selected]
    assert e.held_out_predictions.proba == pytest.approx(votes / votes.sum(1, keepdims=True), abs=1e-6)
    assert e.estimator.k == e.protocol.selected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 6), st.lists(st.integers(1, 30), min_size=1))
def test_votes_of_any_numbers_of_neighbors(seed, n, n_classes, ks):
    """Any number of rows, classes and neighbors: the votes are those of the published module."""
    rng = np.random.default_rng(seed)
    ks = sorted({min(k, n) for k in ks})
    train, queries = rng.normal(size=(n, 5)), rng.normal(size=(4, 5))
    labels = np.r_[rng.integers(0, n_classes, n - 1), n_classes - 1]
    expected = reference_votes(train, labels, queries, ks)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (train, queries)]
    cosines = unit[1] @ unit[0].T
    order = np.argsort(-cosines, axis=1)[:, : max(ks)]
    scores = np.take_along_axis(cosines, order, axis=1)
    for k, votes in votes_by_k(scores, labels[order], n_classes, ks):
        assert votes == pytest.approx(expected[k], abs=1e-6)


def test_k_is_selected_without_the_held_out_rows(tmp_path):
    """Other labels of the held-out rows change no selection, and the note says which figure is picked on them."""
    _, X, columns = data_set(900, 7, val=False, noise=2.5)
    e = store_of(tmp_path / "a", X, **columns).knn("label", protocol="dinov3")
    is_test = np.array(columns["split"]) == "test"
    shuffled = np.where(is_test, columns["label"][np.random.default_rng(1).permutation(900)], columns["label"])
    other = store_of(tmp_path / "b", X, label=shuffled, split=columns["split"]).knn("label", protocol="dinov3")
    assert other.protocol.selected == e.protocol.selected
    assert [c.choice_accuracy for c in other.protocol.candidates] == [c.choice_accuracy for c in e.protocol.candidates]
    assert any("no honest estimate" in note for note in protocol_notes(e))
    assert e.protocol.to_json()["picked_on_held_out"]["accuracy"] >= e.accuracy


def test_copies_do_not_select_k(tmp_path):
    """Each picture is there five times in training: with its copies as neighbors k = 10 would be right everywhere."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(160, 8)).astype(np.float32)
    y = rng.integers(0, 2, 160).astype(str)
    X = np.concatenate([np.repeat(X[:120], 5, axis=0), X[120:]])
    y = np.concatenate([np.repeat(y[:120], 5), y[120:]])
    columns = {
        "split": ["train"] * 600 + ["test"] * 40,
        "group": [f"g{i}" for i in [*np.repeat(np.arange(120), 5), *range(120, 160)]],
    }
    e = store_of(tmp_path / "s", X, label=y, **columns).knn("label", protocol="dinov2")
    assert max(c.choice_accuracy for c in e.protocol.candidates) < 0.7


def test_items_of_one_group_do_not_select_c(tmp_path):
    """Declared groups are not on both sides of the rows that select; near copies are reported."""
    _, X, columns = data_set(480, 4, val=False)
    group = [f"g{i // 2}" for i in range(480)]
    e = store_of(tmp_path / "s", X, group=group, **columns).probe("label", protocol="dinov2", near_duplicates="ignore")
    assert any("share a content or a group" in note for note in e.protocol.notes)
    assert e.protocol.n_fitted + e.protocol.n_choice < e.n_train


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80))
def test_drawn_rows_follow_their_rule(labels):
    """DINOv2 draws a tenth of all rows, DINOv3 a tenth of each class, at least one and none of a class of one."""
    y = np.array([str(v) for v in labels], dtype=object)
    assert drawn_rows(Protocol.DINOV2, y).sum() == len(y) // 10
    drawn = drawn_rows(Protocol.DINOV3, y)
    for label in set(y.tolist()):
        members = y == label
        assert drawn[members].sum() == (max(1, int(0.1 * members.sum())) if members.sum() > 1 else 0)


@given(st.floats(-6, 6))
@settings(max_examples=60, deadline=None)
def test_the_halving_search_ends_next_to_a_single_peak(peak):
    """With one peak the search finds the nearest eighth of a decade, in at most 15 fits."""
    tried = halving_search(lambda e: -abs(e - peak))
    assert len(tried) <= 15
    assert abs(max(tried, key=tried.get) - peak) <= 1 / 16 + 1e-9


CONTRADICTIONS = [
    ({"head": "ridge"}, "ridge"),
    ({"folds": 5}, "folds"),
    ({"calibrate": "temperature"}, "calibrate"),
    ({"task": "regression"}, "task"),
    ({"weight": "w"}, "weight"),
    ({"abstain_precision": 0.9}, "abstain_precision"),
    ({"head_options": {"C": 1.0}}, "C=1.0"),
    ({"head_options": {"criterion": "accuracy", "cv": 3}}, "criterion='accuracy', cv=3"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    _, X, columns = data_set(200, 3, dim=6)
    return store_of(tmp_path_factory.mktemp("protocols") / "s", X, **columns)


@pytest.mark.parametrize(("options", "named"), CONTRADICTIONS)
def test_an_option_that_contradicts_a_protocol_is_refused(small, options, named):
    """The message names the option."""
    with pytest.raises(BadOption, match=named):
        small.probe("label", protocol="clip", **options)


@pytest.mark.parametrize(
    ("verb", "options", "named"),
    [
        ("knn", ["-k", "7"], "-k 7"),
        ("knn", ["--neighbor-weights", "uniform"], "--neighbor-weights uniform"),
        ("knn", ["--refit"], "--refit"),
        ("probe", ["--head-arg", "C=2"], "--head-arg C=2"),
        ("probe", ["--conformal-alpha", "0.1"], "--conformal-alpha"),
        ("probe", ["--learning-curve"], "--learning-curve"),
        ("probe", ["--separator", ","], "--separator"),
    ],
)
def test_a_contradiction_is_a_usage_error(small, verb, options, named):
    """Exit status 2, with the option as it was written."""
    load_commands()
    out = CliRunner().invoke(cli_app.app, [verb, str(small.path), "label", "--protocol", "dinov2", *options])
    assert out.exit_code == 2
    assert named in " ".join(out.output.replace("│", " ").split())


def test_options_that_a_protocol_sets_anyway_are_accepted(small):
    """What agrees with the protocol is no contradiction."""
    assert small.probe("label", protocol="clip", refit=True, choose_on="val").protocol.name == "clip"
    assert small.knn("label", protocol="dinov2", weights="softmax").protocol.name == "dinov2"


def test_unknown_protocols_and_those_without_neighbors_are_refused(small):
    """The message names what there is."""
    with pytest.raises(BadOption, match="did you mean dinov2"):
        small.probe("label", protocol="dino2")
    with pytest.raises(BadOption, match="clip has no nearest neighbors; those with them are dinov2, dinov3"):
        small.knn("label", protocol="clip")


def test_the_report_and_the_page_show_what_was_tried(small, tmp_path):
    """JSON, table and page name the protocol, its source and the selected value; the head can be saved and predicts."""
    load_commands()
    out = CliRunner().invoke(cli_app.app, ["probe", str(small.path), "--protocol", "clip", "--json", "--save", "c"])
    facts = json.loads(out.stdout)["protocol"]
    assert (facts["name"], facts["parameter"]) == ("clip", "C")
    assert sum(c["selected"] for c in facts["candidates"]) == 1
    assert small.predict("c").items == 200
    e = small.knn("label", protocol="dinov2")
    assert "Oquab et al. 2023" in evaluation_page(e, {})
    assert len(e.protocol.df()) == len(e.protocol.candidates)
