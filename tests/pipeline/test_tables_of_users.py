"""Tables through the public verbs: embed, edit and import read them alike, and nothing is lost or found by accident."""

import os
import unicodedata
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadManifest, QueryError, SourceError

X = np.eye(3, 4, dtype=np.float32)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three images in ``p``, and an empty store with the small bundled network."""
    (tmp_path / "p").mkdir()
    for n, name in enumerate(("a.png", "b.png", unicodedata.normalize("NFD", "café.png"))):
        Image.new("RGB", (16, 16), (n * 90, 0, 60)).save(tmp_path / "p" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def store(photos):
    return es.create(photos / "s.store", "tiny")


def items(store, *columns: str) -> list[tuple]:
    """Return columns of the items, the uri as a file name in NFC first."""
    rows = store.sql(f"SELECT {', '.join(('uri', *columns))} FROM items ORDER BY item").rows
    return [(unicodedata.normalize("NFC", Path(uri).name), *rest) for uri, *rest in rows]


def test_tables_in_memory_are_manifests(store, photos):
    """A DataFrame, an Arrow table and a dict of columns; relative uris start from the working folder."""
    big = 2**100
    report = store.embed(pd.DataFrame({"uri": ["p/a.png"], "label": ["x"], "big": [big]}), progress=False)
    assert report.embedded == 1
    store.embed(pa.table({"uri": ["p/a.png"], "hash": pa.array([2**63 + 1], pa.uint64())}), progress=False)
    store.embed({"uri": ["p/a.png"], "tags": [["u", "v"]]}, progress=False)
    assert items(store, "label", "big", "hash", "tags") == [("a.png", "x", big, 2**63 + 1, ["u", "v"])]
    store.export(photos / "out.parquet")
    assert duckdb.sql(f"SELECT big::HUGEINT, hash FROM '{photos}/out.parquet'").fetchall() == [(big, 2**63 + 1)]
    store.export_store(photos / "archive")
    es.import_store(photos / "copy.store", photos / "archive")
    assert items(es.open(photos / "copy.store"), "big", "hash") == [("a.png", big, 2**63 + 1)]


def test_the_column_and_the_folder_of_the_images_can_be_named(store, photos):
    """``uri_column`` and ``root``; the message without them names the option, and following it works."""
    (photos / "tables").mkdir()
    (photos / "tables" / "m.csv").write_text("image;label\na.png;cat\nb.png;dog\n")
    with pytest.raises(BadManifest, match="--uri-column image"):
        store.embed(photos / "tables" / "m.csv", progress=False)
    report = store.embed(photos / "tables" / "m.csv", uri_column="image", root="p", progress=False)
    assert (report.embedded, items(store, "label")) == (2, [("a.png", "cat"), ("b.png", "dog")])
    assert any("semicolons" in notice for notice in report.notices)


def test_names_that_look_like_the_files_find_them_and_the_difference_is_said(store, photos):
    """NFC for NFD, and backslashes; another case is not taken, but the file is named."""
    text = "uri,n\np/café.png,1\np\\a.png,2\np/B.PNG,3\n"
    (photos / "m.csv").write_text(unicodedata.normalize("NFC", text))
    report = store.embed(photos / "m.csv", progress=False)
    assert items(store, "n") == [("café.png", 1), ("a.png", 2)]
    assert sum("another spelling" in notice for notice in report.notices) == 2
    ((uri, detail),) = store.sql("SELECT uri, detail FROM failures").rows
    assert uri.endswith("B.PNG")
    assert f"{photos}/p/b.png differs in upper and lower case" in detail
    assert store.embed(photos / "p", progress=False).unchanged == 2  # the folder finds the same items


def test_an_empty_cell_of_a_manifest_leaves_the_value_and_one_of_an_edit_empties_it(store, photos):
    """The rule is one for label, split, group and own columns, and the report counts the values that stay."""
    table = photos / "m.csv"
    table.write_text("uri,label,split,group,year\np/a.png,cat,val,g1,2001\np/b.png,dog,,,2002\n")
    store.embed(table, progress=False)
    before = items(store, "label", "split", "group_id", "year")
    table.write_text("uri,label,split,group,year\np/a.png,,,,\np/b.png,nan, ,,\n")
    report = store.embed(table, progress=False)
    assert items(store, "label", "split", "group_id", "year") == before
    assert any("6 empty cells left the stored values" in notice for notice in report.notices)
    store.edit_from_table(table)
    assert items(store, "label", "split", "group_id", "year") == [("a.png", *[None] * 4), ("b.png", *[None] * 4)]


def test_an_empty_column_takes_the_type_of_its_first_values(store, photos):
    """In any order: values then nothing, nothing then values, by embed and by edit."""
    for year in (("", ""), ("2001", "2002"), ("", "")):
        (photos / "m.csv").write_text(f"uri,year\np/a.png,{year[0]}\np/b.png,{year[1]}\n")
        store.embed(photos / "m.csv", progress=False)
    assert items(store, "year") == [("a.png", 2001), ("b.png", 2002)]
    assert store.edit_from_table({"uri": ["p/a.png"], "note": [None]}).items == 1
    store.edit_from_table({"uri": ["p/a.png"], "note": [0.5]})
    assert items(store, "note") == [("a.png", 0.5), ("b.png", None)]


def test_several_rows_of_an_image_become_lists_on_request(store, photos):
    """Columns that differ become lists in the order of the rows; the others stay values; a label cannot differ."""
    (photos / "m.csv").write_text("uri,caption,year\np/a.png,one,1\np/b.png,two,2\np/a.png,three,1\n")
    with pytest.raises(BadManifest, match="--collect-rows"):
        store.embed(photos / "m.csv", progress=False)
    store.embed(photos / "m.csv", collect_rows=True, progress=False)
    assert items(store, "caption", "year") == [("a.png", ["one", "three"], 1), ("b.png", ["two"], 2)]
    (photos / "l.csv").write_text("uri,label\np/a.png,cat\np/a.png,dog\n")
    with pytest.raises(BadManifest, match=r"cat, dog.*'labels'"):
        store.embed(photos / "l.csv", collect_rows=True, progress=False)
    (photos / "l.csv").write_text("uri,labels\np/a.png,cat\np/a.png,dog\n")
    store.embed(photos / "l.csv", collect_rows=True, progress=False)
    assert items(store, "labels")[0] == ("a.png", ["cat", "dog"])


@pytest.mark.parametrize("word", ["fold3", "validation2", "unlabeled"])
def test_a_split_that_is_not_understood_is_refused_at_every_door(store, photos, word):
    """A manifest, an edit by table, an edit by expression, and a folder next to one that names a split."""
    table = {"uri": ["p/a.png"], "split": [word]}
    with pytest.raises(BadManifest, match=f"'{word}'"):
        store.embed(table, progress=False)
    store.embed("p", progress=False)
    with pytest.raises(BadManifest, match=f"'{word}'"):
        store.edit_from_table(table)
    with pytest.raises(QueryError, match=f"'{word}'"):
        store.edit({"split": f"'{word}'"}, "true")
    for folder in (f"f/{word}/cat", "f/train/cat"):
        (photos / folder).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(photos / folder / "x.png")
    with pytest.raises(SourceError, match=f"'{word}' next to the split train"):
        store.embed("f", progress=False)
    assert {split for _, split in items(store, "split")} == {None}
    store.embed("f", splits_from=None, progress=False)  # the cure in the message
    assert {split for _, split in items(store, "split")} == {None}


def test_an_edit_reads_the_named_file_by_the_rules_of_embed(store, photos):
    """Characters of patterns in the name, relative uris, another root; no match is an error that changes nothing."""
    store.embed("p", progress=False)
    (photos / "byitem [v2].csv").write_text("uri,note\np/a.png,yes\n")
    (photos / "byitem v.csv").write_text("uri,note\np/b.png,NO\n")
    assert store.edit_from_table(photos / "byitem [v2].csv").items == 1
    assert items(store, "note") == [("a.png", "yes"), ("b.png", None), ("café.png", None)]
    with pytest.raises(BadManifest, match="none of the 1 rows") as e:
        store.edit_from_table({"uri": ["b.png"], "note": ["x"]})
    assert "--root" in str(e.value)
    assert store.edit_from_table({"uri": ["b.png", "no.png"], "note": ["x", "y"]}, root="p").to_json() == {
        "items": 1, "unknown": 1,
    }  # fmt: skip
    assert items(store, "note")[1] == ("b.png", "x")


def test_vectors_imported_first_and_images_embedded_later_are_the_same_items(store, photos):
    """Also where the images come after the vectors; the imported vectors stay with the items."""
    uris = ["p/a.png", "p/b.png", "p/late.png"]
    store.add_vectors(X, {"uri": uris, "n": [1, 2, 3]}, space="mine")
    Image.new("RGB", (16, 16), (1, 2, 3)).save("p/late.png")
    store.embed("p", progress=False)
    assert items(store, "n") == [("a.png", 1), ("b.png", 2), ("late.png", 3), ("café.png", None)]
    for n, vector in enumerate(X):
        hit = store.search(vector, space="mine", k=1)[0]
        assert (hit.columns["n"], round(hit.score, 4)) == (n + 1, 1.0)
    assert len(store.search("a dog", k=9)) == 4
    assert store.verify().ok


def test_a_name_that_is_not_utf8_opens_again_by_its_uri(store, photos):
    r"""``\xNN`` stands for a byte: in ``embed``, a manifest, an edit, an image query and a contact sheet."""
    path = os.fsdecode(os.fsencode(photos) + b"/p/caf\xe9.png")
    Image.new("RGB", (16, 16), (200, 0, 0)).save(path)
    store.embed("p", progress=False)
    ((uri,),) = store.sql("SELECT uri FROM items WHERE uri LIKE '%xe9%'").rows
    assert uri == f"{photos}/p/caf\\xe9.png"
    assert store.embed(uri, progress=False).unchanged == 1
    assert store.embed({"uri": [uri], "n": [7]}, progress=False).unchanged == 1
    assert store.edit_from_table({"uri": [uri], "note": ["ok"]}).items == 1
    assert store.search(image=uri, k=1)[0].uri == uri
    assert store.sql("SELECT n, note FROM items WHERE uri LIKE '%xe9%'").rows == ((7, "ok"),)


def test_bytes_in_a_table_never_become_paths(store, photos):
    """Bytes that are no image are a failure of their row, and no file is looked for."""
    pd.DataFrame({"image": [{"bytes": b"x", "path": None}]}).to_parquet(photos / "t.parquet")
    pd.DataFrame({"image": [b"x"]}).to_parquet(photos / "u.parquet")
    for name in ("t.parquet", "u.parquet"):
        for options in ({}, {"uri_column": "image"}):
            report = store.embed(photos / name, progress=False, **options)
            assert report.failures + report.known_failures == 1
    assert {(uri, reason) for uri, reason, *_ in store.failures()} == {
        (f"{photos}/{name}#column=image&row=0", "not_an_image") for name in ("t.parquet", "u.parquet")
    }
