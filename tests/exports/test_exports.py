"""Exports in the formats of other tools, each read back by the reader of that tool."""

import csv
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadOption, EmbedstoreError, QueryError, StoreExists
from embedstore.exports import formats, huggingface, webdataset
from embedstore.storage.transfer import selection
from tests.exports.conftest import jpeg
from tests.helpers.clusters import store_of

FOLDER_FORMATS = ("webdataset", "huggingface", "fiftyone")


def vectors_of(store: es.Store) -> dict[str, np.ndarray]:
    """The vectors by uri, float32, from the Parquet export that other tests hold to the stored bytes."""
    path = store.path.parent / "vectors.parquet"
    store.export(path)
    rows = duckdb.sql(f"SELECT uri, vector FROM '{path}'").fetchall()
    return {uri: np.array(v, np.float32) for uri, v in rows}


def facts(store: es.Store) -> dict[str, tuple]:
    """Label, split and year by uri."""
    return {r[0]: r[1:] for r in store.sql("SELECT uri, label, split, year FROM items ORDER BY item").rows}


# ---- WebDataset


def test_webdataset_reads_the_shards(photos, tmp_path, monkeypatch):
    """Bytes, class, columns and vector of every item, in the order of the items, in several shards per split."""
    wds = pytest.importorskip("webdataset", reason="webdataset is not installed")
    monkeypatch.setattr(webdataset, "SHARD_BYTES", 8000)
    report = photos.export(tmp_path / "out", file_format="webdataset")
    assert (report.rows, report.left_out) == (13, {})
    shards = sorted(str(p) for p in (tmp_path / "out").glob("*.tar"))
    assert len(shards) > 3
    assert {Path(s).name.rsplit("-", 1)[0] for s in shards} == {"train", "val", "unassigned"}
    classes = (tmp_path / "out" / "classes.txt").read_text().splitlines()
    assert classes == ["cat", "dog"]
    expected, vectors, seen = facts(photos), vectors_of(photos), []
    for sample in wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode():
        uri = sample["json"]["uri"]
        label, split, year = expected[uri]
        seen.append((split, int(sample["__key__"])))
        assert (sample["json"].get("label"), sample["json"].get("split"), sample["json"]["year"]) == (
            label,
            split,
            year,
        )
        assert (classes[sample["cls"]] if "cls" in sample else None) == label
        assert np.array_equal(sample["npy"], vectors[uri])
        raw = sample.get("jpg", sample.get("png"))
        assert raw is not None
    assert len(seen) == 13
    assert seen == sorted(seen, key=lambda s: (str(s[0]) if s[0] else "u", s[1])), "in place order within a split"


def test_a_tar_is_one_file_and_comes_back_as_the_same_items(photos, tmp_path):
    """Labels, splits and columns of a second store are those of the first, and so are the contents."""
    report = photos.export(tmp_path / "all.tar", vectors=False, where="label IS NOT NULL")
    assert report.rows == 12
    again = es.create(tmp_path / "again", "embedstore/tiny", device="cpu")
    read = again.embed(tmp_path / "all.tar", progress=False)
    assert (read.embedded, read.failures_by_reason) == (12, {})
    query = "SELECT content::VARCHAR, label, split, year FROM items WHERE label IS NOT NULL ORDER BY content"
    assert again.sql(query).rows == photos.sql(query).rows


def test_the_same_items_give_the_same_tar(photos, tmp_path):
    """No time and no name of a machine is in the file."""
    photos.export(tmp_path / "a.tar")
    photos.export(tmp_path / "b.tar")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


# ---- Hugging Face


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_datasets_loads_the_folder(photos, tmp_path, monkeypatch, dtype):
    """Images, class names, splits, columns and vectors, as `datasets` shows them."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (extra hf)")
    monkeypatch.setattr(huggingface, "ROW_GROUP_BYTES", 3000)
    monkeypatch.setattr(huggingface, "FILE_BYTES", 3000)
    assert photos.export(tmp_path / "out", file_format="huggingface", dtype=dtype).rows == 13
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {"train": 9, "validation": 3, "unassigned": 1}
    features = loaded["train"].features
    assert isinstance(features["image"], datasets.Image)
    assert features["label"].names == ["cat", "dog"]
    expected, vectors = facts(photos), vectors_of(photos)
    for part in loaded.values():
        for row in part.with_format("numpy", columns=["vector"], output_all_columns=True):
            label, split, year = expected[row["source_uri"]]
            assert (row["split"], row["year"]) == (split, year)
            assert (None if row["label"] is None else features["label"].int2str(int(row["label"]))) == label
            assert np.array_equal(np.asarray(row["vector"], np.float32), vectors[row["source_uri"]].astype(dtype))
            assert row["image"].size == (Image.open(row["source_uri"]).size if label else (20, 20))


def test_a_data_set_comes_back_as_the_same_items(photos, tmp_path):
    """Our own reader of Parquet with images reads what was written: contents, class names, splits, columns."""
    photos.export(tmp_path / "out", file_format="huggingface", vectors=False, where="split IS NOT NULL")
    again = es.create(tmp_path / "again", "embedstore/tiny", device="cpu")
    assert again.embed(tmp_path / "out", progress=False).embedded == 12
    query = "SELECT content::VARCHAR, label, split, year FROM items WHERE split IS NOT NULL ORDER BY content"
    assert again.sql(query).rows == photos.sql(query).rows


# ---- Parquet with float16, Lance, CSV


def test_float16_parquet_is_half_floats_for_arrow_and_numbers_for_every_reader(photos, tmp_path):
    """Arrow and pandas keep float16, DuckDB reads FLOAT; every value is the float16 of the vector."""
    pq = pytest.importorskip("pyarrow.parquet")
    pd = pytest.importorskip("pandas")
    path = tmp_path / "half.parquet"
    assert photos.export(path, dtype="float16").rows == 13
    kind = pq.read_schema(path).field("vector").type
    assert str(kind) == f"fixed_size_list<element: halffloat>[{kind.list_size}]"
    expected = [v.astype(np.float16) for v in vectors_of(photos).values()]
    assert np.array_equal(np.stack(pd.read_parquet(path)["vector"]), expected)
    rows = duckdb.sql(f"SELECT vector FROM '{path}' ORDER BY item").fetchall()
    assert np.array_equal(np.array([r[0] for r in rows]), np.array(expected, np.float32))
    assert duckdb.sql(f"SELECT note, year, tags FROM '{path}' ORDER BY item LIMIT 1").fetchall() == [
        ("=1+1", 2001, ["a", "b"])
    ]


@pytest.mark.parametrize(("stored", "written"), [("float16", "halffloat"), ("float32", "float")])
def test_parquet_keeps_the_type_of_the_space(tmp_path, monkeypatch, stored, written):
    """No value changes, and nothing is twice as large; without pyarrow the file has the same rows as FLOAT."""
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra frames is not installed")
    X = np.random.default_rng(0).standard_normal((9000, 6)).astype(np.float32)
    store = es.create(tmp_path / "s")
    store.add_vectors(X, {"uri": [f"u{n:04d}" for n in range(len(X))]}, unit_norm=False, dtype=stored)
    store.export(tmp_path / "kept.parquet")
    vectors = pq.read_table(tmp_path / "kept.parquet").column("vector")
    assert str(vectors.type.value_type) == written
    assert np.array_equal(vectors.combine_chunks().flatten().to_numpy(), X.astype(stored).ravel())
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    monkeypatch.setattr("embedstore.storage.transfer.parquet.PART_ROWS", 4000)
    store.export(tmp_path / "plain.parquet")
    names = ", ".join(f"'{tmp_path / name}.parquet'" for name in ("kept", "plain"))
    with duckdb.connect() as con:
        rows = con.execute(f"SELECT uri, vector::FLOAT[] FROM read_parquet([{names}], union_by_name=true)").fetchall()
    assert rows[:9000] == rows[9000:]
    assert [uri for uri, _ in rows[:9000]] == [f"u{n:04d}" for n in range(9000)]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_lancedb_opens_and_searches_the_table(photos, tmp_path, dtype):
    """The nearest of every vector is the item itself."""
    lancedb = pytest.importorskip("lancedb", reason="lancedb is not installed (extra lance)")
    assert photos.export(tmp_path / "db" / "pets.lance", dtype=dtype).rows == 13
    table = lancedb.connect(tmp_path / "db").open_table("pets")
    assert table.count_rows() == 13
    for uri, vector in vectors_of(photos).items():
        [hit] = table.search(vector).limit(1).to_list()
        assert np.allclose(hit["vector"], vectors_of(photos)[hit["uri"]].astype(dtype), atol=0)
        assert hit["uri"] == uri or np.allclose(vectors_of(photos)[hit["uri"]], vector, atol=1e-3)
    assert sorted(p.name for p in (tmp_path / "db").iterdir()) == ["pets.lance"]


def test_csv_has_every_column_and_no_formula(photos, tmp_path):
    """Python's reader gives the columns; text that a spreadsheet would run begins with an apostrophe."""
    assert photos.export(tmp_path / "x.csv").rows == 13
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["note"] for r in rows][:2] == ["'=1+1", "'=1+2"]
    assert json.loads(rows[0]["tags"]) == ["a", "b"]
    assert {r["uri"]: (r["label"] or None, r["split"] or None, int(r["year"])) for r in rows} == facts(photos)


# ---- FiftyOne


def test_fiftyone_layout_names_local_files_and_writes_the_others(photos, tmp_path):
    """Local images are not copied; a member of an archive is written to data/."""
    report = photos.export(tmp_path / "out", file_format="fiftyone")
    assert report.rows == 13
    samples = json.loads((tmp_path / "out" / "samples.json").read_text())["samples"]
    written = [s["filepath"] for s in samples if not s["filepath"].startswith("/")]
    assert len(written) == 1
    assert Image.open(tmp_path / "out" / written[0]).size == (20, 20)
    assert [s["tags"] for s in samples][:1] == [["train"]]


def test_fiftyone_reads_the_folder(photos, tmp_path):
    """FiftyOne's own importer gives samples with labels, tags, fields and vectors."""
    importers = pytest.importorskip("fiftyone.utils.data.importers", reason="fiftyone is not installed")
    photos.export(tmp_path / "out", file_format="fiftyone")
    expected, vectors, seen = facts(photos), vectors_of(photos), 0
    with importers.LegacyFiftyOneDatasetImporter(str(tmp_path / "out")) as importer:
        for sample in importer:
            label, split, year = expected[sample["uri"]]
            assert (sample["label"].label if sample["label"] else None, sample["year"]) == (label, year)
            assert sample.tags == ([split] if split else [])
            assert np.array_equal(sample["embedding"], vectors[sample["uri"]])
            assert Path(sample.filepath).is_file()
            seen += 1
    assert seen == 13


# ---- what is the same in all


@pytest.mark.parametrize("name", [*(f"--format {f}" for f in FOLDER_FORMATS), ".tar", ".csv", ".parquet", ".lance"])
def test_where_selects_and_an_empty_selection_writes_nothing(photos, tmp_path, name):
    """Every format takes a filter; no match is an error and leaves nothing."""
    if name == ".lance":
        pytest.importorskip("lancedb")
    out = tmp_path / ("out" + (name if name.startswith(".") else ""))
    file_format = name.removeprefix("--format ") if name.startswith("--") else None
    with pytest.raises(QueryError, match="nothing to export"):
        photos.export(out, file_format=file_format, where="year > 3000")
    assert list(tmp_path.iterdir()) == []
    assert photos.export(out, file_format=file_format, where="label = 'cat'").rows == 6


@pytest.mark.parametrize("file_format", ["webdataset", "huggingface", "fiftyone", ".tar"])
def test_images_that_are_gone_or_changed_are_left_out_and_counted(tmp_path, file_format):
    """No vector is exported with an image that it was not computed from."""
    for n in range(4):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    store.embed([tmp_path / f"{n}.jpg" for n in range(4)], progress=False)
    (tmp_path / "1.jpg").unlink()
    if file_format != "fiftyone":  # which gets the path of a local file, and not its bytes
        (tmp_path / "2.jpg").write_bytes(jpeg(9))
    is_tar = file_format == ".tar"
    out = tmp_path / ("out.tar" if is_tar else "out")
    report = store.export(out, file_format=None if is_tar else file_format)
    expected = {"missing": 1} if file_format == "fiftyone" else {"missing": 1, "changed": 1}
    assert (report.rows, report.left_out) == (4 - sum(expected.values()), expected)
    assert "left out" in report.summary()
    assert "1.jpg" in report.summary()


@pytest.mark.parametrize("file_format", [*FOLDER_FORMATS, ".tar"])
def test_an_export_without_any_image_is_refused_and_leaves_nothing(tmp_path, file_format):
    """A store of vectors alone has no images to write."""
    store = store_of(tmp_path / "numbers", np.eye(4, dtype=np.float32))
    is_tar = file_format == ".tar"
    with pytest.raises(QueryError, match="none of the images can be read"):
        store.export(tmp_path / ("out.tar" if is_tar else "out"), file_format=None if is_tar else file_format)
    assert [p.name for p in tmp_path.iterdir()] == ["numbers"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("x.pickle", {}, "no format"),
        ("x.csv", {"vectors": True}, "no vectors"),
        ("x.npy", {"dtype": "float16"}, "float32"),
        ("x.npy", {"vectors": False}, "is the vectors"),
        ("x.parquet", {"dtype": "int8"}, "float32 or float16"),
        ("x.parquet", {"file_format": "parket"}, "did you mean parquet"),
        ("x.csv", {"file_format": "lance"}, "FILE.lance"),
        ("x.parquet", {"file_format": "huggingface"}, "a new folder"),
        ("x", {"file_format": "parquet"}, "FILE.parquet"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(photos, tmp_path, name, options, message):
    """One line that names the form to use."""
    with pytest.raises(EmbedstoreError, match=message) as e:
        photos.export(tmp_path / name, **options)
    assert isinstance(e.value, BadOption | QueryError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file_format", FOLDER_FORMATS)
def test_a_folder_is_never_overwritten(photos, tmp_path, file_format):
    """A folder with files, and one inside the store, are refused."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    for folder in (tmp_path / "out", photos.path / "inside"):
        with pytest.raises(StoreExists):
            photos.export(folder, file_format=file_format)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_columns_that_a_format_uses_itself_are_kept_apart(tmp_path):
    """A column called vector or image is items.vector and items.image where the format has such a column itself."""
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    store.embed({"uri": [str(tmp_path / "a.jpg")], "vector": ["mine"], "image": ["also mine"]}, progress=False)
    store.export(tmp_path / "half.parquet", dtype="float16")
    assert pq.read_table(tmp_path / "half.parquet")["items.vector"].to_pylist() == ["mine"]
    store.export(tmp_path / "out", file_format="huggingface")
    [file] = (tmp_path / "out" / "data").iterdir()
    table = pq.read_table(file)
    assert (table["items.vector"].to_pylist(), table["items.image"].to_pylist()) == (["mine"], ["also mine"])


def test_types_that_parquet_lacks_are_text(photos, tmp_path):
    """Wide integers keep every digit; other types are text."""
    pq = pytest.importorskip("pyarrow.parquet")
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    store.embed([tmp_path / "a.jpg"], progress=False)
    with store._session.storage.writer("odd types") as writer, writer.transaction() as con:
        con.execute("ALTER TABLE items ADD COLUMN big HUGEINT DEFAULT 170141183460469231731687303715884105727")
        con.execute("ALTER TABLE items ADD COLUMN pause INTERVAL")
        con.execute("UPDATE items SET pause = INTERVAL 3 DAY, big = 170141183460469231731687303715884105727")
        con.execute("ALTER TABLE items ADD COLUMN nested STRUCT(a INTEGER, b VARCHAR[])")
        con.execute("UPDATE items SET nested = {a: 1, b: ['x']}")
    store.export(tmp_path / "x.parquet", dtype="float16")
    [row] = pq.read_table(tmp_path / "x.parquet", columns=["big", "pause", "nested"]).to_pylist()
    assert row == {"big": str(2**127 - 1), "pause": "3 days", "nested": {"a": 1, "b": ["x"]}}
    for out, file_format in (("y.tar", None), ("fo", "fiftyone"), ("hf", "huggingface"), ("z.csv", None)):
        assert store.export(tmp_path / out, file_format=file_format).rows == 1


def test_the_command_line_says_what_was_written(photos, tmp_path):
    """`export --format`, in a process of its own: the report as JSON, nothing else on either stream."""
    words = [sys.executable, "-m", "embedstore", "export", str(photos.path), str(tmp_path / "out")]
    done = subprocess.run([*words, "--format", "huggingface", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["rows"] == 13
    assert done.stderr == ""
    pytest.importorskip("lancedb")
    words[-1] = str(tmp_path / "pets.lance")
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == (f"wrote 13 rows to {tmp_path}/pets.lance\n", "")


def test_memory_does_not_grow_with_the_number_of_images(tmp_path, monkeypatch):
    """No more than one block of images is in memory, whatever the number of items."""
    from embedstore.exports import images

    monkeypatch.setattr(images, "BLOCK_IMAGES", 4)
    for n in range(20):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(n))
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    store.embed(sorted(tmp_path.glob("*.jpg")), progress=False)
    sizes = []
    read = images.ImageReader.read
    monkeypatch.setattr(images.ImageReader, "read", lambda self, files: sizes.append(len(files)) or read(self, files))
    store.export(tmp_path / "out.tar")
    assert sizes == [4] * 5


def test_a_crop_is_exported_as_an_image_of_its_own(tmp_path):
    """A box of a photo is the pixels in the box, which any reader of images opens."""
    image = Image.new("RGB", (64, 64), (250, 0, 0))
    image.paste((0, 0, 250), (32, 0, 64, 64))
    image.save(tmp_path / "a.png")
    store = es.create(tmp_path / "s", "embedstore/tiny", device="cpu")
    store.embed({"uri": [f"{tmp_path}/a.png#xywh=32,0,20,10"], "label": ["right"]}, progress=False)
    assert store.export(tmp_path / "x.tar").rows == 1
    with tarfile.open(tmp_path / "x.tar") as tar:
        [name] = [n for n in tar.getnames() if n.endswith(".png")]
        cut = Image.open(io.BytesIO(tar.extractfile(name).read()))
    assert (cut.size, cut.getpixel((5, 5))) == ((20, 10), (0, 0, 250))


@pytest.mark.parametrize(("least", "most"), [(1, 1000), (3, 1000), (1, 2), (100, 64)])
def test_items_are_selected_in_ranges_of_ids_and_numbered_as_one_list(tmp_path, monkeypatch, least, most):
    """Whatever the sizes of the ranges, with gaps between ids and a filter: the items in their order, each once."""
    store = store_of(tmp_path / "s", np.eye(24), label=[f"c{n % 5}" for n in range(24)])
    store.delete("item % 7 = 3 OR item < 4")
    expected = [uri for (uri,) in store.sql("SELECT uri FROM items WHERE label <> 'c1' ORDER BY item").rows]
    assert len(expected) > 12
    monkeypatch.setattr(selection, "RANGE_ITEMS", least)
    monkeypatch.setattr(selection, "MAX_RANGES", most)
    with selection.select_items(store._session.storage, store.spaces[0], "label <> 'c1'") as selected:
        assert len(selected) == len(expected)
        query = f"SELECT n, {selected.columns['uri']} FROM {selected.vectors.table} ORDER BY n"
        found = selected.vectors.con.execute(query).fetchall()
        blocks = [block.vectors for block in selected.blocks(5)]
    assert found == list(enumerate(expected))
    assert [f"/{row}" for row in np.concatenate(blocks).argmax(axis=1)] == expected  # each with its own vector
