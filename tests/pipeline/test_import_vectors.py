"""Imported vectors and the items that exist already."""

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadOption, BadVectors, DimensionMismatch
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


def recall(store, X):
    """Return the share of the ten nearest rows by exact cosine that a search finds."""
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    found = 0
    for n in range(0, len(X), 10):
        nearest = set(np.argsort(-(unit @ unit[n]))[:10] + 1)
        found += len(nearest & {h.item for h in store.search(n + 1, k=10)})
    return found / (len(X) // 10 * 10)


@pytest.mark.parametrize("scale", [1e-4, 1e-3, 1, 1e3])
def test_vectors_in_the_range_of_float16_rank_as_given(tmp_path, scale):
    """The ten nearest are those of float32."""
    X = (np.random.default_rng(0).standard_normal((200, 32)) * scale).astype(np.float32)
    store = es.create(tmp_path / "s")
    store.add_vectors(X)
    assert recall(store, X) >= 0.98


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-5, 1e5, 1e12])
def test_vectors_that_float16_would_turn_are_refused_with_a_cure_that_works(tmp_path, scale):
    """The message names the option, nothing is stored, and following it gives the exact ranking."""
    X = (np.random.default_rng(0).standard_normal((200, 32)) * scale).astype(np.float32)
    store = es.create(tmp_path / "s")
    with pytest.raises(BadVectors, match="dtype float32"):
        store.add_vectors(X)
    assert store.info().spaces == []
    store.add_vectors(X, dtype="float32")
    assert recall(store, X) >= 0.98


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_lengths_that_overflow_are_refused_with_a_cure_that_works(tmp_path, scale):
    """Squares of these lengths are zero or infinite in float32; scaled vectors are stored."""
    X = (np.random.default_rng(0).standard_normal((20, 8)) * scale).astype(np.float32)
    store = es.create(tmp_path / "s")
    for dtype in ("float16", "float32"):
        with pytest.raises(BadVectors, match="scale the vectors"):
            store.add_vectors(X, dtype=dtype)
    assert store.add_vectors(X / np.float32(scale)).new_vectors == 20


def test_another_dtype_than_that_of_the_space_is_refused_with_a_cure_that_works(store):
    """A space has one dtype; rows that float16 cannot hold go to a space of another name."""
    rows = np.array([[1e-9, 1e-9]], np.float32)
    with pytest.raises(BadOption, match=r"stores float16, not float32; a space of another name"):
        store.add_vectors(FIRST, {"uri": URIS}, space="first", dtype="float32")
    with pytest.raises(BadVectors, match=r"dtype float32 .*, in a space of another name"):
        store.add_vectors(rows, {"uri": ["/z"]}, space="first")
    assert store.add_vectors(rows, {"uri": ["/z"]}, space="small", dtype="float32").new_vectors == 1
