"""Columns that the package computes never replace a column of the user, and do not outlive what they say."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.errors import BadManifest, QueryError
from tests.conftest import ROOT, TINY, picture

# Items 1, 2, 3 look alike, as do 4 and 5; 6 is alone.
DEGREES = np.radians([0, 1, 2, 90, 91, 180])
VECTORS = np.stack([np.cos(DEGREES), np.sin(DEGREES)], axis=1).astype(np.float32)
URIS = [f"/{n}" for n in range(1, 7)]


def new_store(folder, **columns):
    """Return a store of six items with own columns."""
    store = es.create(folder)
    store.add_vectors(VECTORS, {"uri": URIS, **columns}, space="s")
    return store


def marks(store):
    """Return the marks of the items that have them: item, group, keep."""
    query = "SELECT item, duplicate_group, duplicate_keep FROM items WHERE duplicate_group IS NOT NULL ORDER BY item"
    return list(store.sql(query).rows)


def computed(store):
    """Return column, verb and whether it is stale, of every computed column."""
    return [(c.column, c.verb, c.stale) for c in store.info().computed]


MARKED = [(1, 1, True), (2, 1, False), (3, 1, False), (4, 2, True), (5, 2, False)]


@pytest.mark.parametrize("own", ["cluster", "Cluster", "OUTLIER", "outlier"])
def test_clusters_do_not_overwrite_a_column_of_the_user(tmp_path, own):
    """The refusal names the option, changes nothing, and following it works."""
    store = new_store(tmp_path / "s", **{own: ["mine"] * 6})
    option = f"{own.lower()}_column"
    with pytest.raises(QueryError, match=f"{own!r} of your own.*--{own.lower()}-column"):
        store.cluster(2, where="item < 5")
    assert store.sql(f"SELECT {own} FROM items").rows == (("mine",),) * 6
    assert len(store.sql("DESCRIBE items").rows) == 12
    assert store.cluster(2, where="item < 5", **{option: "found"}).items == 4
    assert store.sql(f"SELECT count({own}), count(found) FROM items").rows == ((6, 4),)


@pytest.mark.parametrize("own", ["duplicate_group", "DUPLICATE_KEEP"])
def test_marks_do_not_overwrite_a_column_of_the_user(tmp_path, own):
    """The refusal comes before any work, names the option, and following it works."""
    store = new_store(tmp_path / "s", **{own: [True] * 6})
    option = own.lower().removeprefix("duplicate_") + "_column"
    with pytest.raises(QueryError, match=f"{own!r} of your own.*--{option.replace('_', '-')}"):
        store.duplicates(0.99, write_columns=True)
    assert store.duplicates(0.99).group_count == 2, "without columns to write there is nothing to refuse"
    store.duplicates(0.99, write_columns=True, **{option: "found"})
    assert store.sql(f"SELECT count({own}), count(found) FROM items").rows == ((6, 5),)


def test_computed_columns_are_computed_again(tmp_path):
    """A second run replaces all values of the first, and the record names the second run."""
    store = new_store(tmp_path / "s")
    store.cluster(2)
    first = store.info().computed
    store.cluster(3, where="item < 4")
    assert store.sql("SELECT count(cluster), count(outlier) FROM items").rows == ((3, 3),)
    assert [c.run for c in store.info().computed] == [first[0].run + 1] * 2
    assert [(c.column, c.items, c.verb) for c in store.info().computed] == [
        ("cluster", 3, "cluster"), ("outlier", 3, "cluster"),
    ]  # fmt: skip
    run = store.sql("SELECT verb, space, settings->>'columns' FROM runs ORDER BY run DESC LIMIT 1").rows[0]
    assert (run[0], run[1], json.loads(run[2])) == ("cluster", store.spaces[0].key, ["cluster", "outlier"])


def test_columns_for_two_purposes_are_not_mixed(tmp_path):
    """A column that marks duplicates does not become one of clusters, and one name is not two columns."""
    store = new_store(tmp_path / "s")
    store.duplicates(0.99, write_columns=True)
    with pytest.raises(QueryError, match="another purpose"):
        store.cluster(2, cluster_column="Duplicate_Group")
    with pytest.raises(QueryError, match="one column"):
        store.cluster(2, cluster_column="a", outlier_column="A")
    assert marks(store) == MARKED


def test_an_edited_column_is_not_computed_again(tmp_path):
    """What a person corrected in a computed column is kept: by an expression as by a table."""
    store = new_store(tmp_path / "s")
    store.cluster(2)
    store.edit({"CLUSTER": "7"}, items=[6])
    with pytest.raises(QueryError, match="was edited since run"):
        store.cluster(2)
    assert store.sql("SELECT cluster FROM items WHERE item = 6").rows == ((7,),)
    store.duplicates(0.99, write_columns=True)
    (tmp_path / "t.csv").write_text("item,Duplicate_Keep\n2,true\n")
    store.edit_from_table(tmp_path / "t.csv")
    with pytest.raises(QueryError, match="'duplicate_keep' was edited"):
        store.duplicates(0.99, write_columns=True)
    assert store.delete("not duplicate_keep").items == 2
    assert {c.column: c.edited for c in store.info().computed} == {
        "cluster": True, "outlier": False, "duplicate_group": False, "duplicate_keep": True,
    }  # fmt: skip


def test_a_table_does_not_fill_a_computed_column(tmp_path):
    """A column of a manifest with the name of a computed one is refused before a space is added."""
    store = new_store(tmp_path / "s")
    store.cluster(2)
    with pytest.raises(BadManifest, match=r"'Cluster' has the name of a column that run \d+ computed; rename it"):
        store.add_vectors(VECTORS, {"uri": URIS, "Cluster": [9] * 6}, space="new")
    assert [s.name for s in store.spaces] == ["s"]
    assert store.sql("SELECT count(*) FROM items WHERE cluster = 9").rows == ((0,),)


def test_the_last_copy_stays_when_the_kept_one_was_deleted(tmp_path):
    """Deleting a kept item clears the marks of its group, and says so; a deletion by the marks leaves the rest."""
    store = new_store(tmp_path / "s")
    store.duplicates(0.99, write_columns=True)
    store.delete(items=[1])
    assert marks(store) == [(4, 2, True), (5, 2, False)]
    assert "2 duplicates in duplicate_group and duplicate_keep were cleared" in store.notices[-1]
    assert ("duplicate_keep", "duplicates", True) in computed(store)
    assert store.delete("not duplicate_keep").items == 1
    assert store.sql("SELECT item FROM items ORDER BY 1").rows == ((2,), (3,), (4,), (6,))
    store.duplicates(0.99, write_columns=True)
    assert store.delete("not duplicate_keep").items == 1, "after marking again, the others of the group can go"
    assert store.sql("SELECT item FROM items ORDER BY 1").rows == ((2,), (4,), (6,))


def test_deleting_by_the_marks_in_parts_works(tmp_path):
    """A deletion of marked items does not clear the marks of the others."""
    store = new_store(tmp_path / "s")
    store.duplicates(0.99, write_columns=True)
    assert [store.delete(f"not duplicate_keep and item = {n}").items for n in (2, 3, 5)] == [1, 1, 1]
    assert store.sql("SELECT item FROM items ORDER BY 1").rows == ((1,), (4,), (6,))
    assert not any(stale for *_, stale in computed(store))
    assert store.notices == []


def test_a_filter_on_a_stale_column_says_so(tmp_path):
    """Searches and deletions by a column that does not cover all items name it, others do not."""
    store = new_store(tmp_path / "s")
    store.cluster(2)
    assert store.search(VECTORS[0], where="CLUSTER = 0").notes == ()
    store.add_vectors(VECTORS[:1], {"uri": ["/new"]}, space="s")
    stale = "the column cluster is stale: there are 1 added item and 0 cleared values since run 2 computed it"
    for _ in range(6):  # from SQL, then from memory
        assert [n[: len(stale)] for n in store.search(VECTORS[0], where="CLUSTER = 0").notes] == [stale]
        assert store.search(VECTORS[0], where="label is null or label = 'cluster'").notes == ()
    store.delete("items.cluster = 1")
    assert [n[: len(stale)] for n in store.notices] == [stale]


def lose_by_purge(store):
    """Purge the kept copy of the first group."""
    store.purge(items=[1])


def lose_by_new_vector(store):
    """Give the kept copy of the first group another vector, as a changed image has."""
    store.add_vectors(np.array([[-1, -1]], np.float32), {"uri": ["/1"]}, space="s")


def lose_after_an_archive(store):
    """Export and import the store, and delete the kept copy there."""
    store.export_store(store.path.parent / "out")
    es.import_store(store.path.parent / "again", store.path.parent / "out")
    shutil.rmtree(store.path)
    (store.path.parent / "again").rename(store.path)
    es.open(store.path).delete(items=[1])


def lose_after_a_rename(store):
    """Rename the kept copy, then delete it by its new name."""
    store.rename("/1", "/new")
    store.delete("uri = '/new'")


@pytest.mark.parametrize("lose", [lose_by_purge, lose_by_new_vector, lose_after_an_archive, lose_after_a_rename])
def test_the_last_copy_stays_however_the_kept_one_is_lost(tmp_path, lose):
    """The marks of its group are gone, those of the other group are not."""
    store = new_store(tmp_path / "s")
    store.duplicates(0.99, write_columns=True)
    lose(store)
    store = es.open(store.path)
    assert marks(store) == [(4, 2, True), (5, 2, False)]
    store.delete("not duplicate_keep")
    assert {2, 3, 4, 6} <= {i for (i,) in store.sql("SELECT item FROM items").rows}


@pytest.mark.parametrize("how", ["deleted", "changed", "unreadable"])
def test_the_last_copy_stays_when_the_kept_file_is_lost(tmp_path, how):
    """The next scan of the folder clears the marks of the group of a file that is missing, changed or unreadable."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in "abc":
        picture(0).save(photos / f"{name}.png")
    picture(5).save(photos / "d.png")
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(photos)
    store.duplicates(0.9999, write_columns=True, where="uri not like '%d.png'")
    assert [keep for _, _, keep in marks(store)] == [True, False, False]
    kept = photos / "a.png"
    if how == "deleted":
        kept.unlink()
    elif how == "changed":
        picture(9).save(kept)
    else:
        kept.write_bytes(b"\x89PNG nothing")
    store.embed(photos)
    assert marks(store) == []
    assert store.delete("not duplicate_keep").items == 0


def test_values_of_a_changed_file_are_cleared_and_counted(tmp_path):
    """A cluster belongs to the content it was computed from; info counts what was deleted, changed and added since."""
    store = new_store(tmp_path / "s")
    store.cluster(2)
    assert computed(store) == [("cluster", "cluster", False), ("outlier", "cluster", False)]
    changed = np.array([[0.5, 0.5], [0.3, 0.7]], np.float32)
    store.add_vectors(changed, {"uri": ["/3", "/new"], "year": [1, 2]}, space="s")
    store.delete(items=[6])
    assert store.sql("SELECT item FROM items WHERE cluster IS NULL ORDER BY 1").rows == ((3,), (7,))
    facts = {c.column: (c.items, c.cleared, c.added, c.stale) for c in store.info().computed}
    assert facts["cluster"] == facts["outlier"] == (4, 1, 1, True)
    store.edit({"label": "'x'"}, "true")
    store.add_vectors(VECTORS[:2], {"uri": URIS[:2]}, space="s")
    assert store.sql("SELECT count(cluster) FROM items").rows == ((4,),), "the same vectors again change nothing"


def test_info_of_a_read_only_store_from_before_the_table(tmp_path):
    """A store that no newer writer has opened has no computed columns, and every reader works."""
    shutil.copytree(ROOT / "tests" / "golden" / "v3", tmp_path / "s")
    store = es.open(tmp_path / "s")
    assert store.info().computed == []
    store.export_store(tmp_path / "out")
    es.import_store(tmp_path / "again", tmp_path / "out")
    assert es.open(tmp_path / "again").info().computed == []
    assert es.open(tmp_path / "again").verify().ok


def forget(store, runs):
    """Make a store one of the third format, whose columns were computed by the given runs."""
    with store._session.storage.writer("old") as writer, writer.transaction() as con:
        con.execute("DELETE FROM runs")
        for number, (verb, facts) in enumerate(runs, 1):
            con.execute(
                "INSERT INTO runs VALUES (?, ?, NULL, ?, '{}', TIMESTAMP '2026-01-01', 0)",
                [number, verb, json.dumps(facts)],
            )
        con.execute("DROP TABLE computed_columns")
        con.execute('DELETE FROM "schema" WHERE migration = 4')
    return es.open(store.path)


@pytest.mark.parametrize(
    ("runs", "known"),
    [
        ([("cluster", {"k": 2, "column": "cluster"})], ["cluster", "outlier"]),
        ([("duplicates", {"threshold": 0.9})], ["duplicate_group", "duplicate_keep"]),
        ([("cluster", {"column": "other"})], []),
        ([("cluster", {"column": "cluster"}), ("edit", {"set": {"Cluster": "1"}})], ["outlier"]),
        ([("cluster", {"column": "cluster"}), ("edit", {"table": "t.csv"})], []),
        ([("edit", {"table": "t.csv"}), ("cluster", {"column": "cluster"})], ["cluster", "outlier"]),
        ([("cluster", "not what a run records"), ("edit", [1])], ["cluster", "outlier"][:0]),
        ([], []),
    ],
)
def test_columns_of_earlier_runs_are_recognized(tmp_path, runs, known):
    """A store of the third format knows which columns its runs computed, unless somebody edited them after."""
    store = new_store(tmp_path / "s")
    store.cluster(2)
    store.duplicates(0.99, write_columns=True)
    old = forget(store, runs)
    assert old.info().computed == []
    old.edit({"label": "'x'"}, items=[1])
    assert sorted(c.column for c in old.info().computed) == sorted(known)
    if "cluster" in known:
        assert old.cluster(3).items == 6
    else:
        with pytest.raises(QueryError, match="of your own"):
            old.cluster(3)


STEPS = st.lists(
    st.tuples(st.sampled_from(["delete", "purge", "change", "add", "mark", "clean", "edit"]), st.integers(0, 9)),
    max_size=12,
)


@settings(max_examples=15, deadline=None)
@given(STEPS)
def test_cleaning_by_the_marks_never_removes_the_last_copy(tmp_path_factory, steps):
    """Whatever was deleted, purged, changed, added or marked before, each picture that had an item keeps one.

    The oracle is a dict of the picture of each item; items of one picture are the duplicates.
    """
    store = es.create(tmp_path_factory.mktemp("marks") / "s")
    angles = {n: n % 4 for n in range(10)}  # the picture of each item, by uri

    def put(numbers):
        if numbers:
            radians = np.radians([angles[n] * 90.0 + n * 0.01 for n in numbers])
            rows = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
            store.add_vectors(rows, {"uri": [f"/{n}" for n in numbers]}, space="s", dtype="float32")

    put(list(angles))
    store.duplicates(0.99, write_columns=True)
    for step, n in steps:
        if step == "clean":
            before = {angles[k] for k in angles}
            store.delete("not duplicate_keep")
            left = {int(uri[1:]) for (uri,) in store.sql("SELECT uri FROM items").rows}
            angles = {k: v for k, v in angles.items() if k in left}
            assert {angles[k] for k in angles} == before
        elif step == "mark" and angles:
            store.duplicates(0.99, write_columns=True)
        elif step in ("delete", "purge") and n in angles:
            getattr(store, step)(f"uri = '/{n}'")
            del angles[n]
        elif step == "change" and n in angles:
            angles[n] = (angles[n] + 1) % 4
            put([n])
        elif step == "add" and n not in angles:
            angles[n] = n % 4
            put([n])
        elif step == "edit":
            store.edit({"label": "'x'"}, f"uri = '/{n}'")
