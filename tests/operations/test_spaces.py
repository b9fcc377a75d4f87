"""Spaces and text classifiers through the public API."""

import numpy as np
import pytest

import embedstore as es
from tests.helpers.clusters import add, clusters, store_of


@pytest.fixture
def store(tmp_path):
    """12 rows of three classes, in the spaces numbers (the default) and other."""
    X, y = clusters(12, noise=0.1)
    store = store_of(tmp_path / "s", X, label=y)
    add(store, X[:, ::-1], "other")
    return store


def test_the_default_space_is_used_where_none_is_named(store):
    """It is changed and changed back; each search names the space that it used."""
    assert store.search(1, k=1).space == "numbers"
    assert store.set_default("other").space == "other"
    assert [s.name for s in store.spaces if s.is_default] == ["other"]
    assert store.search(1, k=1).space == "other"
    assert store.search(1, k=1, space="numbers").space == "numbers"
    store.set_default("numbers")
    assert es.open(store.path).search(1, k=1).space == "numbers"


def test_a_space_is_renamed(store):
    """The key and the vectors stay; a name that is in use is refused."""
    key = store.spaces[1].key
    store.rename_space("other", "mirrored")
    assert [(s.name, s.key) for s in store.spaces][1] == ("mirrored", key)
    with pytest.raises(es.QueryError, match="numbers"):
        store.rename_space("mirrored", "numbers")
    with pytest.raises(es.SpaceNotFound, match="did you mean mirrored"):
        store.search(1, space="miror")


def test_a_space_is_dropped_unless_something_depends_on_it(store):
    """The default space and a space with heads are kept."""
    store.probe(head="ridge", space="other", save_as="kept")
    for name in ("numbers", "other"):
        with pytest.raises(es.SpaceMismatch):
            store.drop_space(name)
    store.delete_head("kept")
    assert store.drop_space("other").vectors == 12
    assert [s.name for s in store.spaces] == ["numbers"]


def test_a_saved_zero_shot_classifier_predicts(store):
    """It is a head like any other: of the nearest class vector, by cosine."""
    centers = np.array([store.features().X[store.features().y == c].mean(0) for c in ("c0", "c1", "c2")])
    classifier = store.zero_shot(["c0", "c1", "c2"], class_vectors=centers)
    assert classifier.evaluate("label").accuracy == 1
    record = classifier.save("by_text", label="label")
    assert (record.kind, record.label, record.space_key) == ("zero_shot", "label", store.spaces[0].key)
    assert es.open(store.path).predict("by_text").labels == {"c0": 4, "c1": 4, "c2": 4}
    assert len(store.search(1, k=12, where="pred.by_text = 'c1'")) == 4
