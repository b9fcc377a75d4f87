"""What is the store's and what is the user's never share a name: in SQL, filters, hits, exports and archives."""

import csv
import json
import shutil

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadManifest, QueryError, UnknownColumn
from embedstore.storage.column_names import (
    ITEM_COLUMNS,
    find_column,
    first_double,
    name_problem,
    shown_names,
    unique_names,
)
from embedstore.storage.integrity.rebuild_catalog import rebuild_catalog
from embedstore.storage.queries.search import map_rows
from embedstore.storage.quoting import quote_identifier
from embedstore.storage.sql import parquet_source

VECTORS = np.array([[1, 0], [0.9, 0.1], [0, 1], [-1, 0.5], [0.5, 0.5]], np.float32)
VALUES = [40, 10, 30, 20, 50]  # in another order than the items

# Names of our tables, scratch tables, results and reports; SQL words; functions.
OURS = """
shard row rows n i t v p e a r c c0 c1 space key bytes width height format content_id score rank pred items rowid
cluster outlier duplicate_group duplicate_keep vector vectors item_id hit columns class classes run head settings
entries given seen y x value select table order user year lower hash count current_date true end color g w near wanted
computed embedstore_n filename file_row_number
""".split()
HIT_NAMES = {"rank", "score", "item", "uri", "label", "split"}


def new_store(folder, columns):
    """Return a store of five items with own columns, imported as a table is."""
    store = es.create(folder)
    store.add_vectors(VECTORS, {"uri": [f"/{n}" for n in range(5)], **columns}, space="s")
    return store


def old_store(folder, columns):
    """Return a store of five items whose columns were added without any check, as before there were rules."""
    store = new_store(folder, {})
    with store._session.storage.writer("old columns") as writer, writer.transaction() as con:
        for name, values in columns.items():
            con.execute(f"ALTER TABLE items ADD COLUMN {quote_identifier(name)} INTEGER")
            whens = " ".join(f"WHEN {item} THEN {value}" for item, value in enumerate(values, 1))
            con.execute(f"UPDATE items SET {quote_identifier(name)} = CASE items.item {whens} END")
    return es.open(folder)


@pytest.fixture(scope="module", params=["new", "new, upper case", "old", "old, upper case"])
def own(request, tmp_path_factory):
    """Return a store with an own column of every name, and the values of each; no two columns share a value."""
    names = [n for n in OURS if "old" in request.param or not name_problem(n)]
    names = [n.upper() if "upper" in request.param else n for n in names]
    columns = {name: [v + 1000 * n for v in VALUES] for n, name in enumerate(names)}
    make = old_store if "old" in request.param else new_store
    return make(tmp_path_factory.mktemp("own") / "s", columns), columns


def exported(store, path):
    """Return the rows of an exported Parquet file as mappings, ordered by item."""
    store.export(path)
    with duckdb.connect() as con:
        rows = con.execute(f"FROM {parquet_source(path)}")
        names = [d[0] for d in rows.description]
        return sorted((dict(zip(names, row, strict=True)) for row in rows.fetchall()), key=lambda r: r["item"])


def test_an_export_has_each_items_own_vector_and_values(own, tmp_path):
    """Whatever the columns are called, a row of an export has the vector and the values of its item."""
    store, columns = own
    rows = exported(store, tmp_path / "out.parquet")
    np.testing.assert_array_equal([r["vector"] for r in rows], VECTORS.astype(np.float16).astype(np.float32))
    for name, values in columns.items():
        assert [r[f"items.{name}" if name.lower() == "vector" else name] for r in rows] == values
    store.export(tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), VECTORS.astype(np.float16))
    with duckdb.connect() as con:
        assert con.execute(f"SELECT vector FROM '{tmp_path}/out.parquet' ORDER BY item").fetchall()[0] != (VALUES[0],)


def test_hits_keep_their_own_rank_and_score(own, tmp_path):
    """A hit has our rank and score, and the item's own values, in every form of the result."""
    store, columns = own
    hits = store.search(VECTORS[0], k=5)
    shown = {name: f"items.{name}" if name.lower() in HIT_NAMES else name for name in columns}
    ours = [(n, h.item, round(h.score, 6)) for n, h in enumerate(hits, 1)]
    theirs = {name: [values[h.item - 1] for h in hits] for name, values in columns.items()}
    assert [h.columns for h in hits] == [{n: v[i] for n, v in theirs.items()} for i in range(5)]
    hits.save(tmp_path / "h.csv")
    hits.save(tmp_path / "h.jsonl")
    hits.save(tmp_path / "h.parquet")
    with (tmp_path / "h.csv").open(encoding="utf-8", newline="") as f:
        from_csv = [
            {k: float(v) for k, v in r.items() if k not in ("uri", "label", "split")} for r in csv.DictReader(f)
        ]
    with duckdb.connect() as con:
        from_parquet = con.execute(f"FROM {parquet_source(tmp_path / 'h.parquet')}").df().to_dict("records")
    for records in (
        hits.records(),
        hits.to_json()["hits"],
        hits.df().to_dict("records"),
        hits.arrow().to_pylist(),
        [json.loads(line) for line in (tmp_path / "h.jsonl").read_text().splitlines()],
        from_csv,
        from_parquet,
    ):
        assert [(r["rank"], r["item"], r["score"]) for r in records] == ours
        assert {name: [r[shown[name]] for r in records] for name in columns} == theirs


def test_every_verb_reads_the_column_of_that_name(own, tmp_path):
    """Filters, SQL, labels and groups of hits mean the item's own value."""
    store, columns = own
    quoted = {name: quote_identifier(name) for name in columns}
    for form in ("{}", "items.{}", "ITEMS.{}"):
        where = " and ".join(f"{form.format(quoted[name].swapcase())} = {v[1]}" for name, v in columns.items())
        assert [h.item for h in store.search(VECTORS[0], where=where)] == [2]
    rows = store.sql(f"SELECT {', '.join(f'items.{q}' for q in quoted.values())} FROM items ORDER BY item").rows
    assert list(zip(*rows, strict=True)) == [tuple(v) for v in columns.values()]
    for name in list(columns)[::9]:
        where = f"{quote_identifier(name)} <> {columns[name][0]}"
        assert store.features(name, where=where).y.tolist() == [str(v) for v in columns[name][1:]]
        assert [h.item for h in store.search(VECTORS[0], group_by=name, k=5)] == [1, 2, 5, 3, 4]


def test_a_map_is_colored_by_the_own_column(own):
    """Each item has its own value, also where a table beside the items has a column of that name."""
    store, columns = own
    storage = store._session.storage
    with storage.catalog.read() as con:
        for name, values in columns.items():
            rows = map_rows(con, storage.space().key, name, None)
            assert [(item, color) for item, _, color, *_ in rows] == [(n, str(v)) for n, v in enumerate(values, 1)]


def test_edits_archives_and_verification_keep_every_column(own, tmp_path):
    """After an edit of every column and an archive, each item has its own values and vector, and all bytes are read."""
    store, columns = own
    es.create(tmp_path / "copy")
    store.export_store(tmp_path / "out")
    shutil.rmtree(tmp_path / "copy")
    es.import_store(tmp_path / "copy", tmp_path / "out")
    copy = es.open(tmp_path / "copy")
    copy.edit({name: f"items.{quote_identifier(name)} + 1" for name in columns}, "item >= 2")
    expected = {name: [v + (n > 0) for n, v in enumerate(values)] for name, values in columns.items()}
    hits = sorted(copy.search(VECTORS[0], k=5), key=lambda h: h.item)
    assert {name: [h.columns[name] for h in hits] for name in columns} == expected
    assert copy.verify().ok
    assert [h.columns for h in store.search(VECTORS[0], k=1)] == [{name: v[0] for name, v in columns.items()}]


REFUSED = [
    "item", "uri ", "content", "size", "mtime_ns", "present", "added", "path", "mtime", "source", "rowid", "pred",
    "items", "embedstore_row", "Embedstore_x", "items.year", "PRED.head", " ", "\u200b", "a\nb", "a\x00b",
    "it\u200bem", "\uff49\uff54\uff45\uff4d", "pr\u00aded", " content ", "K\u212a\u0000",
]  # fmt: skip


def test_names_that_cannot_be_kept_apart_are_refused_everywhere(tmp_path):
    """An import, an edit and a computed column with such a name are one clear line, and change nothing."""
    store = new_store(tmp_path / "s", {"year": VALUES})
    before = store.sql("DESCRIBE items").rows
    for name in REFUSED:
        with pytest.raises(BadManifest, match=r"\A[^\n]+\Z"):
            store.add_vectors(VECTORS, {"uri": [f"/n{n}" for n in range(5)], name: VALUES}, space="new")
        with pytest.raises(QueryError, match=r"\A[^\n]+\Z"):
            store.edit({name: "1"}, "true", create_columns=True)
        with pytest.raises(QueryError, match="--cluster-column"):
            store.cluster(2, cluster_column=name)
    assert store.sql("DESCRIBE items").rows == before
    assert [s.name for s in store.spaces] == ["s"]


@pytest.mark.parametrize(
    "pair",
    [("year", "Year"), ("\u00e9t\u00e9", "e\u0301te\u0301"), ("\u00c9", "\u00e9"), ("a", " a"), ("a", "a\u200b")],
)
def test_two_names_for_one_column_are_refused(tmp_path, pair):
    """Names that differ only in case, Unicode form, outer white space or invisible characters are one name."""
    store = new_store(tmp_path / "s", {})
    with pytest.raises(BadManifest, match="one name"):
        store.add_vectors(VECTORS, {"uri": list("abcde"), pair[0]: VALUES, pair[1]: VALUES}, space="s")
    with pytest.raises(QueryError, match="one column"):
        store.edit({pair[0]: "1", pair[1]: "2"}, "true", create_columns=True)


def test_names_are_stored_in_one_form_and_found_in_any(tmp_path):
    """A decomposed, padded name is stored composed and trimmed, and every spelling of it finds the column."""
    store = new_store(tmp_path / "s", {" Ann\u0065\u0301e ": VALUES})
    assert store.search(VECTORS[0], k=1)[0].columns == {"Ann\u00e9e": 40}
    for name in ("Ann\u00e9e", "ANN\u00c9E", "anne\u0301e"):
        assert [h.item for h in store.search(VECTORS[0], where=f'"{name}" = 10')] == [2]
        store.edit({name: "items.item"}, "true")
        store.add_vectors(VECTORS, {"uri": [f"/{n}" for n in range(5)], name: VALUES}, space="s")
        assert store.features(name).y.tolist() == list(map(str, VALUES))
    assert [r[0] for r in store.sql("DESCRIBE items").rows][-1] == "Ann\u00e9e"


def test_a_column_pred_of_an_old_store_and_predictions_are_kept_apart(tmp_path):
    """``pred.HEAD`` is a prediction, and the own column is ``pred`` or ``items.pred``."""
    store = old_store(tmp_path / "s", {"pred": VALUES})
    store.edit({"label": "CASE WHEN items.item < 3 THEN 'cat' ELSE 'dog' END"}, "true")
    evaluation = store.knn("label", k=1, folds=2, save_as="h")
    assert evaluation is not None
    store.predict("h")
    assert sorted(h.item for h in store.search(VECTORS[0], where="pred.h = 'cat' and pred > 15")) == [1]
    assert sorted(h.item for h in store.search(VECTORS[0], where="items.pred = 30")) == [3]
    with pytest.raises(UnknownColumn, match=r"items\.pred"):
        store.search(VECTORS[0], where="pred.other = 'cat'")


def test_fields_of_structs_are_found_behind_any_name(tmp_path):
    """A field of a column is ``column.field`` and ``items.column.field``, also where the column is called ``items``."""
    store = old_store(tmp_path / "s", {})
    with store._session.storage.writer("old") as writer, writer.transaction() as con:
        for name in ("items", "pred", "p", "meta"):
            con.execute(f"ALTER TABLE items ADD COLUMN {name} STRUCT(a INTEGER, item INTEGER)")
            con.execute(f"UPDATE items SET {name} = {{a: items.item * 10, item: 7}}")
    for where in ("meta.a = 20", "items.meta.a = 20", "p.a = 20", "items.pred.a = 20", "items.items.a = 20"):
        assert [h.item for h in store.search(VECTORS[0], where=where)] == [2]
    assert [h.item for h in store.search(VECTORS[0], where="items.item = 3")] == [3]


def test_a_folder_named_like_a_partition_is_no_column(tmp_path):
    """DuckDB reads ``year=2020`` in a path as a column; an archive and an export below it keep their values."""
    folder = tmp_path / "year=2020" / "a[b]"
    folder.mkdir(parents=True)
    store = new_store(folder / "s", {"year": VALUES})
    assert [r["year"] for r in exported(store, folder / "out.parquet")] == VALUES
    store.export_store(folder / "out")
    es.import_store(folder / "again", folder / "out")
    assert [h.columns["year"] for h in es.open(folder / "again").search(VECTORS[0], k=5)] == [40, 10, 50, 30, 20]


def test_columns_of_a_query_with_one_name_are_all_kept(tmp_path):
    """A second ``item`` of a join is ``item_1``, in records as in tables."""
    store = new_store(tmp_path / "s", {"item_1": VALUES})
    rows = store.sql("SELECT a.item, b.item, a.item_1 FROM items a JOIN items b ON b.item = 6 - a.item ORDER BY 1")
    assert rows.column_names == ("item", "item_2", "item_1")
    assert [tuple(r.values()) for r in rows.records()] == list(rows.rows)


def test_rules_of_names():
    """Look-alikes are one name; what is shown beside our columns is unique and reversible."""
    assert find_column("YEAR", ["Year", "year"]) == "Year"
    assert find_column("year", ["Year", "year"]) == "year"
    assert find_column("m2", ["m\u00b2"]) is None
    assert first_double(["a", "b", "A"]) == ("a", "A")
    assert first_double(["a", "a"]) == ("a", "a")
    assert shown_names(["Score", "items.score", "x"], ["score"]) == {
        "Score": "items.items.Score", "items.score": "items.score", "x": "x",
    }  # fmt: skip
    assert unique_names(["a", "a", "a_1", "A"]) == ("a", "a_2", "a_1", "A_3")


def test_group_of_a_table_is_group_id_everywhere(tmp_path):
    """An edit, a filter and a label find the column by both names, and a table may not have both."""
    store = new_store(tmp_path / "s", {"group": list("ggghh")})
    store.edit({"group": "upper(group_id)"}, "\"group\" = 'g'")
    assert [v for (v,) in store.sql("SELECT group_id FROM items ORDER BY item").rows] == list("GGGhh")
    assert store.features("group").y.tolist() == list("GGGhh")
    with pytest.raises(BadManifest, match="two columns for group_id"):
        store.edit_from_table({"item": [1], "group": ["a"], "group_id": ["b"]})
    assert len(store.sql("DESCRIBE items").rows) == len(ITEM_COLUMNS)


def test_a_rebuilt_catalog_keeps_every_row_whatever_its_columns_are_called(tmp_path):
    """DuckDB's number of a row is hidden by an own column ``rowid``, which is no number of a row."""
    store = old_store(tmp_path / "s", {"rowid": [7, 7, 7, 7, 7], "t": VALUES})
    rebuild_catalog(store._session.storage.layout)
    again = es.open(tmp_path / "s")
    assert again.sql("SELECT item, items.rowid, t FROM items ORDER BY item").rows == tuple(
        (n, 7, v) for n, v in enumerate(VALUES, 1)
    )
    assert again.verify().ok
