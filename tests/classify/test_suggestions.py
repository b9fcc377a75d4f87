"""What to label next: from no label on, spread over the data, and better than random choice."""

import json

import numpy as np
import pytest

import embedstore as es
from embedstore.classify import heads
from embedstore.classify.evaluation import active_learning
from embedstore.classify.evaluation.typical_rows import typical_rows
from tests.benchmarks import bench_suggest, suggest_sets
from tests.helpers.clusters import clusters, store_of


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def groups_of(seed, n_groups=8, size=30, dim=16):
    """Unit rows around far centers, and the number of the center of each."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(n_groups, dim)) * 4
    y = np.repeat(np.arange(n_groups), size)
    X = means[y] + rng.normal(size=(len(y), dim)) * 0.5
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), y


@pytest.mark.parametrize("seed", range(3))
def test_without_labels_every_region_is_suggested_once(tmp_path, seed):
    """Eight groups, no label: eight suggestions are one of each group, near its center, and the same every time."""
    X, y = groups_of(seed)
    store = store_of(tmp_path / "s", X, label=[None] * len(X))
    found = store.suggest_labels(k=8, seed=seed)
    rows = [s.item - 1 for s in found.suggestions]
    assert sorted(y[rows]) == list(range(8))
    for row in rows:
        members = X[y == y[row]]
        cosine = members @ members.mean(0)
        assert (cosine < X[row] @ members.mean(0)).mean() > 0.5
    assert (found.strategy, found.n_candidates, found.n_compared) == ("typical", len(X), len(X))
    assert all(s.predicted is None and s.margin is None for s in found.suggestions)
    assert found.suggestions == store.suggest_labels(k=8, seed=seed).suggestions
    assert json.loads(json.dumps(found.to_json()))["strategy"] == "typical"


def test_labeled_regions_come_last():
    """Where three of eight groups have labels, rows of the other five come first."""
    X, y = groups_of(5)
    labeled = np.flatnonzero(np.isin(y, [0, 1, 2]))[::3]
    free = np.setdiff1d(np.arange(len(X)), labeled)
    rows = free[typical_rows(X[free], X[labeled], 5)]
    assert set(y[rows]) <= {3, 4, 5, 6, 7}
    assert len(set(y[rows])) >= 3


def test_more_is_asked_for_than_there_is(tmp_path):
    """All items are suggested once, with and without labels; without items there is nothing."""
    X, y = clusters(12)
    for n_labels in (0, 1, 10):
        labels = [str(v) if n < n_labels else None for n, v in enumerate(y)]
        store = store_of(tmp_path / f"s{n_labels}", X, label=labels)
        found = store.suggest_labels(k=50)
        assert sorted(s.item for s in found.suggestions) == list(range(n_labels + 1, 13))
        assert store.suggest_labels(k=5, where="item < 0").suggestions == ()
    with pytest.raises(es.UnknownColumn):
        store.suggest_labels("kind")


def test_a_head_decides_from_two_classes_on(tmp_path):
    """With three classes, the second label has a class of its own and changes the strategy."""
    X, y = groups_of(0, n_groups=3, size=20)
    order = np.argsort(np.tile(np.arange(20), 3), kind="stable")  # one of each class in turn
    for n_labels, strategy in [(0, "typical"), (1, "typical"), (2, "uncertain"), (6, "uncertain"), (30, "uncertain")]:
        labels = [None] * len(X)
        for row in order[:n_labels]:
            labels[row] = f"c{y[row]}"
        found = store_of(tmp_path / str(n_labels), X, label=labels).suggest_labels(k=4)
        assert found.strategy == strategy
        assert (found.suggestions[0].predicted is None) is (n_labels < 2)


def test_labels_that_neighbors_contradict_are_not_relied_on():
    """Reliability is 1 where the nearest label is right, 0 where it is right no more often than by chance."""
    X, y = groups_of(2, n_groups=4, size=25)
    names = y.astype(str)
    assert active_learning.reliability(X, names) == 1
    shuffled = np.random.default_rng(0).permutation(names)
    assert active_learning.reliability(X, shuffled) < 0.3
    assert active_learning.reliability(X[::25], names[::25]) == 1, "one label per class says nothing against them"


def test_classes_with_few_labels_come_first():
    """Items between two classes with few labels are suggested before items between two with many."""
    rng = np.random.default_rng(0)
    centers = np.eye(4, 16)
    y = np.repeat([0, 1, 2, 3], [40, 40, 4, 4])
    X = unit(centers[y] + 0.02 * rng.normal(size=(len(y), 16)))
    between = unit((centers[[0] * 20 + [2] * 20] + centers[[1] * 20 + [3] * 20]) + 0.02 * rng.normal(size=(40, 16)))
    known = active_learning.LabeledRows(X, y.astype(str).astype(object))
    head = heads.make_head("logistic", C=10.0).fit(X, y.astype(str))
    pool = bench_suggest.Pool(between, np.arange(40))
    _, chosen, _ = active_learning.suggest_labels(head, pool, known, 8)
    assert sum(s.item >= 20 for s in chosen) >= 6


def test_of_many_items_a_sample_is_compared(tmp_path, monkeypatch):
    """The sample is random, the same for a seed, and its size is stated."""
    monkeypatch.setattr(active_learning, "TYPICAL_POOL", 50)
    X, _ = groups_of(1)
    store = store_of(tmp_path / "s", X, label=[None] * len(X))
    found = store.suggest_labels(k=8)
    assert (found.n_candidates, found.n_compared) == (240, 50)
    assert len({s.item for s in found.suggestions}) == 8
    assert found.suggestions == store.suggest_labels(k=8).suggestions
    assert found.suggestions != store.suggest_labels(k=8, seed=1).suggestions


def test_suggestions_are_better_than_random_choice():
    """On twelve classes of unequal size, 24 to 64 suggested labels are worth at least 0.05 of accuracy more."""
    rows = dict(suggest_sets.data_sets())["12 classes of unequal size"]
    gaps = [
        np.array(bench_suggest.curve(rows, bench_suggest.suggested, 8, 64, seed))
        - np.array(bench_suggest.curve(rows, bench_suggest.at_random, 8, 64, seed))
        for seed in range(3)
    ]
    assert np.mean(gaps, axis=0)[2:].min() > 0.05
