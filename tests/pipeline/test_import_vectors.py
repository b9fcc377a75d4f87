"""Imported vectors and the items that exist already."""

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadVectors, DimensionMismatch
from tests.conftest import TINY

URIS = ["/p/a.jpg", "/p/b.jpg", "/p/c.jpg"]
FIRST = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
SECOND = np.array([[1, 2, 3], [3, 2, 1], [0, 1, 0]], np.float32)


@pytest.fixture
def store(tmp_path):
    """Create a store of three items with vectors of one model."""
    store = es.create(tmp_path / "s")
    store.add_vectors(FIRST, {"uri": URIS, "year": [1, 2, 3]}, space="first")
    return store


def test_vectors_of_a_second_model_fill_a_second_space(store):
    """The same items in another space: three items, three contents, six vectors, both spaces complete."""
    result = store.add_vectors(SECOND, {"uri": URIS}, space="second")
    assert (result.new_items, result.new_vectors) == (0, 3)
    assert np.array_equal(store.features("uri", space="first").X, FIRST)
    assert np.array_equal(store.features("uri", space="second").X, SECOND)
    info = store.info()
    assert (info.items, info.contents) == (3, 3)


def test_vectors_for_embedded_photos_keep_the_content_of_the_photos(tmp_path, photos):
    """The network's space keeps its vectors, and a rescan finds nothing new."""
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(photos)
    before = store.features("uri").X
    uris = store.features("uri").y.tolist()
    store.add_vectors(np.eye(12, dtype=np.float32), {"uri": uris}, space="mine")
    assert np.array_equal(store.features("uri").X, before)
    assert np.array_equal(store.features("uri", space="mine").X, np.eye(12))
    assert store.embed(photos).unchanged == 12


def test_importing_the_same_vectors_again_changes_nothing(store):
    """A second import adds no item and no vector."""
    result = store.add_vectors(FIRST, {"uri": URIS}, space="first")
    assert (result.new_items, result.new_vectors) == (0, 0)


def test_a_changed_vector_replaces_the_one_of_the_item(store):
    """The item keeps its id and its year and gets the new vector."""
    changed = FIRST.copy()
    changed[1] = [5, 5]
    result = store.add_vectors(changed, {"uri": URIS}, space="first")
    assert (result.new_items, result.new_vectors) == (0, 1)
    assert np.array_equal(store.features("uri").X, changed)
    assert store.sql("SELECT item, year FROM items ORDER BY item").rows == ((1, 1), (2, 2), (3, 3))


def test_vectors_that_do_not_fit_the_space_are_refused(store):
    """Another dimension and a value beyond float16 are errors; nothing is stored."""
    with pytest.raises(DimensionMismatch, match="another name"):
        store.add_vectors(SECOND, {"uri": URIS}, space="first")
    with pytest.raises(BadVectors, match=r"row 1 .*float32"):
        store.add_vectors(np.array([[1, 1], [1e6, 1]], np.float32), {"uri": ["/x", "/y"]}, space="first")
    assert store.info().items == 3
