"""After a purge and a compaction no byte of what was purged is in any file of the store."""

import json

import numpy as np
import pytest

from embedstore import create
from embedstore import open as open_store
from embedstore.errors import BadFilter, QueryError
from embedstore.storage.purge import MAX_TEXTS
from tests.helpers.clusters import clusters
from tests.helpers.predictions import put_predictions

SECRETS = ["/home/ada/passport-scan.jpg", "AdaLovelaceSecretLabel", "caption: born 1815 in London", "group-of-ada"]
OLD_TEXTS = ["FormerLabelOfAda", "/before/the/rename.jpg", "caption that was replaced", "/home/ada/failed-once.jpg"]


@pytest.fixture
def store(tmp_path):
    """120 items of three classes; the first one is secret, and was renamed and edited before."""
    X, y = clusters(120, noise=1.0)
    labels = [str(label) for label in y]
    made = create(tmp_path / "s")
    table = {
        "uri": [OLD_TEXTS[1], *(f"/p/{n}.jpg" for n in range(1, 120))],
        "label": labels,
        "caption": [OLD_TEXTS[2], *(f"caption {n}" for n in range(1, 120))],
        "phone": [4412345678901, *range(119)],
    }
    made.add_vectors(X.astype(np.float32), table)
    made.edit({"tags": "list_value('common')"}, "true", create_columns=True)
    made.edit({"tags": "list_value('common', 'secret-tag')"}, items=[1])
    made.edit({"label": f"'{OLD_TEXTS[0]}'"}, items=[1])
    made.edit({"label": f"'{SECRETS[1]}'", "caption": f"'{SECRETS[2]}'"}, "uri = '/before/the/rename.jpg'")
    made.edit({"group_id": f"'{SECRETS[3]}'"}, items=[1], create_columns=True)
    made.rename(OLD_TEXTS[1], SECRETS[0])
    return made


def files_with(store, needle):
    """Return the files of a store that hold some bytes."""
    return [p.name for p in store.path.rglob("*") if p.is_file() and needle in p.read_bytes()]


def texts_of_runs(store):
    return "".join(f"{s}{r}" for s, r in store.sql("select settings, result from runs").rows)


def test_no_byte_of_a_purged_item_is_left_after_compaction(store):
    """Uris, labels, other columns, former values, digests, vectors, predictions, failures: in no file."""
    storage = store._session.storage
    reader = storage.vector_reader(store.spaces[0].space)
    placed = 'select shard, "row" from vectors join items using (content) where item = 1'
    ((shard, row),) = store.sql(placed).rows
    vector = reader.read_stored(reader.positions(np.array([shard]), np.array([row])))[0].tobytes()
    digest = store.sql("select content::varchar from items where item = 1").rows[0][0]
    store.build_index(kind="flat")
    put_predictions(store, "h", {1: [("PredictedOfAda", 0.5)], 2: [("cat", 0.9)]})
    with storage.writer("test") as writer, writer.transaction() as con:
        con.execute(
            "INSERT INTO failures BY NAME SELECT ? AS uri, 'truncated' AS reason, 'failed-detail' AS detail",
            [SECRETS[0]],
        )
    store.probe("label", where=f"label <> '{SECRETS[1]}'")
    needles = [*(t.encode() for t in [*SECRETS, *OLD_TEXTS[:3]]), b"PredictedOfAda", b"failed-detail", b"secret-tag",
               b"4412345678901", vector, bytes.fromhex(digest.replace("-", ""))]  # fmt: skip
    assert all(files_with(store, n) for n in needles[:6] + needles[-2:-1])
    done = store.purge(items=[1])
    assert (done.items, done.contents, done.vectors, done.failures) == (1, 1, 1, 1)
    assert done.runs >= 4
    store.compact()
    found = {n: files_with(store, n) for n in needles}
    assert {n: f for n, f in found.items() if f} == {}
    again = open_store(store.path)
    assert again.verify().ok
    assert again.sql("select count(*) from items").rows == ((119,),)
    assert again.sql("select item, label from predictions").rows == ((2, "cat"),)


def test_the_run_of_a_purge_names_nothing(store):
    """Neither its filter nor the uri in it."""
    store.purge(f"uri = '{SECRETS[0]}'")
    assert json.loads(store.sql("select settings from runs where verb = 'purge'").rows[0][0]) == {}
    assert not any(t in texts_of_runs(store) for t in [*SECRETS, *OLD_TEXTS[:3]])


def test_other_items_and_their_runs_keep_what_they_have(store):
    """An edit of other items by their ids keeps its text; common words stay."""
    store.edit({"caption": "'kept text'"}, items=[5])
    store.probe("label", where="caption <> 'nothing' and item > 1")
    store.purge(items=[1])
    texts = texts_of_runs(store)
    assert "kept text" in texts
    assert "caption <> 'nothing'" in texts
    assert "(purged)" in texts
    assert store.sql("select caption from items where item = 5").rows == (("kept text",),)
    assert store.sql("select tags from items where item = 2").rows == ((["common"],),)


def test_heads_that_remember_are_deleted_and_named(store):
    """A kNN head holds the vectors; a linear head with a class of the purged item only has its name."""
    labels = "case when label = 'AdaLovelaceSecretLabel' then 'c0' else label end"
    store.edit({"plain": labels}, "true", create_columns=True)
    store.edit({"split": "case when item % 5 = 0 then 'test' else 'train' end"}, "true")
    store.probe("plain", head="knn", save_as="neighbors")
    store.probe("plain", save_as="linear")
    done = store.purge(items=[1])
    assert done.heads == ["neighbors"]
    assert [h.name for h in store.heads] == ["linear"]
    assert not (store.path / "heads" / "neighbors").exists()
    assert open_store(store.path).verify().ok


def test_many_texts_clear_every_run(store):
    """More texts than are looked for one by one: no run keeps a text."""
    n = MAX_TEXTS + 1
    table = {"uri": [f"/many/{i}.jpg" for i in range(n)], "caption": [f"long caption {i}" for i in range(n)]}
    store.add_vectors(np.random.default_rng(0).normal(size=(n, len(store.features("label").X[0]))), table)
    store.edit({"caption": "'kept until now'"}, items=[5])
    assert store.purge("uri like '/many/%'").items == n
    assert "kept until now" not in texts_of_runs(store)


def test_a_refused_purge_changes_nothing(store):
    """An unknown id and a wrong filter."""
    before = store.sql("from runs order by run").rows
    for wrong, error in (({"items": [999]}, QueryError), ({"where": "nothing("}, BadFilter)):
        with pytest.raises(error):
            store.purge(**wrong)
    assert store.sql("from runs order by run").rows == before


def test_a_compacted_catalog_has_the_same_rows_and_types(store):
    """The new file replaces the old one; tables, columns, types and rows are the same."""

    def tables():
        names = [t for (t,) in store.sql("select table_name from duckdb_tables() order by 1").rows]
        return {t: (store.sql(f"describe {t}").rows, sorted(store.sql(f"from {t}").rows, key=str)) for t in names
                if t not in ("runs", "counters", "shards", "vectors")}  # fmt: skip

    before = tables()
    store.compact()
    assert tables() == before
    assert [p.name for p in store.path.iterdir() if p.name.startswith("catalog")] == ["catalog.duckdb"]
    store.edit({"caption": "'after'"}, items=[3])
    assert open_store(store.path).sql("select caption from items where item = 3").rows == (("after",),)
