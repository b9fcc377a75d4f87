"""Items changed by their owner: what search and the catalog say right after."""

import numpy as np
import pytest

from embedstore import create
from embedstore import open as open_store
from embedstore.errors import BadFilter, BadManifest, QueryError, UnknownColumn
from embedstore.storage import compact
from embedstore.storage.compact import ShardUsage


@pytest.fixture
def store(tmp_path):
    """Eight items in four commits, item n at angle 10 n degrees; items 1 and 8 have one content."""
    store = create(tmp_path / "s")
    degrees = np.radians([10, 20, 30, 40, 50, 60, 70, 10])
    vectors = np.stack([np.cos(degrees), np.sin(degrees)], axis=1).astype(np.float32)
    for n in range(0, 8, 2):
        table = {"uri": [f"/p/{n + 1}.jpg", f"/p/{n + 2}.jpg"], "label": ["a", "b"], "year": [2000 + n, 2001 + n]}
        store.add_vectors(vectors[n : n + 2], table)
    return store


X = np.array([1, 0], np.float32)


def found(store, **options):
    return [h.item for h in store.search(X, **options)]


def test_deleted_items_are_not_found_and_their_twins_are(store):
    """The other item of the same content stays."""
    assert store.delete(items=[1, 3]).to_json().to_json() == {"items": 2}
    assert found(store) == [8, 2, 4, 5, 6, 7]
    assert found(open_store(store.path)) == [8, 2, 4, 5, 6, 7]


def test_forgotten_contents_leave_the_disk(store):
    """Every item with the same bytes goes at once, and the vector's bytes with compaction."""
    raw = np.array([np.cos(np.radians(10)), np.sin(np.radians(10))], np.float32).astype(np.float16).tobytes()
    folder = store._session.storage.layout.shards_folder(store.spaces[0].key)
    assert store.purge(items=[1]).to_json().to_json() == {"items": 2, "contents": 1, "vectors": 1}
    assert found(store) == [2, 3, 4, 5, 6, 7]
    assert any(raw in p.read_bytes() for p in folder.iterdir())
    done = store.compact()
    assert (done.files_before, done.files_after, done.rows_dropped) == (4, 1, 1)
    assert not any(raw in p.read_bytes() for p in folder.iterdir())
    assert found(store) == [2, 3, 4, 5, 6, 7]


def test_a_forgotten_vector_leaves_the_index_too(store):
    """An index over wiped files is built again; its rows are those that are left."""
    store.build_index(kind="flat")
    store.purge(items=[2])
    assert store.compact().indexes == [store.info().indexes[0]["file"]]
    listed = store.info().indexes
    assert [(i["rows"], i["usable"], i["rows_since"]) for i in listed] == [(6, True, 0)]
    assert found(store) == [1, 8, 3, 4, 5, 6, 7]


def test_compaction_with_nothing_to_do_changes_nothing(store):
    """A second compaction leaves every file as it is."""
    store.compact()
    before = {
        p: p.stat().st_mtime_ns for p in store._session.storage.layout.shards_folder(store.spaces[0].key).iterdir()
    }
    assert store.compact().to_json().to_json() == {
        "files_before": 1, "files_after": 1, "rows_dropped": 0, "bytes_freed": 0, "indexes": [],
    }  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_deleting_everything_and_compacting_leaves_an_empty_store(store):
    """No file, no hit, no error; and new items come in."""
    store.delete("true")
    store.compact()
    assert found(store) == []
    assert not list(store._session.storage.layout.shards_folder(store.spaces[0].key).iterdir())
    store.add_vectors(X[None], {"uri": ["/new"]})
    assert found(store) == [9]


def test_a_reader_keeps_what_it_has_mapped(store):
    """Vectors taken before a compaction are read after it."""
    vectors = store._session.storage.vector_reader(store.spaces[0].space)
    arrays = list(vectors.shard_arrays())
    expected = [a.copy() for a in arrays]
    store.compact()
    assert all(np.array_equal(a, e) for a, e in zip(arrays, expected, strict=True))


def test_a_kill_after_the_swap_loses_nothing(store):
    """Old files that were not removed any more are removed by the next writer, and change no answer."""
    folder = store._session.storage.layout.shards_folder(store.spaces[0].key)
    old = {p.name: p.read_bytes() for p in folder.iterdir()}
    store.purge(items=[2])
    store.compact()
    for name, content in old.items():
        (folder / name).write_bytes(content)
    reopened = open_store(store.path)
    reopened.set_default(store.spaces[0].name)
    assert found(reopened) == [1, 8, 3, 4, 5, 6, 7]
    assert len(list(folder.iterdir())) == 1


def test_the_plan_merges_small_neighbours_and_cleans_the_rest():
    """Full files stay; small ones meet; one with dead rows is written anew even alone."""
    files = [
        ShardUsage(1, 10, 10),
        ShardUsage(2, 100, 100),
        ShardUsage(3, 5, 5),
        ShardUsage(4, 6, 6),
        ShardUsage(5, 90, 80),
    ]
    assert [[f.number for f in g] for g in compact.plan_compaction(files, 100)] == [[3, 4, 5]]
    assert compact.plan_compaction([ShardUsage(1, 3, 3), ShardUsage(2, 100, 100)], 100) == []
    assert [[f.number for f in g] for g in compact.plan_compaction([ShardUsage(1, 40, 40)] * 3, 100)] == [[1, 1]]


def test_edits_hold_in_the_next_search(store):
    """By expression, by id, and into a new column."""
    assert store.edit({"label": "upper(label)"}, "year < 2004").to_json().to_json() == {"items": 4}
    assert found(store, where="label = 'A'") == [1, 3]
    store.edit({"age": "2010 - year"}, "true", create_columns=True)
    assert [h.columns["age"] for h in store.search(X, k=3)] == [10, 3, 9]
    store.edit({"split": "'val'", "label": "NULL"}, items=[8])
    hit = next(h for h in store.search(X) if h.item == 8)
    assert (hit.label, hit.split) == (None, "val")


def test_edits_from_a_table(store, tmp_path):
    """By uri or item, CSV or Parquet; unknown rows are counted."""
    csv = tmp_path / "t.csv"
    csv.write_text("uri,label,score\n/p/2.jpg,x,0.5\n/p/3.jpg,,1.5\n/nowhere,y,1\n")
    assert store.edit_from_table(csv).to_json().to_json() == {"items": 2, "unknown": 1}
    assert store.sql("SELECT label, score FROM items WHERE item IN (2, 3) ORDER BY item").rows == (
        ("x", 0.5),
        (None, 1.5),
    )
    csv.write_text("item,label\n4,four\n")
    assert store.edit_from_table(csv).to_json().to_json() == {"items": 1, "unknown": 0}
    assert found(store, where="label = 'four'") == [4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\na,b\n", "needs a column item or uri"),
        ("uri\n/p/1.jpg\n", "no column to set"),
        ("uri,label\n/p/1.jpg,a\n/p/1.jpg,b\n", "more than once"),
        ("uri,year\n/p/1.jpg,soon\n", "does not fit"),
    ],
)
def test_tables_that_cannot_be_used_change_nothing(store, tmp_path, text, words):
    """No key, nothing to set, a key twice, a value of another type."""
    before = store.sql("FROM items").rows
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadManifest, match=words):
        store.edit_from_table(tmp_path / "t.csv")
    assert store.sql("FROM items").rows == before
    with pytest.raises(BadManifest, match="no table"):
        store.edit_from_table(tmp_path / "missing.csv")


def test_edits_that_cannot_be_made_are_refused(store):
    """A column of ours, an unknown column, a subquery, a value that does not fit, no choice of items."""
    with pytest.raises(QueryError, match="says what the file is"):
        store.edit({"uri": "'x'"}, "true")
    with pytest.raises(UnknownColumn, match="did you mean label"):
        store.edit({"labell": "'x'"}, "true")
    with pytest.raises(BadFilter):
        store.edit({"label": "(SELECT max(uri) FROM items)"}, "true")
    with pytest.raises(QueryError, match="does not fit"):
        store.edit({"year": "label"}, "true")
    with pytest.raises(QueryError, match="which items"):
        store.delete()
    with pytest.raises(QueryError, match="no item 99"):
        store.delete(items=[1, 99])
    assert store.info().items == 8


def test_renames(store):
    """One item, a folder of them, a space; a name that is taken is refused."""
    assert store.rename("/p/1.jpg", "/q/first.jpg").to_json().to_json() == {"items": 1}
    assert store.rename("/p/", "/r/s/").to_json().to_json() == {"items": 7}
    assert store.sql("SELECT uri FROM items WHERE item IN (1, 2) ORDER BY item").rows == (
        ("/q/first.jpg",),
        ("/r/s/2.jpg",),
    )
    with pytest.raises(QueryError, match="another item"):
        store.rename("/r/s/2.jpg", "/r/s/3.jpg")
    with pytest.raises(QueryError, match="below"):
        store.rename("/p/", "/z/")
    store.rename_space(store.spaces[0].name, "angles")
    assert [s.name for s in store.spaces] == ["angles"]
