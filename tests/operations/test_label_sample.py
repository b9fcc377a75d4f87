"""Suggestions of a large space come from a sample that is kept, and follow every change of the store."""

import numpy as np
import pytest

import embedstore as es
from embedstore.operations import label_sample
from tests.helpers.clusters import clusters, store_of


@pytest.fixture
def few(monkeypatch):
    """A space is large from 50 contents on, and ten matching rows suffice."""
    monkeypatch.setattr(label_sample, "LEAST_CONTENTS", 50)
    monkeypatch.setattr(label_sample, "LEAST_ROWS", 10)


def labeled_store(path, n=120):
    """A store in which every tenth item has a label."""
    X, y = clusters(n)
    return store_of(path, X, label=[str(y[i]) if i % 10 == 0 else None for i in range(n)]), y


def chosen(store, **options):
    """Return what is suggested, and of how many."""
    found = store.suggest_labels(k=6, **options)
    return [s.item for s in found.suggestions], found.n_candidates, found.n_compared


@pytest.mark.parametrize("where", [None, "item > 40", "label IS NOT NULL", "false"])
def test_a_whole_sample_chooses_what_reading_chooses(tmp_path, monkeypatch, where):
    """Where the sample holds every content, the suggestions are those of a process that reads the vectors."""
    store, _ = labeled_store(tmp_path / "s")
    expected = chosen(store, where=where)
    monkeypatch.setattr(label_sample, "LEAST_CONTENTS", 50)
    monkeypatch.setattr(label_sample, "LEAST_ROWS", 0)
    assert [chosen(es.open(tmp_path / "s"), where=where) for _ in range(2)] == [expected] * 2


def test_labels_items_and_removals_are_followed(tmp_path, few):
    """A suggested item that gets a label, or is removed, is not suggested again; new items are."""
    store, y = labeled_store(tmp_path / "s")
    first, count, _ = chosen(store)
    store.edit({"label": f"'{y[first[0] - 1]}'"}, items=first[:1])
    store.delete(items=first[1:2])
    second, later, _ = chosen(store)
    assert not {first[0], first[1]} & set(second)
    assert later == count - 2
    X = clusters(120, seed=9)[0][:30]
    store.add_vectors(X + 5, {"uri": [f"new{n}" for n in range(30)]}, space="numbers")
    assert chosen(store)[1] == later + 30


def test_copies_are_one_content_by_their_first_item(tmp_path, few):
    """If two items have one content, the first without a label is suggested; the pair is counted as one item."""
    X = np.eye(60, dtype=np.float32)
    store = store_of(tmp_path / "s", np.concatenate([X, X]), label=["a"] + [None] * 119)
    found, count, _ = chosen(store)
    assert count == 60
    assert max(found) <= 61


def test_a_narrow_filter_is_read(tmp_path, few, monkeypatch):
    """Where the sample has few of the items that match, they are read: none is missed."""
    monkeypatch.setattr(label_sample, "MAX_ROWS", 20)
    store, _ = labeled_store(tmp_path / "s")
    found, count, compared = chosen(store, where="item > 110")
    assert (len(found), count, compared) == (6, 9, 9)
    assert chosen(store)[2] < chosen(store)[1]


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_is_the_same_in_every_process(tmp_path, few, monkeypatch, seed):
    """The same seed gives the same suggestions from a sample that is drawn again."""
    monkeypatch.setattr(label_sample, "MAX_ROWS", 60)
    labeled_store(tmp_path / "s")
    assert chosen(es.open(tmp_path / "s"), seed=seed) == chosen(es.open(tmp_path / "s"), seed=seed)
