"""Numbers, item ids, names, vectors and queries are accepted in every form that libraries give them."""

import inspect

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import embedstore as es
from tests.helpers.clusters import clusters, store_of

LISTS = {
    "list": list,
    "tuple": tuple,
    "set": set,
    "dict keys": lambda ids: dict.fromkeys(ids).keys(),
    "generator": lambda ids: (i for i in ids),
    "int32": lambda ids: np.array(ids, np.int32),
    "int64": lambda ids: np.array(ids, np.int64),
    "uint64": lambda ids: np.array(ids, np.uint64),
    "objects": lambda ids: np.array(ids, object),
    "numpy scalars": lambda ids: [np.int64(i) for i in ids],
    "Series": lambda ids: pd.Series(ids, dtype="int64"),
    "nullable Series": lambda ids: pd.Series(ids, dtype="Int64"),
    "Index": lambda ids: pd.Index(ids, dtype="int64"),
    "tensor": lambda ids: torch.tensor(ids, dtype=torch.int64),
    "tensor scalars": lambda ids: [torch.tensor(i) for i in ids],
    "Arrow array": lambda ids: pa.array(ids, pa.int64()),
    "Arrow column": lambda ids: pa.chunked_array([ids], pa.int64()),
    "Arrow scalars": lambda ids: [pa.scalar(i) for i in ids],
}
NOT_IDS = {
    "floats": [1.0, 2.0],
    "bools": [True, False],
    "float array": np.array([1.0]),
    "bool array": np.array([True]),
    "float Series": pd.Series([1.0]),
    "missing": pd.Series([1, None], dtype="Int64"),
    "text": "12",
    "texts": ["1"],
    "bytes": b"\x01",
    "a number": 1,
    "a dict": {1: 2},
    "a DataFrame": pd.DataFrame({"item": [1]}),
    "two dimensions": np.array([[1, 2]]),
    "negative": [-1],
    "too large": [2**63],
    "an object": object(),
}
WITH_IDS = {
    "item_uris": lambda s, ids: s.item_uris(ids),
    "item_paths": lambda s, ids: s.item_paths(ids),
    "edit": lambda s, ids: s.edit({"label": "'x'"}, items=ids),
    "delete": lambda s, ids: s.delete(items=ids),
    "purge": lambda s, ids: s.purge(items=ids),
    "confirm_labels": lambda s, ids: s.confirm_labels(ids),
}


@pytest.fixture
def store(tmp_path):
    """Thirty rows of three classes."""
    X, y = clusters(30)
    return store_of(tmp_path / "s", X, label=y)


def count(store, condition="true"):
    return store.sql(f"SELECT count(*) FROM items WHERE {condition}").rows[0][0]


def test_every_method_with_item_ids_is_in_the_table():
    """A new method that takes item ids is tried here too."""
    methods = {
        name
        for name, method in vars(es.Store).items()
        if inspect.isfunction(method) and "items" in inspect.signature(method).parameters
    }
    assert methods == set(WITH_IDS)


@pytest.mark.parametrize("form", LISTS)
def test_item_ids_in_any_form_are_used_and_recorded(store, form):
    """Delete, purge, edit and item_uris do what they do for a list, and the run records the ids, but not of a purge."""
    make = LISTS[form]
    assert store.item_uris(make([1, 2])) == {1: "/0", 2: "/1"}
    assert store.edit({"label": "'x'"}, items=make([3, 4])).items == 2
    assert count(store, "label = 'x'") == 2
    assert store.delete(items=make([3])).items == 1
    assert store.purge(items=make([5, 6])).items == 2
    assert count(store) == 27
    recorded = store.sql("SELECT settings->'items' FROM runs WHERE verb IN ('edit', 'delete', 'purge') ORDER BY run")
    assert [r for (r,) in recorded.rows] == ["[3,4]", "[3]", None]


@pytest.mark.parametrize("method", WITH_IDS)
@pytest.mark.parametrize("form", NOT_IDS)
def test_what_is_no_list_of_ids_is_refused_before_anything_is_done(store, method, form):
    """The error names the method and the value, and nothing is changed."""
    with pytest.raises(es.BadOption, match=rf"^{method}\(\) takes item ids"):
        WITH_IDS[method](store, NOT_IDS[form])
    assert count(store, "label <> 'x'") == 30


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=5, unique=True), st.sampled_from(sorted(LISTS)))
def test_forms_of_a_list_are_equal(shared_store, ids, form):
    """Any ids in any form give what the list gives, also none."""
    assert shared_store.item_uris(LISTS[form](ids)) == {i: f"/{i - 1}" for i in ids}


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    """A store that no test changes."""
    X, y = clusters(30, dim=16)
    return store_of(tmp_path_factory.mktemp("arguments") / "s", X, label=y)


SCALARS = [np.int32, np.int64, np.uint8, np.array, torch.tensor, pa.scalar, lambda k: pd.Series([k])[0]]


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_number_of_any_library_is_a_number(shared_store, scalar):
    """As k, as an item, as a seed, and as a number of neighbors."""
    assert len(shared_store.search(scalar(3), k=scalar(4))) == 4
    assert shared_store.knn(k=scalar(3)).accuracy == shared_store.knn(k=3).accuracy
    assert len(shared_store.map(max_items=scalar(6), seed=scalar(1)).projection.items) == 6
    assert shared_store.learning_curve(labels_per_class=[scalar(2)], repeats=scalar(1)).points


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda s: s.search(1, k="3"), r"search\(\) takes a whole number as k, not '3' \(str\)"),
        (lambda s: s.search(1, k=3.0), "a whole number as k, not 3.0"),
        (lambda s: s.search(1, k=True), "a whole number as k, not True"),
        (lambda s: s.search(1, exact="no"), "True or False as exact, not 'no'"),
        (lambda s: s.search(1, where=3), "text as where, not 3"),
        (lambda s: s.search(1, min_score="high"), "a number as min_score"),
        (lambda s: s.duplicates([0.9]), "a number as threshold"),
        (lambda s: s.probe(3), "text as label"),
        (lambda s: s.cluster(2.5), "a whole number as n_clusters"),
        (lambda s: s.export(3), "a path as path"),
        (lambda s: s.learning_curve(labels_per_class=[1.5]), "a list of whole numbers as labels_per_class, not 1.5"),
        (lambda s: s.compare_heads(heads=[1]), "a list of names as heads"),
        (lambda s: s.build_index(max_memory=[1]), "text or a whole number as max_memory"),
    ],
)
def test_a_value_of_another_type_is_one_clear_error(shared_store, call, words):
    """It names the function, what it takes, the parameter and the value."""
    with pytest.raises(es.BadOption, match=words):
        call(shared_store)


def test_one_name_is_a_list_of_one_name(shared_store):
    """And not a list of letters; arrays and Series of names work too."""
    one = shared_store.compare_heads(heads="ridge", spaces="numbers")
    assert [c.evaluation.head for c in one.results] == ["ridge"]
    for names in (np.array(["ridge"]), pd.Series(["ridge"]), pa.array(["ridge"]), ("ridge",)):
        assert len(shared_store.compare_heads(heads=names).results) == 1


VECTORS = {
    "list": list,
    "tuple": tuple,
    "float64": np.array,
    "float32": lambda v: np.array(v, np.float32),
    "integers": lambda v: np.round(np.array(v) * 1000).astype(int),
    "one row": lambda v: np.array([v]),
    "list of one list": lambda v: [list(v)],
    "tensor": torch.tensor,
    "tensor with gradient": lambda v: torch.tensor(v, requires_grad=True),
    "bfloat16": lambda v: torch.tensor(v, dtype=torch.bfloat16),
    "Series": pd.Series,
    "DataFrame of one row": lambda v: pd.DataFrame([v]),
    "Arrow": pa.array,
    "Arrow scalars": lambda v: [pa.scalar(x) for x in v],
    "very long": lambda v: np.array(v) * 1e300,
    "very short": lambda v: np.array(v) * 1e-300,
}


@pytest.mark.parametrize("form", VECTORS)
def test_a_vector_in_any_form_finds_its_neighbors(shared_store, form):
    """The same item comes first, alone, as a part and as an example."""
    X, _ = clusters(30, dim=16)
    query = VECTORS[form]([float(x) for x in X[4]])
    assert shared_store.search(query, k=1)[0].item == 5
    assert shared_store.search(plus=[query], k=1)[0].item == 5
    assert shared_store.search(like=[query], k=1)[0].item == 5
    assert shared_store.search(plus=[(query, np.float64(2))], k=1)[0].item == 5


def test_a_hit_is_a_query(shared_store):
    """Searching with a hit searches with its item."""
    hit = shared_store.search(3, k=1)[0]
    assert shared_store.search(hit, k=3).hits == shared_store.search(3, k=3).hits
    assert shared_store.search(like=hit, k=1)[0].item == 3


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (True, "a query is text, an item id"),
        (1.5, "a query is text, an item id"),
        (object(), "a query is text, an item id"),
        ({"a": 1}, "a query is text, an item id"),
        ([], "numbers, not 0 values"),
        (["a", "b"], "numbers"),
        ([[1, 2], [3]], "a query is text, an item id"),
        (np.ones((2, 16)), "one vector, not an array"),
        (np.ones(3), "vectors of 16"),
        (np.full(16, np.nan), "not finite"),
        (np.full(16, np.inf), "not finite"),
        (np.ma.masked_array(np.ones(16), mask=np.eye(16)[3]), "not finite"),
        (np.zeros(16), "zero"),
        (np.ones(16, complex), "numbers"),
        (np.ones(16, bool), "numbers"),
        (np.ones((4, 4, 3)), "uint8"),
        (np.ones((3, 4, 5), np.uint8), "channels come last"),
        (np.ones((2, 4, 4, 3), np.uint8), "uint8"),
    ],
)
@pytest.mark.parametrize("place", ["query", "plus", "minus", "like"])
def test_what_is_no_query_is_one_clear_error(shared_store, query, words, place):
    """Wherever it stands in the query."""
    parts = {"query": query} if place == "query" else {place: [query]}
    with pytest.raises(es.EmbedstoreError, match=words):
        shared_store.search(**({"query": 1} if place == "minus" else {}) | parts)


@pytest.mark.parametrize("value", ["heavy", True, None, [1]])
def test_a_weight_that_is_no_number_is_refused(shared_store, value):
    with pytest.raises(es.QueryError, match="weight"):
        shared_store.search(1, plus=[(2, value)])


def test_parts_that_are_no_list_are_one_part_or_refused(shared_store):
    """A number alone is one part; a mapping is refused."""
    assert shared_store.search(1, plus=2, k=3).hits == shared_store.search(1, plus=[2], k=3).hits
    with pytest.raises(es.QueryError, match="like is a list of queries"):
        shared_store.search(like={"a": 1})


@pytest.fixture(scope="module")
def image_store(tmp_path_factory):
    """Three colored pictures, embedded by the bundled network."""
    folder = tmp_path_factory.mktemp("image-queries")
    (folder / "photos").mkdir()
    for n, color in enumerate(["red", "green", "blue"]):
        Image.new("RGB", (40, 30), color).save(folder / "photos" / f"{n}.png")
    store = es.create(folder / "s", "embedstore/tiny")
    store.embed(folder / "photos")
    return store


def test_an_image_in_any_documented_form_finds_itself(image_store):
    """A path as text or Path, the bytes of the file, a PIL image, an array and a tensor of pixels."""
    path = image_store.path.parent / "photos" / "1.png"
    pixels = np.asarray(Image.open(path))
    forms = [path, path.read_bytes(), bytearray(path.read_bytes()), Image.open(path), pixels, torch.tensor(pixels)]
    for form in forms:
        assert image_store.search(form, k=1)[0].uri == str(path)
        assert image_store.search(image=form, k=1)[0].uri == str(path)
        assert image_store.search(like=[form], k=1)[0].uri == str(path)
    assert image_store.search(image=str(path), k=1)[0].uri == str(path)
    assert image_store.search(image=np.dstack([pixels, np.full((30, 40), 255, np.uint8)]), k=1)[0].uri == str(path)


@pytest.mark.parametrize("image", [3, 1.5, np.ones((4, 4, 3)), np.ones(16), {"a": 1}, object(), True])
def test_what_is_no_image_is_one_clear_error(image_store, image):
    with pytest.raises(es.QueryError, match="an image"):
        image_store.search(image=image)


@pytest.mark.parametrize("form", ["list", "tensor", "DataFrame", "Arrow", "Series of lists", "generator"])
def test_vectors_and_class_vectors_are_imported_in_any_form(tmp_path, form):
    """The stored rows are the given ones."""
    X = np.eye(6, 4, dtype=np.float32) + 0.5
    forms = {
        "list": X.tolist(),
        "tensor": torch.tensor(X),
        "DataFrame": pd.DataFrame(X),
        "Arrow": pa.array(X.tolist()),
        "Series of lists": pd.Series(list(X)),
        "generator": (row for row in X),
    }
    store = es.create(tmp_path / "s")
    store.add_vectors(forms[form], {"uri": list("abcdef"), "label": list("aabbaa")}, dtype="float32")
    assert np.array_equal(store.features().X, X)
    classifier = store.zero_shot(pd.Series(["a", "b"]), class_vectors=torch.tensor(X[:2]))
    assert classifier.evaluate().n_held_out == 6


def test_a_masked_value_is_absent(tmp_path):
    """NumPy keeps a value under the mask, which is nobody's: of a column it is NULL, and a vector lacks a number."""
    store, X = es.create(tmp_path / "s"), np.eye(3, 4, dtype=np.float32)
    years = np.ma.masked_array([2001, 7, 2003], mask=[False, True, False])
    store.add_vectors(np.ma.masked_array(X), {"uri": list("abc"), "year": years})
    assert store.sql("SELECT year FROM items ORDER BY item").rows == ((2001,), (None,), (2003,))
    for kind in (np.float32, np.int64):
        with pytest.raises(es.EmbedstoreError, match="NaN in row 1, 2 "):
            store.add_vectors(np.ma.masked_array(X.astype(kind), mask=np.eye(3, 4, k=-1)), space="other")


HALF = "a\udcff"  # as Python reads a command-line argument that is not UTF-8


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.search(1, where=f"label = '{HALF}'"),
        lambda s: s.search(1, space=HALF),
        lambda s: s.sql(f"SELECT '{HALF}'"),
        lambda s: s.edit({"label": f"'{HALF}'"}, "true"),
        lambda s: s.edit({HALF: "'x'"}, "true", create_columns=True),
        lambda s: s.delete(f"label = '{HALF}'"),
        lambda s: s.probe(HALF),
        lambda s: s.probe(save_as=HALF),
        lambda s: s.rename("a", HALF),
        lambda s: s.rename_space(s.spaces[0].name, HALF),
        lambda s: s.add_vectors(np.eye(2, 16), {"uri": [HALF, "b"]}),
        lambda s: s.add_vectors(np.eye(2, 16), {"uri": ["a", "b"], HALF: [1, 2]}),
    ],
)
def test_half_characters_are_refused(shared_store, call):
    """Wherever text is taken: DuckDB would raise an error of its own."""
    before = shared_store.sql("SELECT * FROM items ORDER BY item").rows
    with pytest.raises(es.EmbedstoreError):
        call(shared_store)
    assert shared_store.sql("SELECT * FROM items ORDER BY item").rows == before
