"""Paths and sources in every form that Python has for them; what is none is one clear error."""

import copy
import inspect
import io
import os
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import embedstore as es
from tests.conftest import TINY
from tests.helpers.image_files import NOISE, encode

PUBLIC = {name: getattr(es, name) for name in dir(es) if inspect.isfunction(getattr(es, name))} | {
    f"Store.{name}": f for name, f in vars(es.Store).items() if inspect.isfunction(f) and not name.startswith("_")
}
PATHS = sorted(
    (name, parameter)
    for name, function in PUBLIC.items()
    for parameter, facts in inspect.signature(function).parameters.items()
    if "Path" in str(facts.annotation)
)
NO_PATHS = ["a\0b", "\ud800", Path("a\0b"), b"a", 5, object()]
SEVERAL = {  # forms of a list of paths
    "list": list,
    "tuple": tuple,
    "generator": iter,
    "dict keys": lambda names: dict.fromkeys(names).keys(),
    "array": np.array,
    "array of objects": lambda names: np.array(names, object),
    "Series": pd.Series,
    "Series of objects": lambda names: pd.Series(names, dtype=object),
    "categories": lambda names: pd.Series(names, dtype="category"),
    "Index": pd.Index,
    "Arrow array": pa.array,
    "Arrow column": lambda names: pa.chunked_array([names]),
    "paths": lambda names: [Path(name) for name in names],
}
NO_SOURCES = {
    "nothing": None, "number": 5, "NaN": float("nan"), "bytes": b"photos", "function": encode,
    "image": Image.new("RGB", (4, 4)), "images": [Image.new("RGB", (4, 4))], "pixels": np.zeros((4, 4, 3)),
    "absent": [None], "absent in a Series": pd.Series(["1.png", None]), "list in a list": [["1.png"]],
    "file": io.BytesIO(b"photo"),
}  # fmt: skip


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A store beside a folder with two photos."""
    monkeypatch.chdir(tmp_path)
    Path("cat").mkdir()
    for name, image in {"1.png": NOISE, "2.png": Image.new("RGB", (20, 20))}.items():
        Path("cat", name).write_bytes(encode(image, "PNG"))
    return es.create("s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})


def test_the_table_has_the_functions_that_take_paths():
    """It is read from the signatures."""
    assert {("open", "path"), ("create", "weights"), ("Store.backup", "target"), ("restore", "source")} <= set(PATHS)


@pytest.mark.parametrize(("function", "parameter"), PATHS)
def test_what_no_file_can_be_called_is_refused_before_anything_is_done(function, parameter):
    """A zero byte, half a character, bytes and numbers are one error, which every stream can write."""
    annotation = str(inspect.signature(PUBLIC[function]).parameters[parameter].annotation)
    for value in NO_PATHS:
        if "Vectors" in annotation and not isinstance(value, str | Path):
            continue  # a table of numbers
        arguments = {parameter: [value] if "Paths" in annotation else value}
        with pytest.raises(es.BadOption, match=f"as {parameter}, not ") as error:
            PUBLIC[function](*([None] if function.startswith("Store.") else []), **arguments)
        str(error.value).encode("utf-8")


@pytest.mark.parametrize("form", SEVERAL)
def test_files_in_any_form_of_a_list_are_embedded(store, form):
    """Their labels are those of the same files in a list."""
    assert store.embed(SEVERAL[form](["cat/1.png", "cat/2.png"])).embedded == 2
    assert store.sql("SELECT label, count(*) FROM items GROUP BY ALL").rows == (("cat", 2),)


@pytest.mark.parametrize("name", [np.str_("cat"), Path("cat"), np.array("cat")], ids=["NumPy", "Path", "one element"])
def test_a_folder_in_any_form_is_embedded(store, name):
    """NumPy's text is a buffer, of which the system would list bytes."""
    assert store.embed(name).embedded == 2
    assert es.open(np.str_("s")).verify().ok


@pytest.mark.parametrize("given", NO_SOURCES)
def test_what_is_no_source_is_one_clear_error(store, given):
    """It says what a source is; nothing is embedded."""
    with pytest.raises(es.BadOption, match="takes a folder, files by their paths, or a table with a column of them as"):
        store.embed(NO_SOURCES[given])
    assert len(store) == 0


@pytest.mark.parametrize("name", ["\ud800", "a\udcffb", "a\0b"])
def test_every_message_can_be_written(store, name):
    """Also one that names a file whose name is not Unicode."""
    with pytest.raises(es.EmbedstoreError) as error:
        store.embed(name)
    assert str(error.value).encode("utf-8")


@pytest.mark.parametrize("url", ["http://", "s3://", "https:///", "gs:////"])
def test_a_url_without_a_server_is_refused(store, url):
    """It is told from one whose server does not answer."""
    with pytest.raises(es.SourceNotFound, match="names no server or bucket"):
        store.embed(url)


COPIES = {"copied": copy.deepcopy, "sent": lambda store: pickle.loads(pickle.dumps(store))}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_store_is_open_with_the_same_options(store, how):
    """As a data loader with processes of its own, or joblib, makes of it."""
    store.embed("cat")
    there = COPIES[how](es.open("s", device="cpu", precision="fp32"))
    assert there is not store
    assert there._session.options == es.open("s", device="cpu", precision="fp32")._session.options
    assert [hit.item for hit in there.search(1, k=2)] == [hit.item for hit in store.search(1, k=2)]
    assert os.fspath(there.path) == os.fspath(store.path)
