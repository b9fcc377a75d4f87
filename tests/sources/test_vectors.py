"""Imported vectors: rows stay aligned, names and columns are kept, and bad rows are named."""

import hashlib
import os
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadManifest, BadVectors, SourceNotFound
from embedstore.sources.table_options import TableOptions
from embedstore.sources.vectors import open_vectors, vector_digests
from embedstore.storage.item_columns import FileColumns
from embedstore.storage.sql import decode_path
from embedstore.types import ImageRef

THREE = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 4.0]], dtype=np.float32)


def all_batches(table, size: int = 8192) -> tuple[list[ImageRef], list[str], np.ndarray]:
    """Return every batch together."""
    files, digests, vectors = zip(*table.batches(size), strict=True)
    return list(chain(*map(refs_of, files))), list(chain(*digests)), np.concatenate(vectors)


def refs_of(files: FileColumns) -> list[ImageRef]:
    """Return the references of files that are columns."""
    columns = [files.size, files.mtime_ns, files.label, files.split, files.group]
    paths = map(decode_path, files.uri, files.path)
    return [ImageRef(uri, path, *facts) for uri, path, *facts in zip(files.uri, paths, *columns, strict=True)]


def refusal(vectors, table=None, error=BadVectors, **options) -> str:
    """Return the message, which is one line."""
    with pytest.raises(error) as e:
        open_vectors(vectors, table, TableOptions(**options))
    assert "\n" not in str(e.value)
    return str(e.value)


def attributes(table, folder: Path) -> tuple[dict[str, str], list[tuple]]:
    """Return types and rows of the Parquet file that the source writes."""
    table.write_columns(folder / "a.parquet")
    relation = duckdb.sql(f"FROM '{folder}/a.parquet'")
    return dict(zip(relation.columns, map(str, relation.types), strict=True)), relation.fetchall()


def test_a_file_and_its_table_are_read_row_by_row(tmp_path):
    """uri, label, split and group come from the table; other columns are typed; vectors are float32."""
    np.save(tmp_path / "v.npy", THREE.astype(np.float64))
    (tmp_path / "t.csv").write_text("uri,label,split,year\nx,cat,training,2001\ny,dog,,2002\nz,,test,\n")
    table = open_vectors(tmp_path / "v.npy", tmp_path / "t.csv")
    assert (table.rows, table.dim, table.columns) == (3, 2, {"year": "BIGINT"})
    assert table.description == str(tmp_path / "v.npy")
    refs, digests, vectors = all_batches(table)
    assert refs == [
        ImageRef("x", "x", 0, 0, "cat", "train"),
        ImageRef("y", "y", 0, 0, "dog"),
        ImageRef("z", "z", 0, 0, None, "test"),
    ]
    np.testing.assert_array_equal(vectors, THREE)
    assert vectors.dtype == np.float32
    assert digests == [hashlib.sha256(b"vector:" + row.tobytes()).hexdigest()[:32] for row in THREE]
    assert attributes(table, tmp_path) == (
        {"uri": "VARCHAR", "year": "BIGINT"}, [("x", 2001), ("y", 2002), ("z", None)],
    )  # fmt: skip


def test_the_digest_is_that_of_the_little_endian_floats():
    """It is worked out by hand; equal vectors have one content, whatever their type was."""
    want = hashlib.sha256(b"vector:" + b"\x00\x00\x80\x3f" + b"\x00\x00\x00\xc0").hexdigest()[:32]
    assert vector_digests(np.array([[1, -2]], dtype=np.float32)) == [want]
    for kind in (">f4", "<f8", "f2", "i1", "i8"):
        assert all_batches(open_vectors(np.array([[1, -2]], dtype=kind)))[1] == [want]


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "dict", "frame", "lists"])
def test_every_kind_of_table_is_read_alike(tmp_path, kind):
    """Files, a dict of arrays or lists, and a DataFrame give the same rows; NULLs stay NULL."""
    columns = {"uri": ["a", "b", "c"], "label": ["x", None, "z"], "n": [1, 2, 3], "f": [0.5, None, 2.5]}
    frame = pd.DataFrame(columns)
    if kind == "csv":
        frame.to_csv(tmp_path / "t.csv", index=False)
        table = tmp_path / "t.csv"
    elif kind == "parquet":
        duckdb.sql(f"COPY frame TO '{tmp_path}/t.parquet'")
        table = str(tmp_path / "t.parquet")
    elif kind == "jsonl":
        frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
        table = tmp_path / "t.jsonl"
    else:
        table = {"dict": {k: np.array(v) for k, v in columns.items()}, "frame": frame, "lists": columns}[kind]
    opened = open_vectors(THREE, table)
    assert [(r.uri, r.label) for r in all_batches(opened)[0]] == [("a", "x"), ("b", None), ("c", "z")]
    assert set(opened.columns) == {"n", "f"}
    rows = attributes(opened, tmp_path)[1]
    assert [r[1] for r in rows] == [1, 2, 3]
    assert [None if r[2] is None or np.isnan(r[2]) else r[2] for r in rows] == [0.5, None, 2.5]


def test_the_column_of_the_images_can_be_named():
    """This holds in any case; the column becomes the uri and is not kept under its own name."""
    table = open_vectors(THREE, {"File": ["a", "b", "c"], "n": [1, 2, 3]}, TableOptions(uri_column="file"))
    assert [r.uri for r in all_batches(table)[0]] == ["a", "b", "c"]
    assert set(table.columns) == {"n"}
    message = refusal(THREE, {"File": ["a", "b", "c"]}, BadManifest, uri_column="fill")
    assert "no column 'fill'" in message
    assert "did you mean File?" in message


def test_without_a_uri_a_row_is_named_by_its_file_and_number(tmp_path):
    """This holds for a table without uris, whose columns are kept, and without any table."""
    np.save(tmp_path / "v.npy", THREE)
    want = [f"{tmp_path}/v.npy#{i}" for i in range(3)]
    table = open_vectors(tmp_path / "v.npy", {"label": ["x", "y", "z"], "n": [1, 2, 3]})
    refs = all_batches(table)[0]
    assert [(r.uri, r.label, r.size) for r in refs] == list(zip(want, "xyz", [0] * 3, strict=True))
    assert set(table.columns) == {"n"}
    bare = open_vectors(tmp_path / "v.npy")
    assert [r.uri for r in all_batches(bare)[0]] == want
    assert bare.columns == {}
    assert attributes(bare, tmp_path) == ({"uri": "VARCHAR"}, [(w,) for w in want])


def test_arrays_are_named_by_their_content():
    """Two arrays never share names; the same array imported again does."""
    first, again, other = (all_batches(open_vectors(v))[0][0].uri for v in (THREE, THREE.copy(), THREE + 1))
    assert first == again
    assert first != other
    assert first.startswith("vectors-")
    assert first.endswith("#0")


def test_a_uri_of_a_file_becomes_absolute_with_size_and_mtime(tmp_path):
    """So a later scan of the folder finds the same items, also those that come later; other names stay as they are."""
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "a.jpg").write_bytes(b"12345")
    os.utime(tmp_path / "p" / "a.jpg", ns=(1, 1_600_000_000_000_000_007))
    (tmp_path / "t.csv").write_text("uri\np/../p/a.jpg\np/gone.jpg\nhttps://example.org/x.jpg\n")
    refs = all_batches(open_vectors(THREE, tmp_path / "t.csv"))[0]
    path = str(tmp_path / "p" / "a.jpg")
    assert refs[0] == ImageRef(path, path, 5, 1_600_000_000_000_000_007)
    assert [(r.uri, r.size, r.mtime_ns) for r in refs[1:]] == [
        (str(tmp_path / "p" / "gone.jpg"), 0, 0),
        ("https://example.org/x.jpg", 0, 0),
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 25), st.integers(1, 5))
def test_batches_of_any_size_are_the_rows_in_order(rows, size, dim):
    """Vectors, names and labels stay aligned."""
    vectors = np.arange(1, rows * dim + 1, dtype=np.float32).reshape(rows, dim)
    table = open_vectors(vectors, {"uri": [f"u{i}" for i in range(rows)], "label": [f"l{i}" for i in range(rows)]})
    assert [len(b[0]) for b in table.batches(size)] == [min(size, rows - i) for i in range(0, rows, size)]
    refs, digests, got = all_batches(table, size)
    assert [(r.uri, r.label) for r in refs] == [(f"u{i}", f"l{i}") for i in range(rows)]
    np.testing.assert_array_equal(got, vectors)
    assert digests == vector_digests(vectors)


# ---- refused


def test_different_numbers_of_rows_are_both_named():
    """Rows cannot be guessed."""
    assert "has 3 vectors and the table has 2 rows" in refusal(THREE, {"uri": ["a", "b"]})
    assert "{'uri': 3, 'n': 2}" in refusal(THREE, {"uri": ["a", "b", "c"], "n": [1, 2]}, BadManifest)


@pytest.mark.parametrize(
    ("bad", "what"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite"), (1e300, "infinite"), (0.0, "zeros")]
)
def test_unusable_rows_are_named(bad, what):
    """NaN, infinity, values beyond float32 and zeros are named by row, also beyond the first chunk."""
    vectors = np.ones((20_000, 3))
    vectors[[7, 15_000]] = bad
    message = refusal(vectors)
    assert what in message
    assert "row 7 " in message
    vectors[7] = 1
    assert "row 15000 " in refusal(vectors)


def test_many_bad_rows_are_not_all_listed():
    """The message lists the first five."""
    vectors = np.ones((20, 2))
    vectors[3:] = np.nan
    assert "row 3, 4, 5, 6, 7 and more" in refusal(vectors)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (np.ones(3), "shape (3,)"),
        (np.ones((2, 2, 2)), "shape (2, 2, 2)"),
        (np.ones((0, 4)), "shape (0, 4)"),
        (np.ones((4, 0)), "shape (4, 0)"),
        (np.array([["a"]]), "not numbers"),
        (np.array([[1, None]], dtype=object), "not numbers"),
        (np.array([[1 + 2j]]), "not numbers"),
        (np.array([[True]]), "not numbers"),
    ],
)
def test_an_array_that_is_not_a_matrix_of_numbers_is_refused(array, what):
    """The message names the shape or the type."""
    assert what in refusal(array)


def test_other_files_are_refused_and_no_pickle_is_loaded(tmp_path):
    """Text, a truncated file, an archive of arrays, and an object array whose loading would run code."""

    class Bomb:
        def __reduce__(self):
            return (Path(tmp_path / "exploded").touch, ())

    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "whole.npy", np.ones((100, 100)))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:5000])
    np.savez(tmp_path / "many.npz", a=THREE, b=THREE)
    np.save(tmp_path / "bomb.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    for name in ("text.npy", "cut.npy", "many.npz", "bomb.npy"):
        assert name in refusal(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


def test_missing_files_are_named(tmp_path):
    """This holds for the vectors, the table, and a FIFO that would block."""
    np.save(tmp_path / "v.npy", THREE)
    assert "none.npy" in refusal(tmp_path / "none.npy", error=SourceNotFound)
    assert "none.csv" in refusal(tmp_path / "v.npy", tmp_path / "none.csv", SourceNotFound)
    os.mkfifo(tmp_path / "fifo.npy")
    assert "fifo.npy" in refusal(tmp_path / "fifo.npy", error=SourceNotFound)


def test_unusable_tables_are_refused():
    """A uri twice or empty, a reserved name, and an object that is not a table."""
    assert "names a in rows 1, 3" in refusal(THREE, {"uri": ["a", "b", "a"]}, BadManifest)
    assert "row 2 has no uri" in refusal(THREE, {"uri": ["a", None, "c"]}, BadManifest)
    message = refusal(THREE, {"path": ["a", "b", "c"]}, BadManifest)
    assert "my_path" in message
    assert "uri_column" in message
    assert "cannot be read" in refusal(THREE, 17, BadManifest)


def test_real_clip_vectors_are_imported_unchanged(shared_data):
    """The shared CIFAR-500 vectors: 500 rows of 512, unit length, in the file's order."""
    path = shared_data / "clip_vectors" / "cifar500_image_vectors.npy"
    table = open_vectors(path)
    assert (table.rows, table.dim) == (500, 512)
    vectors = all_batches(table)[2]
    np.testing.assert_array_equal(vectors, np.load(path).astype(np.float32))
    assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
