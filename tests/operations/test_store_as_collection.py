"""A store behaves like the collection that it is, and every result is a table too."""

from __future__ import annotations

import inspect
import subprocess

import numpy as np
import pandas as pd
import pytest

import embedstore as es
from embedstore.cli import main
from embedstore.tables import OneRow, Table
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Sixty vectors with labels."""
    X, y = clusters(60)
    return store_of(tmp_path_factory.mktemp("collection") / "s", X, label=y, year=[2000 + n for n in range(60)])


def run(capsys, *words):
    """The output of a command, both streams."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main([str(w) for w in words])
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_a_store_has_a_length_items_and_a_context(store):
    """The number of items, the items with their columns in order, and `with` as for a file."""
    with es.open(store.path) as opened:
        assert len(opened) == 60
        frame = opened.items.df()
    assert frame["item"].tolist() == list(range(1, 61))
    assert frame["year"].tolist() == [2000 + n for n in range(60)]
    assert store.items.arrow().column("label").to_pylist()[:3] == ["c0", "c1", "c2"]


def test_an_empty_store_is_true(tmp_path):
    """`if store:` asks whether there is one, not whether it has items."""
    empty = es.create(tmp_path / "s")
    assert len(empty) == 0
    assert empty
    assert empty.items.rows == ()


def test_a_frame_is_embedded_with_its_columns(tmp_path, photos):
    """The uris of a DataFrame are embedded, and its other columns are columns of the items."""
    paths = sorted(str(p) for p in photos.rglob("*.png"))
    new = es.create(tmp_path / "s", "tiny")
    new.embed(pd.DataFrame({"uri": paths, "year": range(len(paths))}))
    assert len(new) == len(paths)
    assert new.items.df().sort_values("uri")["year"].tolist() == list(range(len(paths)))


ELSEWHERE = {"SpaceRecord", "Features", "Store"}  # of rooms below the tables, or no result


def test_every_public_result_is_a_table():
    """What has `to_json` has `df` and `arrow` as well, whichever verb returns it."""
    public = {name: getattr(es, name) for name in es.__all__}
    results = {n: c for n, c in public.items() if inspect.isclass(c) and hasattr(c, "to_json")}
    assert len(results) > 30
    assert {n for n, c in results.items() if not issubclass(c, Table)} <= ELSEWHERE


@pytest.mark.parametrize(
    "make",
    [
        lambda s: s.info(),
        lambda s: s.edit({"year": "year"}, "true"),
        lambda s: s.build_index(kind="flat"),
        lambda s: s.probe("label"),
        lambda s: s.predict(s.save_head("h", s.probe("label", head="ridge")).name),
        lambda s: s.heads[0],
        lambda s: s.label_errors("label", ranked_by="neighbors", near_duplicates="ignore"),
        lambda s: s.duplicates(0.5),
        lambda s: s.search(np.ones(16), k=3),
        lambda s: s.compact(),
        lambda s: s.verify(),
    ],
)
def test_results_convert(store, make):
    """Facts become one row with the names of `to_json`; lists and mappings are JSON text in it."""
    result = make(store)
    frame, table = result.df(), result.arrow()
    assert list(frame.columns) == table.column_names or not len(frame)
    assert len(frame) == table.num_rows
    if isinstance(result, OneRow):
        assert len(frame) == 1
        assert list(frame.columns) == list(result.to_json())


def test_features_say_whether_their_rows_are_unit_vectors(store, tmp_path):
    """The space knows; the rows agree."""
    data = store.features("label")
    assert data.unit is False
    assert not np.allclose(np.linalg.norm(data.X, axis=1), 1)
    other = es.create(tmp_path / "s")
    X, y = clusters(20)
    table = {"uri": [f"/{n}" for n in range(20)], "label": y}
    other.add_vectors(X / np.linalg.norm(X, axis=1, keepdims=True), table)
    assert other.features("label").unit == other.spaces[0].space.unit


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--where", "year > 3000"], "no item matches --where 'year > 3000'"),
        (["--min-score", "0.9999", "--where", "item = 2"], "--where 'item = 2' and --min-score 0.9999"),
        (["--offset", "500"], "--offset 500"),
    ],
)
def test_a_search_without_a_match_says_so(store, capsys, options, words):
    """A sentence with what excluded the items; a table of nothing is not printed."""
    out, err = run(capsys, "search", store.path, "--item", "1", *options)
    assert words in err
    assert out == ""


def test_info_says_where_the_weights_came_from(tmp_path, capsys):
    """The origin and the digest of the weights of each space with a backbone."""
    es.create(tmp_path / "s", "tiny")
    out, _ = run(capsys, "info", tmp_path / "s")
    assert "weights from bundled with embedstore" in out


TEXTS = [
    "tulips",
    "labrador-retriever",
    "dog house",
    "2nd",
    "o'brien",
    "cat,dog",
    "a/b",
    "Süßigkeit",
    '"tulips"',
    "'tulips",
    "cat (small)",
    "5 % off!",
    "$HOME",
    "a;b",
    "select",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_without_quotes_gets_a_cure_that_sets_it(store, capsys, text):
    """`--set label=dog house` is no SQL; what the message says to write in a shell sets the whole text."""
    with pytest.raises(SystemExit, match="1"):
        main(["edit", str(store.path), "--set", f"label={text}", "--where", "item = 1"])
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    run(capsys, "edit", store.path, "--set", *shell_words(err.split("write --set ")[1].strip()), "--where", "item = 1")
    assert store.sql("SELECT label FROM items WHERE item = 1").rows == ((text.strip("\"'"),),)


def shell_words(text):
    """The words that bash makes of a text."""
    done = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def test_a_label_that_is_set_to_nothing_gets_a_cure(store, capsys):
    """`--set label=` says how values are removed."""
    with pytest.raises(SystemExit, match="1"):
        main(["edit", str(store.path), "--set", "label=", "--where", "item = 1"])
    cure = capsys.readouterr().err.split("--set ")[1].strip()
    run(capsys, "edit", store.path, "--set", *shell_words(cure), "--where", "item = 1")
    assert store.sql("SELECT label FROM items WHERE item = 1").rows == ((None,),)
