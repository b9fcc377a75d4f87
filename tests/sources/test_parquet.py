"""Parquet files that hold the images: read in place by their uri alone, with Hugging Face's classes and splits."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest, ImageError, SourceError, SourceNotFound
from embedstore.sources.locations import read_location, stat_location
from embedstore.sources.open import open_source
from embedstore.sources.parquet import rows as parquet_rows
from embedstore.sources.parquet.row_uri import RowUri, parse_row_uri
from embedstore.sources.table_options import TableOptions
from embedstore.types import Failure, FailureReason, ImageRef
from tests.helpers.parquet_files import class_label, hf_rows, png, write_hf

IMAGE = {"_type": "Image"}


def scan(source) -> tuple[list[ImageRef], list[Failure]]:
    """Return what a scan yields."""
    entries = list(source.scan())
    return [e for e in entries if isinstance(e, ImageRef)], [e for e in entries if isinstance(e, Failure)]


def columns_of(source, folder: Path) -> list[tuple]:
    """Return the rows of the columns that a source writes, without the uri."""
    source.write_columns(folder / "columns.out")
    names = ", ".join(f'"{name}"' for name in source.columns)
    return duckdb.sql(f"SELECT {names} FROM read_parquet('{folder / 'columns.out'}')").fetchall()


def overwrite_images(file: Path, images: list[bytes]) -> None:
    """Destroy the images in a file without a change of its size and time."""
    status, data = file.stat(), file.read_bytes()
    for image in images:
        data = data.replace(image, b"\0" * len(image))
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not any(image in data for image in images)
    parquet_rows.forget_open_files()
    assert read_location(f"{file}#column=image&row=0") != images[0]
    parquet_rows.forget_open_files()


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
    """``datasets`` itself writes the file; its saved folders are refused with a cure that works."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    rows = {"image": [{"bytes": png(n), "path": f"{n}.png"} for n in range(3)], "label": [1, 0, -1]}
    data = datasets.Dataset.from_dict(rows, features=features)
    data.save_to_disk(tmp_path / "saved")
    with pytest.raises(BadManifest, match="to_parquet"):
        open_source(tmp_path / "saved")
    with pytest.raises(BadManifest, match="to_parquet"):
        open_source(next((tmp_path / "saved").glob("*.arrow")))
    datasets.load_from_disk(tmp_path / "saved").to_parquet(tmp_path / "train.parquet")
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


def data_set(folder: Path) -> dict[str, list[bytes]]:
    """Write a downloaded data set: two files of train, one of test, and what lies beside them."""
    features = {"image": IMAGE, "label": class_label("cat", "dog")}
    images = {
        "data/train-00000-of-00002.parquet": [png(n) for n in range(4)],
        "data/train-00001-of-00002.parquet": [png(n) for n in range(10, 13)],
        "data/test-00000-of-00001.parquet": [png(20)],
    }
    for name, rows in images.items():
        write_hf(folder / name, {"image": hf_rows(rows), "label": pa.array([0] * len(rows))}, features, 2)
    (folder / "README.md").write_text("x")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.parquet").write_bytes(b"x")
    return images


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


# ---- bad input


def test_a_broken_file_among_others_is_one_failure(tmp_path):
    """The rows of the other files are items."""
    data_set(tmp_path)
    broken = tmp_path / "data" / "train-00001-of-00002.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    refs, failures = scan(open_source(tmp_path))
    assert len(refs) == 5
    assert [(f.uri, f.reason) for f in failures] == [(str(broken), FailureReason.CORRUPT)]


def test_a_broken_file_alone_is_one_line(tmp_path):
    """It names the file."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is not one")
    with pytest.raises(BadManifest, match=r"a\.parquet"):
        open_source(tmp_path / "a.parquet")
    with pytest.raises(SourceNotFound, match="no file matches"):
        open_source(f"{tmp_path}/*.pq")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_is_worse_than_failures(tmp_path_factory, data):
    """Cut anywhere, or with any byte changed, a file is refused in one line or every row is an image or a failure."""
    file = write_hf(
        tmp_path_factory.mktemp("damage") / "a.parquet",
        {"image": hf_rows([png(n) for n in range(8)]), "label": pa.array([0] * 8)},
        {"image": IMAGE, "label": class_label("a")},
        3,
    )
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        source = open_source(file)
    except SourceError as e:
        message = str(e)
    else:
        message = ""
        refs, _ = scan(source)
        assert all(isinstance(entry, bytes | Failure) for entry in source.read(refs))
    assert "\n" not in message


def test_a_row_that_cannot_be_read_costs_no_other_row(tmp_path):
    """Bytes that are no image, no bytes at all and NULL each have a reason."""
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"image": pa.array([png(1), b"", None, b"not an image", png(2)])}), file)
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    report = store.embed(file)
    assert report.embedded == 2
    assert report.failures_by_reason == {"empty": 1, "missing": 1, "not_an_image": 1}


def test_an_image_that_needs_too_much_memory_is_a_failure(tmp_path, monkeypatch):
    """The limit of DuckDB's memory is a reason with a cure; the rows of other groups are read."""
    monkeypatch.setattr(parquet_rows, "MEMORY_LIMIT", "40MB")
    monkeypatch.setattr(parquet_rows, "_files", parquet_rows._OpenFiles())
    file = tmp_path / "a.parquet"
    table = pa.table({"image": pa.array([png(1), bytes(100 << 20), png(2)])})
    pq.write_table(table, file, row_group_size=1, compression="zstd")
    source = open_source(file)
    refs, _ = scan(source)
    first, huge, last = source.read(refs)
    assert (first, last) == (png(1), png(2))
    assert (huge.reason, "ROW_GROUP_SIZE" in huge.detail) == (FailureReason.NO_MEMORY, True)


# ---- rescans


def test_a_rescan_reads_no_image(tmp_path):
    """With every image destroyed on the disk, a rescan of a file of the same size and time finds nothing to do."""
    images = [png(n) for n in range(300)]
    file = write_hf(tmp_path / "train.parquet", {"image": hf_rows(images)}, {"image": IMAGE})
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(file).embedded == 300
    overwrite_images(file, images)
    report = store.embed(file)
    assert (report.unchanged, report.embedded, report.failures_by_reason) == (300, 0, {})


@pytest.mark.parametrize("statistics", [True, False])
def test_which_rows_have_no_bytes_is_read_once(tmp_path, statistics):
    """Where the statistics do not say it, the store keeps it; damage of what it keeps changes nothing."""
    images = [png(n) if n % 3 else None for n in range(90)]
    table = pa.table({"image": hf_rows(images, [f"{n}.png" for n in range(90)])})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=40, write_statistics=statistics)
    (tmp_path / "kept").mkdir()
    first = list(open_source(tmp_path / "a.parquet", listings=tmp_path / "kept").scan())
    assert [isinstance(e, ImageRef) for e in first] == [n % 3 != 0 for n in range(90)]
    [kept] = (tmp_path / "kept").iterdir()
    for content in (kept.read_bytes(), b"{}", kept.read_bytes().replace(b'"count": 30', b'"count": 31')):
        kept.write_bytes(content)
        assert list(open_source(tmp_path / "a.parquet", listings=tmp_path / "kept").scan()) == first
    status = kept.read_text()
    kept.write_text(status.replace("[[0, 1], ", "[[0, 2], ").replace('"count": 30', '"count": 31'))
    again = list(open_source(tmp_path / "a.parquet", listings=tmp_path / "kept").scan())
    assert isinstance(again[1], Failure)  # what is kept is what is used


def test_many_threads_read_the_same_rows(tmp_path):
    """Each thread gets the bytes of its rows, in whatever order they ask."""
    random = np.random.default_rng(0)
    images = [random.bytes(300_000) for _ in range(200)]
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet", row_group_size=90)
    refs, _ = scan(open_source(tmp_path / "a.parquet"))
    order = random.permutation(200)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda n: read_location(refs[n].uri), order)) == [images[n] for n in order]


def test_rows_that_are_gone_are_missing_and_others_stay(tmp_path):
    """A shorter file loses its last rows; a scan of the folder above, and of another column, touches no row."""
    folder = tmp_path / "d"
    table = {"image": hf_rows([png(n) for n in range(4)]), "mask": pa.array([png(10 + n) for n in range(4)])}
    file = write_hf(folder / "a.parquet", table, {"image": IMAGE})
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(file).embedded == 4
    assert (store.embed(file, uri_column="mask").embedded, store.embed(file).missing) == (4, 0)
    write_hf(file, {"image": hf_rows([png(n) for n in range(3)])}, {"image": IMAGE})
    assert store.embed(file).missing == 1
    (folder / "x.png").write_bytes(png(50))
    report = store.embed(folder)
    assert (report.embedded, report.missing) == (1, 0)


def test_a_data_set_that_lost_a_file_loses_its_rows(tmp_path):
    """The folder is covered completely; a file that cannot be read says nothing of its rows."""
    data_set(tmp_path / "d")
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    assert store.embed(tmp_path / "d").embedded == 8
    broken = tmp_path / "d" / "data" / "train-00000-of-00002.parquet"
    broken.write_bytes(broken.read_bytes()[:-20])
    assert store.embed(tmp_path / "d").missing == 0
    broken.unlink()
    assert store.embed(tmp_path / "d").missing == 4


KILLED_RUN = """
import os, sys, threading
import embedstore as es
from embedstore.sources import source
from embedstore.sources.locations import read_location
reads = 0
def read(path):
    global reads
    reads += 1
    if reads > int(sys.argv[3]):
        os.kill(os.getpid(), 9)
    return read_location(path)
source.read_location = read
es.open(sys.argv[1], device="cpu").embed(sys.argv[2])
"""


def test_a_run_that_was_killed_twice_ends_complete(tmp_path):
    """Each run goes on from the last commit; at the end every row is an item once."""
    images = [png(n) for n in range(2000)]
    file = write_hf(tmp_path / "train.parquet", {"image": hf_rows(images)}, {"image": IMAGE}, 700)
    assert pq.ParquetFile(file).num_row_groups == 3
    es.create(tmp_path / "s", "embedstore/tiny", device="cpu").close()
    for reads in (700, 1400):
        command = [sys.executable, "-c", KILLED_RUN, str(tmp_path / "s"), str(file), str(reads)]
        killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=False)
        assert killed.returncode == -9
    store = es.open(tmp_path / "s", device="cpu")
    report = store.embed(file)
    assert report.embedded + report.reused + report.unchanged == 2000
    assert store.sql("SELECT count(*), count(DISTINCT content) FROM items").rows == ((2000, 2000),)


MEMORY = """
import resource, sys
from embedstore.sources.open import open_source
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
source = open_source(sys.argv[1])
refs = list(source.scan())
total = sum(len(data) for data in source.read(refs[: len(refs) // 4])); first = peak()
total += sum(len(data) for data in source.read(refs[len(refs) // 4 :]))
print(total, first, peak())
"""


def test_memory_stays_flat(tmp_path):
    """Reading 240 MB of images in row groups of 6 MB needs no more memory at the end than after the first quarter."""
    random = np.random.default_rng(0)
    table = pa.table({"image": pa.array([random.bytes(60_000) for _ in range(4000)])})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100)
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "a.parquet")]
    out = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(Path.cwd())}, check=True, capture_output=True, text=True
    )
    total, first, last = map(int, out.stdout.split())
    assert total == 240_000_000
    assert last - first < 48
