"""Parquet files that hold the images: read in place by their uri alone, with Hugging Face's classes and splits."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadManifest, ImageError, SourceError
from embedstore.sources.locations import read_location, stat_location
from embedstore.sources.open import open_source
from embedstore.sources.parquet.row_uri import RowUri, parse_row_uri
from embedstore.sources.table_options import TableOptions
from embedstore.types import FailureReason
from tests.helpers.parquet_files import IMAGE, class_label, data_set, hf_rows, png, write_hf
from tests.helpers.scans import scan


def columns_of(source, folder: Path) -> list[tuple]:
    """Return the rows of the columns that a source writes, without the uri."""
    source.write_columns(folder / "columns.out")
    names = ", ".join(f'"{name}"' for name in source.columns)
    return duckdb.sql(f"SELECT {names} FROM read_parquet('{folder / 'columns.out'}')").fetchall()


# ---- rows and uris


@pytest.mark.parametrize("kind", ["bytes", "structure"])
@pytest.mark.parametrize("writer", ["pyarrow", "duckdb"])
def test_every_row_is_an_item_and_its_uri_alone_reads_it_again(tmp_path, kind, writer):
    """Rows of several row groups come back in order, whichever library wrote the file."""
    images = [png(n) for n in range(5000)]
    column = pa.array(images) if kind == "bytes" else hf_rows(images)
    file, given_rows = tmp_path / "a.parquet", pa.table({"image": column})
    if writer == "pyarrow":
        pq.write_table(given_rows, file, row_group_size=2100)
    else:
        duckdb.sql(f"COPY (FROM given_rows) TO '{file}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")
    assert pq.ParquetFile(file).num_row_groups == 3
    source = open_source(file)
    refs, failures = scan(source)
    assert failures == []
    assert [r.uri for r in refs] == [f"{file}#column=image&row={n}" for n in range(5000)]
    assert list(source.read(refs)) == images
    for n in (4999, 0, 2100, 2099, 2047, 2048):
        assert read_location(refs[n].uri) == images[n]
        assert stat_location(refs[n].uri) == refs[n]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1).filter(lambda t: "\0" not in t), NAMES, st.integers(0, 10**18 - 1))
def test_a_uri_gives_back_file_column_and_row(folder, column, row):
    """Names with quotes, `&`, `#` and `/` are kept apart, and the column never looks like a folder."""
    uri = RowUri(f"/{folder}/x.parquet", column, row)
    assert parse_row_uri(str(uri)) == uri
    assert str(uri).rpartition("/")[2].startswith("x.parquet#column=")


@settings(max_examples=40, deadline=None)
@given(NAMES)
def test_a_column_of_any_name_is_read(tmp_path_factory, name):
    """Quotes and reserved characters in the name of the column of images change nothing."""
    file = tmp_path_factory.mktemp("any") / "a#b&c.parquet"
    pq.write_table(pa.table({name: pa.array([png(1), png(2)])}), file)
    refs, failures = scan(open_source(file, table=TableOptions(uri_column=name)))
    assert failures == []
    assert [read_location(r.uri) for r in refs] == [png(1), png(2)]


def test_a_file_with_the_name_of_a_row_is_a_file(tmp_path):
    """The name of an existing file is never taken for a row."""
    write_hf(tmp_path / "a.parquet", {"image": hf_rows([png(1)])}, {"image": IMAGE})
    named = tmp_path / "a.parquet#column=image&row=0"
    named.write_bytes(png(2))
    assert read_location(str(named)) == png(2)


@pytest.mark.parametrize(
    ("fragment", "reason"),
    [
        ("#column=image&row=2", FailureReason.MISSING),
        ("#column=other&row=0", FailureReason.MISSING),
        ("#column=n&row=0", FailureReason.NOT_AN_IMAGE),
    ],
)
def test_a_uri_of_nothing_is_a_failure(tmp_path, fragment, reason):
    """A row or column that is not there has a reason."""
    pq.write_table(pa.table({"image": [png(1), png(2)], "n": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ImageError) as e:
        read_location(f"{tmp_path / 'a.parquet'}{fragment}")
    assert e.value.reason is reason


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    """What is kept of an open file is forgotten when its size or time changes."""
    file = write_hf(tmp_path / "a.parquet", {"image": hf_rows([png(1)])}, {"image": IMAGE})
    [first], _ = scan(open_source(file))
    assert read_location(first.uri) == png(1)
    write_hf(file, {"image": hf_rows([png(2)])}, {"image": IMAGE})
    [second], _ = scan(open_source(file))
    assert read_location(first.uri) == png(2)
    assert second.mtime_ns != first.mtime_ns


# ---- Hugging Face


def test_classes_have_their_names_and_columns_their_types(tmp_path):
    """Numbers of classes become names, -1 is no label, and the name of the file is the split."""
    file = write_hf(
        tmp_path / "validation-00000-of-00001.parquet",
        {
            "image": hf_rows([png(n) for n in range(3)], ["a.png", None, "c.png"]),
            "label": pa.array([1, 0, -1]),
            "tags": pa.array([[0, 1], [], None], type=pa.list_(pa.int64())),
            "year": pa.array([2020, None, 2022], type=pa.int16()),
            "id": ["x", "y", "z"],
        },
        {
            "image": IMAGE,
            "label": class_label("cat", "it's a dog"),
            "tags": {"feature": class_label("x", "y"), "_type": "Sequence"},
            "year": {"dtype": "int16", "_type": "Value"},
        },
    )
    source = open_source(file)
    refs, _ = scan(source)
    assert [(r.label, r.split) for r in refs] == [("it's a dog", "val"), ("cat", "val"), (None, "val")]
    assert source.columns == {"tags": "VARCHAR[]", "year": "SMALLINT", "id": "VARCHAR", "image_path": "VARCHAR"}
    assert columns_of(source, tmp_path) == [
        (["x", "y"], 2020, "x", "a.png"),
        ([], None, "y", None),
        (None, 2022, "z", "c.png"),
    ]


def test_the_only_column_of_classes_is_the_label(tmp_path):
    """Data sets that call it ``labels`` need no option."""
    table = {"img": hf_rows([png(1)]), "labels": pa.array([1])}
    file = write_hf(tmp_path / "a.parquet", table, {"img": IMAGE, "labels": class_label("a", "b")})
    assert [r.label for r in scan(open_source(file))[0]] == ["b"]


@pytest.mark.parametrize("number", [-2, 2, 2**40])
@pytest.mark.parametrize("in_list", [False, True])
def test_a_class_without_a_name_is_refused(tmp_path, number, in_list):
    """The row and the column are named; nothing is guessed."""
    values = pa.array([[0], [number]]) if in_list else pa.array([0, number])
    feature = {"feature": class_label("a", "b"), "_type": "List"} if in_list else class_label("a", "b")
    file = write_hf(
        tmp_path / "a.parquet", {"image": hf_rows([png(1), png(2)]), "kind": values}, {"image": IMAGE, "kind": feature}
    )
    with pytest.raises(BadManifest, match="row 2 has a number in the column 'kind'"):
        open_source(file)


@pytest.mark.parametrize("metadata", ["{", "[]", '{"info": 3}', '{"info": {"features": {"label": {"names": [1]}}}}'])
def test_metadata_that_is_not_understood_leaves_the_values(tmp_path, metadata):
    """A file from a stranger may say anything there."""
    table = pa.table({"image": hf_rows([png(1)]), "label": pa.array([7])})
    pq.write_table(table.replace_schema_metadata({"huggingface": metadata}), tmp_path / "a.parquet")
    assert [r.label for r in scan(open_source(tmp_path / "a.parquet"))[0]] == ["7"]


def test_names_of_the_store_get_a_prefix(tmp_path):
    """A data set cannot be renamed by hand, so its columns are."""
    table = {"image": hf_rows([png(1)]), "path": ["p"], "size": [3], "label": pa.array([["a"]])}
    source = open_source(write_hf(tmp_path / "a.parquet", table, {"image": IMAGE}))
    assert list(source.columns) == ["meta_path", "meta_size", "meta_label", "image_path"]


def test_the_real_library_writes_what_is_read(tmp_path):
    """``datasets`` itself writes the file."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(3)], "label": [1, 0, -1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.to_parquet(tmp_path / "train.parquet")
    refs, failures = scan(open_source(tmp_path / "train.parquet"))
    assert failures == []
    assert [(r.label, r.split) for r in refs] == [("dog", "train"), ("cat", "train"), (None, "train")]
    assert [read_location(r.uri) for r in refs] == rows_bytes(rows)


def rows_bytes(rows) -> list[bytes]:
    """Return the images of rows."""
    return [image["bytes"] for image in rows["image"]]


# ---- rows without bytes


@pytest.mark.parametrize("all_missing", [False, True])
def test_a_row_without_bytes_is_read_as_its_path(tmp_path, all_missing):
    """Paths are relative to the file; a row with neither is a failure with a reason."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(png(1))
    images = [None if all_missing else png(0), None, None, None, None]
    paths = ["x.png", "photos/a.png", None, "", "photos/gone.png"]
    file = write_hf(tmp_path / "a.parquet", {"image": hf_rows(images, paths)}, {"image": IMAGE})
    source = open_source(file)
    refs, failures = scan(source)
    reasons = {f.uri: f.reason for f in failures}
    assert [read_location(r.uri) for r in refs] == ([png(1)] if all_missing else [png(0), png(1)])
    assert refs[-1].uri == str(tmp_path / "photos" / "a.png")
    assert set(reasons.values()) == {FailureReason.MISSING}
    expected = {f"{file}#column=image&row=2", f"{file}#column=image&row=3", str(tmp_path / "photos" / "gone.png")}
    assert set(reasons) == expected | ({str(tmp_path / "x.png")} if all_missing else set())


def test_paths_start_from_a_root_if_one_is_named(tmp_path):
    """``--root`` means what it means for a table of paths."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(png(1))
    file = write_hf(tmp_path / "a.parquet", {"image": hf_rows([None], ["a.png"])}, {"image": IMAGE})
    refs, _ = scan(open_source(file, table=TableOptions(root=tmp_path / "elsewhere")))
    assert [r.uri for r in refs] == [str(tmp_path / "elsewhere" / "a.png")]


def test_a_table_of_paths_stays_one(tmp_path):
    """A column ``uri`` outweighs bytes in the same table."""
    (tmp_path / "a.png").write_bytes(png(1))
    pq.write_table(pa.table({"uri": ["a.png"], "thumbnail": [png(2)]}), tmp_path / "t.parquet")
    assert [r.uri for r in scan(open_source(tmp_path / "t.parquet"))[0]] == [str(tmp_path / "a.png")]
    refs, _ = scan(open_source(tmp_path / "t.parquet", table=TableOptions(uri_column="thumbnail")))
    assert [read_location(r.uri) for r in refs] == [png(2)]


# ---- several columns and files


def test_of_several_columns_of_images_one_is_chosen_or_asked_for(tmp_path):
    """The likely name wins; without one the columns are listed; what is left out is said."""
    pq.write_table(pa.table({"mask": [png(1)], "image": [png(2)]}), tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert [read_location(r.uri) for r in scan(source)[0]] == [png(2)]
    assert "'mask' holds bytes and was left out" in source.notices[0]
    pq.write_table(pa.table({"left": [png(1)], "right": [png(2)]}), tmp_path / "b.parquet")
    with pytest.raises(BadManifest, match=r"left, right.*--uri-column left"):
        open_source(tmp_path / "b.parquet")


@pytest.mark.parametrize("how", ["folder", "glob", "files"])
def test_a_data_set_of_several_files_is_one_source(tmp_path, how):
    """A folder, a glob and the files themselves give the same items, with the splits of the names."""
    images = data_set(tmp_path)
    files = sorted(str(tmp_path / name) for name in images)
    given = {"folder": tmp_path, "glob": f"{tmp_path}/data/*.parquet", "files": files}[how]
    refs, failures = scan(open_source(given))
    assert failures == []
    assert [(r.uri.split("#")[0], r.split, r.label) for r in refs] == [
        (f, Path(f).name.split("-")[0], "cat") for f in files for _ in images[str(Path(f).relative_to(tmp_path))]
    ]
    assert sorted(read_location(r.uri) for r in refs) == sorted(image for rows in images.values() for image in rows)
    assert {r.split for r in scan(open_source(given, split_rule=None))[0]} == {None}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.parquet", "train"),
        ("TRAIN-00000-of-00001-a09b74b3ef9c3b56.parquet", "train"),
        ("validation_001.parquet", "val"),
        ("default/dev/0000.parquet", "val"),
        ("test-train/0000.parquet", None),
        ("photos.parquet", None),
    ],
)
def test_the_split_is_in_the_name_or_the_folder(tmp_path, name, split):
    """Every word for a split is understood, as in folders of images."""
    write_hf(tmp_path / name, {"image": hf_rows([png(1)])}, {"image": IMAGE})
    assert [r.split for r in scan(open_source(tmp_path))[0]] == [split]


def test_a_name_that_states_no_split_beside_others_is_refused(tmp_path):
    """Its images would be in no split, and nobody would see it."""
    for name in ("train-00000-of-00001", "unsupervised-00000-of-00001"):
        write_hf(tmp_path / f"{name}.parquet", {"image": hf_rows([png(1)])}, {"image": IMAGE})
    with pytest.raises(SourceError, match="unsupervised"):
        open_source(tmp_path)
    assert len(scan(open_source(tmp_path, split_rule=None))[0]) == 2


def test_columns_of_several_files_are_joined_by_name(tmp_path):
    """A column that one file lacks is empty there."""
    write_hf(tmp_path / "a.parquet", {"image": hf_rows([png(1)]), "n": [1]}, {"image": IMAGE})
    write_hf(tmp_path / "b.parquet", {"m": ["x"], "image": hf_rows([png(2)])}, {"image": IMAGE})
    source = open_source(tmp_path)
    assert source.columns == {"n": "BIGINT", "image_path": "VARCHAR", "m": "VARCHAR"}
    assert columns_of(source, tmp_path) == [(1, None, None), (None, None, "x")]


def test_a_file_with_a_column_of_splits_needs_no_split_in_its_name(tmp_path):
    """The column states it; and a table without images beside the others is one failure."""
    write_hf(tmp_path / "train.parquet", {"image": hf_rows([png(1)])}, {"image": IMAGE})
    write_hf(tmp_path / "more.parquet", {"image": hf_rows([png(2)]), "split": ["test"]}, {"image": IMAGE})
    write_hf(tmp_path / "dev_facts.parquet", {"n": [1], "split": ["val"]}, {})
    refs, failures = scan(open_source(tmp_path))
    assert sorted(r.split for r in refs) == ["test", "train"]
    assert [(Path(f.uri).name, f.reason) for f in failures] == [("dev_facts.parquet", FailureReason.MISSING)]


def test_a_folder_of_images_with_a_table_stays_one(tmp_path):
    """Parquet files beside photos are skipped and counted, as before."""
    write_hf(tmp_path / "a.parquet", {"image": hf_rows([png(1)])}, {"image": IMAGE})
    (tmp_path / "b.png").write_bytes(png(2))
    assert [Path(r.uri).name for r in scan(open_source(tmp_path))[0]] == ["b.png"]
