"""Manifests: every row is kept with its types, and a table that cannot be used is refused by its row."""

import json
import os
import tracemalloc
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedstore.errors import BadManifest, SourceNotFound
from embedstore.sources.open import open_source
from embedstore.sources.uris import UriResolver, local_path
from embedstore.types import Failure, FailureReason, ImageRef


@pytest.fixture
def images(tmp_path) -> Path:
    """Create ``a.jpg``, ``b.jpg`` and ``sub/c d.jpg``."""
    (tmp_path / "sub").mkdir()
    for name in ("a.jpg", "b.jpg", "sub/c d.jpg"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def manifest(folder: Path, text: str, name: str = "m.csv"):
    """Return the source of a table with this text."""
    (folder / name).write_text(text, encoding="utf-8")
    return open_source(folder / name)


def refusal(folder: Path, text: str, name: str = "m.csv") -> str:
    """Return the message with which a table is refused; it is one line and names the file."""
    with pytest.raises(BadManifest) as e:
        manifest(folder, text, name)
    assert "\n" not in str(e.value)
    assert name in str(e.value)
    return str(e.value)


def scanned_rows(source, folder: Path) -> list[tuple]:
    """Return what a scan yields: relative path, label, split and group, or relative path and reason."""
    return [
        (os.path.relpath(x.path, folder), x.label, x.split, x.group)
        if isinstance(x, ImageRef)
        else (os.path.relpath(x.path, folder), x.reason)
        for x in source.scan()
    ]


def attributes(source, folder: Path) -> tuple[list[tuple], list[tuple]]:
    """Return names and types, and the rows, of the Parquet file that the source writes."""
    target = folder / "attributes.parquet"
    source.write_columns(target)
    relation = duckdb.sql(f"FROM '{target}'")
    return list(zip(relation.columns, map(str, relation.types), strict=True)), relation.fetchall()


# ---- rows


def test_rows_keep_their_order_label_split_and_group(images):
    """Columns can be in any case and order; splits have their usual names."""
    source = manifest(images, "Split,URI,group,label\nTraining,b.jpg,g1,bee\nvalid,a.jpg,,ant\n,sub/c d.jpg,g2,\n")
    assert scanned_rows(source, images) == [
        ("b.jpg", "bee", "train", "g1"),
        ("a.jpg", "ant", "val", None),
        ("sub/c d.jpg", None, None, "g2"),
    ]
    assert source.columns == {}
    assert source.overrides_metadata
    assert source.roots == ()
    assert source.description == str(images / "m.csv")


def test_size_and_mtime_are_those_of_the_file(images):
    """A row is a file like any other; uri and path are absolute."""
    os.utime(images / "a.jpg", ns=(1, 1_600_000_000_000_000_001))
    (ref,) = manifest(images, "uri\na.jpg\n").scan()
    assert ref == ImageRef(str(images / "a.jpg"), str(images / "a.jpg"), 1, 1_600_000_000_000_000_001)


def test_paths_can_be_relative_absolute_or_file_uris(images, monkeypatch):
    """They are relative to the manifest, not to the current folder; percent-encoding counts only after file://."""
    monkeypatch.chdir("/")
    text = f"uri\n./a.jpg\n{images}/b.jpg\nfile://{images}/sub/c%20d.jpg\n"
    assert [r[0] for r in scanned_rows(manifest(images, text), images)] == ["a.jpg", "b.jpg", "sub/c d.jpg"]
    text = f"uri\nsub/../a.jpg\nfile://localhost{images}/b.jpg\n"
    assert [r[0] for r in scanned_rows(manifest(images, text), images)] == ["a.jpg", "b.jpg"]


def test_a_row_without_a_file_is_a_failure(images):
    """Missing files and folders have different reasons; the other rows are found."""
    source = manifest(images, "uri,label\nnothing.jpg,x\nsub,x\na.jpg,x\n")
    assert scanned_rows(source, images) == [
        ("nothing.jpg", FailureReason.MISSING), ("sub", FailureReason.NOT_A_FILE), ("a.jpg", "x", None, None),
    ]  # fmt: skip
    assert isinstance(next(iter(source.scan())), Failure)


def test_labels_that_look_like_numbers_stay_as_written(images):
    """``007`` is a name; so is a label that Parquet or JSON stores as a number."""
    assert scanned_rows(manifest(images, "uri,label,group\na.jpg,007,1e3\n"), images) == [("a.jpg", "007", None, "1e3")]
    source = manifest(images, '{"uri": "a.jpg", "label": 7}\n{"uri": "b.jpg", "label": null}\n', "m.jsonl")
    assert [r[1] for r in scanned_rows(source, images)] == ["7", None]
    duckdb.sql(f"COPY (SELECT 'a.jpg' AS uri, 3 AS label) TO '{images}/m.parquet'")
    assert scanned_rows(open_source(images / "m.parquet"), images) == [("a.jpg", "3", None, None)]


def test_a_path_that_is_not_utf8_can_be_percent_encoded(images):
    """This holds after file://; the uri is the same as in a folder's scan."""
    Path(os.fsdecode(os.fsencode(images) + b"/\xff.jpg")).write_bytes(b"x")
    source = manifest(images, f"uri,year\nfile://{images}/%ff.jpg,1999\n")
    (ref,) = source.scan()
    assert os.fsencode(ref.path).endswith(b"/\xff.jpg")
    assert ref.uri == f"{images}/\\xff.jpg"
    assert attributes(source, images)[1] == [(f"{images}/\\xff.jpg", 1999)]


@pytest.mark.parametrize("form", ["{}/\\xff/a.jpg", "file://{}/%5Cxff/a.jpg", "\\xff/a.jpg"])
def test_the_bytes_of_a_folder_are_found_in_every_form(tmp_path, form):
    """A uri names the bytes of a folder as ``\\xNN``, also percent-encoded; one that is not there stays as it is."""
    raw = os.fsencode(tmp_path) + b"/\xff"
    Path(os.fsdecode(raw)).mkdir()
    Path(os.fsdecode(raw + b"/a.jpg")).write_bytes(b"x")
    resolver = UriResolver(str(tmp_path))
    assert os.fsencode(resolver.path(form.format(tmp_path))) == raw + b"/a.jpg"
    assert resolver.path("gone/a.jpg") == f"{tmp_path}/gone/a.jpg"


parts_of_uris = st.sampled_from(["a", "b c", "..", ".", "", "x\\y", "ü", "%41", "%2e%2e", "a.jpg"])


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["", "/", "file://", "file:///", "FILE:///a/", "file:/"]), st.lists(parts_of_uris, max_size=4))
def test_a_uri_below_a_missing_folder_is_the_path_as_written(beginning, parts):
    """Whatever its form: a folder that is not there is looked for once, and the path is normalized all the same."""
    uri = beginning + "/".join(["missing", *parts])
    resolver = UriResolver("/missing folder/x")
    for _ in range(2):  # the second time from what is kept
        assert resolver.path(uri) == local_path(uri, folder="/missing folder/x")


# ---- columns


def test_other_columns_keep_their_types_and_values(images):
    """Integers, floats, booleans, dates, text and NULL are typed by all rows, not by the first."""
    source = manifest(
        images,
        "uri,year,score,ok,day,note\n"
        'a.jpg,2001,0.5,true,2020-01-31,"two, with ""quotes"""\n'
        "b.jpg,,1.5,false,,\n"
        "sub/c d.jpg,2003,2,true,2021-02-01,ünï ✓\n",
    )
    kinds = {"year": "BIGINT", "score": "DOUBLE", "ok": "BOOLEAN", "day": "DATE", "note": "VARCHAR"}
    assert source.columns == kinds
    described, values = attributes(source, images)
    assert described == [("uri", "VARCHAR"), *kinds.items()]
    assert [v[0] for v in values] == [str(images / n) for n in ("a.jpg", "b.jpg", "sub/c d.jpg")]
    assert values[0][1:4] == (2001, 0.5, True)
    assert str(values[0][4]) == "2020-01-31"
    assert [v[5] for v in values] == ['two, with "quotes"', None, "ünï ✓"]
    assert values[1][1] is None


def test_a_type_is_decided_by_all_rows(images):
    """A word after 30,000 numbers makes the column text."""
    body = "".join(f"{i}.jpg,{i}\n" for i in range(30_000))
    source = manifest(images, f"uri,code\n{body}last.jpg,x17\n")
    assert source.columns == {"code": "VARCHAR"}
    assert attributes(source, images)[1][-1] == (str(images / "last.jpg"), "x17")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.csv", "uri;n\na.jpg;1\nb.jpg;2\n"),
        ("m.tsv", "uri\tn\na.jpg\t1\nb.jpg\t2\n"),
        ("m.CSV", '"uri","n"\r\n"a.jpg","1"\r\n"b.jpg","2"\r\n'),
        ("m.csv", "\ufeffuri,n\na.jpg,1\nb.jpg,2\n"),
        ("m.jsonl", '{"uri": "a.jpg", "n": 1}\n{"n": 2, "uri": "b.jpg"}\n'),
        ("m.ndjson", '{"uri": "a.jpg", "n": 1}\n{"n": 2, "uri": "b.jpg"}\n'),
        ("odd [1]*?'.csv", "uri,n\na.jpg,1\nb.jpg,2\n"),
    ],
)
def test_every_variant_of_a_table_is_read_alike(images, name, text):
    """Semicolons, tabs, quotes, line ends, a byte-order mark, JSON lines, and a file name full of wildcards."""
    source = manifest(images, text, name)
    assert source.columns == {"n": "BIGINT"}
    assert [r[0] for r in scanned_rows(source, images)] == ["a.jpg", "b.jpg"]
    assert [v[1] for v in attributes(source, images)[1]] == [1, 2]


def test_parquet_keeps_lists_structs_and_timestamps(images):
    """Every type that DuckDB stores is kept."""
    duckdb.sql(
        f"COPY (SELECT 'a.jpg' AS uri, [1, 2] AS tags, {{'x': 1.5}} AS box, TIMESTAMP '2020-01-01 10:00:00' AS t) "
        f"TO '{images}/m.parquet'"
    )
    source = open_source(images / "m.parquet")
    assert source.columns == {"tags": "INTEGER[]", "box": "STRUCT(x DECIMAL(2,1))", "t": "TIMESTAMP"}
    described, values = attributes(source, images)
    assert dict(described)["tags"] == "INTEGER[]"
    assert values[0][1] == [1, 2]


def test_a_compressed_table_is_read_like_its_content(images):
    """This is ``.csv.gz``."""
    import gzip

    (images / "m.csv.gz").write_bytes(gzip.compress(b"uri,n\na.jpg,5\n"))
    source = open_source(images / "m.csv.gz")
    assert source.columns == {"n": "BIGINT"}
    assert scanned_rows(source, images) == [("a.jpg", None, None, None)]


def test_a_single_column_of_quoted_names_is_a_manifest(images):
    """The names contain blanks and commas."""
    (images / "x, y.jpg").write_bytes(b"x")
    source = manifest(images, 'uri\n"x, y.jpg"\nsub/c d.jpg\n')
    assert [r[0] for r in scanned_rows(source, images)] == ["x, y.jpg", "sub/c d.jpg"]


# ---- refused


def test_without_a_uri_column_the_likely_one_is_named(images):
    """The message contains the cure and the columns."""
    message = refusal(images, "Path,label\na.jpg,x\n")
    assert "no column `uri`" in message
    assert "Path, label" in message
    assert "rename `Path` to `uri`" in message
    assert "did you mean urii?" in refusal(images, "urii,label\na.jpg,x\n")


@pytest.mark.parametrize("name", "item content group_id size mtime mtime_ns path present added source".split())
def test_reserved_column_names_are_refused_with_the_cure(images, name):
    """This holds in upper and lower case."""
    message = refusal(images, f"uri,{name.upper()}\na.jpg,1\n")
    assert repr(name.upper()) in message
    assert f"my_{name.upper()}" in message


def test_an_empty_uri_is_refused_with_its_row(images):
    """NULL and blanks are empty; rows are counted from 1 below the header."""
    assert "row 2 has no uri" in refusal(images, "uri,n\na.jpg,1\n,2\n")
    assert "row 1 has no uri" in refusal(images, '{"uri": " "}\n', "m.jsonl")


def test_a_uri_that_occurs_twice_is_refused_with_its_rows(images):
    """This holds also when it is written in two ways."""
    message = refusal(images, "uri\na.jpg\nb.jpg\nsub/../a.jpg\n./a.jpg\n")
    assert f"{images}/a.jpg in rows 1, 3, 4;" in message


def test_a_uri_of_an_unknown_scheme_is_refused(images):
    """Nothing fails row by row."""
    message = refusal(images, "uri\na.jpg\nftp://example.org/a.jpg\n")
    assert "row 2" in message
    assert "ftp:// is not read" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("m.parquet", b"not parquet"),
        ("m.csv", b""),
        ("m.csv", b"uri,n\na.jpg,1\nb.jpg,1,2,3\n"),
        ("m.jsonl", b'{"uri": \n'),
        ("m.csv", b"uri,n\n\xff\xfe,1\n"),
    ],
)
def test_a_file_that_is_not_a_table_is_refused_in_one_line(images, name, content):
    """The message has DuckDB's reason without its advice."""
    (images / name).write_bytes(content)
    with pytest.raises(BadManifest) as e:
        open_source(images / name)
    assert "\n" not in str(e.value)
    assert name in str(e.value)


def test_a_missing_table_and_a_fifo_are_not_opened(tmp_path):
    """Opening a FIFO would block for ever."""
    with pytest.raises(SourceNotFound, match=r"nothing\.csv"):
        open_source(tmp_path / "nothing.csv")
    os.mkfifo(tmp_path / "fifo.csv")
    with pytest.raises(SourceNotFound, match=r"fifo\.csv is not a file"):
        open_source(tmp_path / "fifo.csv")


def test_a_table_without_rows_yields_nothing(images):
    """The run then says that there are no images."""
    assert scanned_rows(manifest(images, "uri,label\n"), images) == []


# ---- size


def test_memory_does_not_grow_with_the_number_of_rows(images):
    """Three times the rows need about the same memory in Python."""

    def peak(count: int) -> int:
        (images / "0.jpg").touch()  # a table of which no file exists is refused
        body = "".join(f"{i}.jpg,{i}\n" for i in range(count))
        source = manifest(images, f"uri,n\n{body}", f"{count}.csv")
        tracemalloc.start()
        assert sum(1 for _ in source.scan()) == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    assert peak(90_000) < 1.2 * peak(30_000)


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(TEXT.filter(lambda t: t.strip() and "://" not in t), TEXT, min_size=1, max_size=8))
def test_any_text_is_kept_through_json_lines(tmp_path_factory, table):
    """Names and notes in any script are unchanged; nothing is taken for SQL or a pattern."""
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "exists").touch()  # a table of which no file exists is refused
    table = {"exists": "", **{f"x{u}": note for u, note in table.items()}}
    lines = "".join(json.dumps({"uri": u, "note": f"n{note}"}) + "\n" for u, note in table.items())
    normal = [os.path.normpath(f"{folder}/{u}") for u in table]
    if len(set(normal)) < len(normal):
        return
    source = manifest(folder, lines, "m.jsonl")
    assert [x.uri for x in source.scan()] == normal
    assert attributes(source, folder)[1] == [(u, f"n{note}") for u, note in zip(normal, table.values(), strict=True)]
