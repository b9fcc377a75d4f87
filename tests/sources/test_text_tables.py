"""Tables whose texts are the items: one per row, by a uri that reads the row again."""

import gzip
import json

import pytest

import embedstore as es
from embedstore.errors import BadManifest, BadOption, ImageError, NoImages, TextError
from embedstore.reports.contact_sheet import contact_sheet_html
from embedstore.sources.locations import read_location, stat_location
from embedstore.sources.open import open_source
from embedstore.sources.table_options import TableOptions
from embedstore.sources.text_tables.row_uri import TextRowUri, parse_text_row_uri
from embedstore.types import Failure

ROWS = [
    ("the dog runs", "good", 3),
    ('the stock market, "fell"\nin two lines', "bad", 1),
    ("café", "good", 2),
    ("12345", "bad", 5),
]


def write_csv(path, encoding="utf-8"):
    import csv

    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "label", "stars"])
        writer.writerows([*ROWS, ("", "good", 4)])
    return path


def write_jsonl(path):
    lines = [json.dumps({"review": t, "label": label, "stars": s}) for t, label, s in [*ROWS, (None, "good", 4)]]
    path.write_text("\n".join(lines))
    return path


def write_parquet(path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    texts, labels, stars = zip(*[*ROWS, (None, "good", 4)], strict=True)
    pq.write_table(pa.table({"review": texts, "label": labels, "stars": stars}), path)
    return path


def write_saved(path):
    datasets = pytest.importorskip("datasets")
    texts, labels, stars = zip(*[*ROWS, (None, "good", 4)], strict=True)
    datasets.Dataset.from_dict({"review": texts, "label": labels, "stars": stars}).save_to_disk(path)
    return path


def write_gzip(path):
    with gzip.open(path, "wb") as file:
        file.write(write_csv(path.with_name("plain.csv")).read_bytes())
    return path


KINDS = {
    "reviews.csv": write_csv,
    "reviews.tsv.jsonl": write_jsonl,
    "reviews.csv.gz": write_gzip,
    "reviews.parquet": write_parquet,
    "saved": write_saved,
}


def open_texts(path, **options):
    return open_source(str(path), table=TableOptions(text_column="review", **options))


@pytest.mark.parametrize("name", KINDS)
def test_every_row_is_a_text_that_its_uri_reads_again(name, tmp_path):
    """In every kind of table the texts, labels and columns are those that were written; an empty cell is a failure."""
    source = open_texts(KINDS[name](tmp_path / name))
    entries = list(source.scan())
    refs = [entry for entry in entries if not isinstance(entry, Failure)]
    read = list(source.read(refs))
    texts = [data.decode() for data in read if isinstance(data, bytes)]
    failed = [f for f in [*read, *entries] if isinstance(f, Failure)]
    assert texts == [text for text, *_ in ROWS]
    assert [ref.label for ref in refs[:4]] == ["good", "bad", "good", "bad"]
    assert [(f.reason, f.detail) for f in failed] == [("empty", "the cell is empty")]
    assert not source.notices
    for ref, text in zip(refs[:4], texts, strict=True):
        assert read_location(ref.uri).decode() == text
        again = stat_location(ref.uri)
        assert again.mtime_ns == ref.mtime_ns
    assert source.columns["stars"] in ("BIGINT", "INTEGER")
    assert source.columns["review"] == "VARCHAR", "the text stays a column, also for filters"


def test_the_encoding_of_a_table_belongs_to_the_uris(tmp_path):
    """A table in another encoding is read again by the uri alone."""
    source = open_texts(write_csv(tmp_path / "old.csv", "cp1252"), encoding="cp1252")
    uris = [ref.uri for ref in source.scan()]
    assert read_location(uris[2]).decode() == "café"
    assert parse_text_row_uri(uris[2]) == TextRowUri(str(tmp_path / "old.csv"), "review", 2, "cp1252")


@pytest.mark.parametrize("column", ["text", "a b", "%&#/\\", "Größe", "row"])
def test_any_name_of_a_column_survives_the_uri(column, tmp_path):
    """Names with reserved characters come back as they were."""
    uri = TextRowUri("/data/table.csv", column, 17)
    assert parse_text_row_uri(str(uri)) == uri


def test_a_row_that_is_gone_or_a_table_that_changed_is_said(tmp_path):
    """Fewer rows, no such column, no such file: a reason each, no traceback."""
    uris = [ref.uri for ref in open_texts(write_csv(tmp_path / "t.csv")).scan()]
    (tmp_path / "t.csv").write_text("review,label\nonly one,good\n")
    assert read_location(uris[0]) == b"only one"
    with pytest.raises(TextError, match="no row 3"):
        read_location(uris[3])
    (tmp_path / "t.csv").write_text("words,label\nonly one,good\n")
    with pytest.raises(TextError, match="no column 'review'"):
        read_location(uris[0])
    (tmp_path / "t.csv").unlink()
    assert stat_location(uris[0]).reason == "missing"


def test_what_cannot_be_read_as_texts_is_refused(tmp_path):
    """An unknown column lists the others; options that contradict are named."""
    path = write_csv(tmp_path / "t.csv")
    with pytest.raises(BadManifest, match=r"no column 'reviews' \(it has review, label, stars\).*did you mean review"):
        open_source(str(path), table=TableOptions(text_column="reviews"))
    with pytest.raises(BadManifest, match="leave out --uri-column"):
        open_source(str(path), table=TableOptions(text_column="review", uri_column="label"))
    with pytest.raises(BadManifest, match="of a file"):
        open_source({"review": ["a"]}, table=TableOptions(text_column="review"))
    for name, write in (("t.parquet", write_parquet), ("saved", write_saved)):
        table = str(write(tmp_path / name))
        with pytest.raises(BadManifest, match=r"the column 'stars' holds \w+, not texts"):
            open_source(table, table=TableOptions(text_column="Stars"))
        with pytest.raises(BadManifest, match=r"no column of texts 'revieu'.*did you mean review"):
            open_source(table, table=TableOptions(text_column="revieu"))
        assert len(list(open_source(table, table=TableOptions(text_column="REVIEW")).scan())) == 5
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadManifest, match="is not a table"):
        open_source(str(tmp_path / "folder"), table=TableOptions(text_column="review"))


def test_a_table_is_embedded_searched_and_embedded_again(tmp_path):
    """Rows are items; an edited table embeds the changed row alone, and rows that are gone become missing."""
    pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")
    from tests.helpers.text_models import save_model

    model = save_model(tmp_path / "bert", "bert")
    store = es.create(tmp_path / "r.store", f"hf/{model}", device="cpu", dtype="float32")
    path = tmp_path / "r.csv"
    path.write_text(
        "text,label,stars\nthe dog runs,good,3\na cat sleeps,good,5\nthe market fell,bad,1\n   ,bad,1\n,bad,2\n"
    )
    report = store.embed(path, text_column="text")
    assert (report.embedded, report.failures_by_reason) == (3, {"blank": 1, "empty": 1})
    assert report.summary().startswith("5 rows: 3 embedded")
    assert store.reembed().summary().startswith("3 items: ")
    (tmp_path / "none.csv").write_text("text,label\n")
    with pytest.raises(NoImages, match="has no rows"):
        store.embed(tmp_path / "none.csv", text_column="text")
    assert store.embed(path, text_column="text").unchanged == 3
    hits = list(store.search("the market fell", k=1, where="stars < 3"))
    assert (hits[0].label, hits[0].columns["text"], round(hits[0].score, 3)) == ("bad", "the market fell", 1.0)
    path.write_text("text,label,stars\nthe dog runs,good,3\na cat runs,good,5\n")
    report = store.embed(path, text_column="text")
    assert (report.embedded, report.reused, report.missing) == (1, 1, 1)
    hits = store.search("dog", k=2)
    assert "<blockquote>the dog runs</blockquote>" in contact_sheet_html(hits.hits, "dog", hits.read_images)
    es.create(tmp_path / "i.store", "tiny", device="cpu")
    with pytest.raises(BadOption, match="--text-column is for a space of texts"):
        es.open(tmp_path / "i.store").embed(path, text_column="text")


@pytest.mark.parametrize("value", [["a", "b"], [], {"a": 1}, [["a"]]])
@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_lists_and_objects_are_no_texts(name, value, tmp_path):
    """A JSON table whose column of texts holds a list or an object anywhere is refused, as a Parquet file is."""
    rows = [json.dumps({"review": text}) for text in ("a dog", value)]
    (tmp_path / name).write_text("\n".join(rows) if name.endswith("l") else f"[{','.join(rows)}]")
    with pytest.raises(BadManifest, match="'review' holds lists or objects, not texts"):
        open_texts(tmp_path / name)
    (tmp_path / name).write_text(json.dumps([{"review": "a dog", "tags": value}]) if name.endswith("n") else "{}")
    if name.endswith("n"):
        assert len(list(open_texts(tmp_path / name).scan())) == 1, "other columns may hold them"


def test_a_parquet_row_without_a_text_is_no_file(tmp_path):
    """Where all texts are missing, or a column `uri` names files, rows without a text are empty: no file is read."""
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (tmp_path / "a.txt").write_text("another text")
    texts = pa.array([None, ""], pa.string())
    pq.write_table(pa.table({"review": texts, "uri": ["a.txt", "b.txt"]}), tmp_path / "t.parquet")
    source = open_texts(tmp_path / "t.parquet")
    entries = list(source.scan())
    failed = [entry if isinstance(entry, Failure) else next(source.read([entry])) for entry in entries]
    assert [(f.reason, f.detail) for f in failed] == [("empty", "the cell is empty")] * 2
    assert not source.notices
    with pytest.raises(ImageError, match="the cell is empty"):
        read_location(failed[0].path)
