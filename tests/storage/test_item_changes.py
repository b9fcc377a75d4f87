"""Delete, purge, edit and rename items, and compact their vectors: search shows the change at once."""

import numpy as np
import pytest

from embedstore import create
from embedstore import open as open_store
from embedstore.errors import BadFilter, BadManifest, QueryError, SourceNotFound, UnknownColumn
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


def result_items(store, **options):
    return [h.item for h in store.search(X, **options)]


def test_deleted_items_leave_the_results(store):
    """Deleted items are not found; another item with the same content is."""
    assert store.delete(items=[1, 3]).to_json() == {"items": 2}
    assert result_items(store) == [8, 2, 4, 5, 6, 7]
    assert result_items(open_store(store.path)) == [8, 2, 4, 5, 6, 7]


def test_purged_contents_leave_the_disk(store):
    """A purge removes every item with the same bytes; compaction removes the bytes of the vector."""
    raw = np.array([np.cos(np.radians(10)), np.sin(np.radians(10))], np.float32).astype(np.float16).tobytes()
    folder = store._session.storage.layout.shards_folder(store.spaces[0].key)
    done = store.purge(items=[1])
    assert (done.items, done.contents, done.vectors, done.heads, done.sheets) == (2, 1, 1, [], 0)
    assert result_items(store) == [2, 3, 4, 5, 6, 7]
    assert any(raw in p.read_bytes() for p in folder.iterdir())
    done = store.compact()
    assert (done.files_before, done.files_after, done.rows_dropped) == (4, 1, 1)
    assert not any(raw in p.read_bytes() for p in folder.iterdir())
    assert result_items(store) == [2, 3, 4, 5, 6, 7]


def test_purged_vectors_leave_the_index(store):
    """Compaction rebuilds an index over the files it replaced, with the remaining rows."""
    store.build_index(kind="flat")
    store.purge(items=[2])
    assert store.compact().indexes == [store.info().indexes[0].file]
    listed = store.info().indexes
    assert [(i.sidecar.rows, i.usable, i.rows_since) for i in listed] == [(6, True, 0)]
    assert result_items(store) == [1, 8, 3, 4, 5, 6, 7]


def test_second_compaction_changes_nothing(store):
    """A compaction without anything to merge or drop leaves every file unchanged."""
    store.compact()
    before = {
        p: p.stat().st_mtime_ns for p in store._session.storage.layout.shards_folder(store.spaces[0].key).iterdir()
    }
    assert store.compact().to_json() == {
        "files_before": 1, "files_after": 1, "rows_dropped": 0, "bytes_freed": 0, "indexes": [],
    }  # fmt: skip
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_compacting_after_deleting_everything_empties_the_store(store):
    """A store without items has no vector file and no hit, and accepts new items."""
    store.delete("true")
    store.compact()
    assert result_items(store) == []
    assert not list(store._session.storage.layout.shards_folder(store.spaces[0].key).iterdir())
    store.add_vectors(X[None], {"uri": ["/new"]})
    assert result_items(store) == [9]


def test_mapped_vectors_survive_a_compaction(store):
    """Vectors that were mapped before a compaction are read after it."""
    vectors = store._session.storage.vector_reader(store.spaces[0].space)
    arrays = list(vectors.shard_arrays())
    expected = [a.copy() for a in arrays]
    store.compact()
    assert all(np.array_equal(a, e) for a, e in zip(arrays, expected, strict=True))


def test_files_left_by_a_killed_compaction_are_removed(store):
    """The next writer removes replaced files that a killed compaction left; they change no result."""
    folder = store._session.storage.layout.shards_folder(store.spaces[0].key)
    old = {p.name: p.read_bytes() for p in folder.iterdir()}
    store.purge(items=[2])
    store.compact()
    for name, content in old.items():
        (folder / name).write_bytes(content)
    reopened = open_store(store.path)
    reopened.set_default(store.spaces[0].name)
    assert result_items(reopened) == [1, 8, 3, 4, 5, 6, 7]
    assert len(list(folder.iterdir())) == 1


def test_compaction_plan_merges_small_neighbors():
    """Full files stay, small neighbors are merged, and a file with unused rows is rewritten even alone."""
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


def test_edits_show_in_the_next_search(store):
    """Edits by filter, by id and into a new column are visible to the next search."""
    assert store.edit({"label": "upper(label)"}, "year < 2004").to_json() == {"items": 4}
    assert result_items(store, where="label = 'A'") == [1, 3]
    store.edit({"age": "2010 - year"}, "true", create_columns=True)
    assert [h.columns["age"] for h in store.search(X, k=3)] == [10, 3, 9]
    store.edit({"split": "'val'", "label": "NULL"}, items=[8])
    hit = next(h for h in store.search(X) if h.item == 8)
    assert (hit.label, hit.split) == (None, "val")


def test_edits_from_a_table(store, tmp_path):
    """A table names items by uri or id; rows of unknown items are counted."""
    csv = tmp_path / "t.csv"
    csv.write_text("uri,label,score\n/p/2.jpg,x,0.5\n/p/3.jpg,,1.5\n/nowhere,y,1\n")
    assert store.edit_from_table(csv).to_json() == {"items": 2, "unknown": 1}
    assert store.sql("SELECT label, score FROM items WHERE item IN (2, 3) ORDER BY item").rows == (
        ("x", 0.5),
        (None, 1.5),
    )
    csv.write_text("item,label\n4,four\n")
    assert store.edit_from_table(csv).to_json() == {"items": 1, "unknown": 0}
    assert result_items(store, where="label = 'four'") == [4]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name,label\na,b\n", "needs a column item or uri"),
        ("uri\n/p/1.jpg\n", "no column to set"),
        ("uri,label\n/p/1.jpg,a\n/p/1.jpg,b\n", "more than once"),
        ("uri,year\n/p/1.jpg,soon\n", "does not fit"),
    ],
)
def test_unusable_tables_change_nothing(store, tmp_path, text, words):
    """A table without a key or a column to set, with a key twice or a value that does not fit is rejected."""
    before = store.sql("FROM items").rows
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadManifest, match=words):
        store.edit_from_table(tmp_path / "t.csv")
    assert store.sql("FROM items").rows == before
    with pytest.raises(SourceNotFound, match=r"missing\.csv is not a file"):
        store.edit_from_table(tmp_path / "missing.csv")


def test_invalid_edits_change_nothing(store):
    """An edit of a column that describes the file, of an unknown column or item, with a subquery, with a value that
    does not fit, or without a selection is rejected."""
    with pytest.raises(QueryError, match="describes the file"):
        store.edit({"uri": "'x'"}, "true")
    with pytest.raises(UnknownColumn, match="did you mean label"):
        store.edit({"labell": "'x'"}, "true")
    with pytest.raises(BadFilter):
        store.edit({"label": "(SELECT max(uri) FROM items)"}, "true")
    with pytest.raises(QueryError, match="does not fit"):
        store.edit({"year": "label"}, "true")
    with pytest.raises(QueryError, match="by a filter or by ids"):
        store.delete()
    with pytest.raises(QueryError, match="no item 99"):
        store.delete(items=[1, 99])
    assert store.info().items == 8


def test_renames_items_folders_and_spaces(store):
    """An item, a folder of items and a space get new names; a name in use is rejected."""
    assert store.rename("/p/1.jpg", "/q/first.jpg").to_json() == {"items": 1}
    assert store.rename("/p/", "/r/s/").to_json() == {"items": 7}
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
