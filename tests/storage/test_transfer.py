"""Export a store as Parquet and import it: the same store row by row and bit by bit; a damaged export is refused."""

import json
import os
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.classify import registry
from embedstore.classify.heads.prototype import NearestPrototype
from embedstore.errors import (
    EmbedstoreError,
    NotAStore,
    StoreDamaged,
    StoreExists,
    StoreNotFound,
    StoreTooNew,
    UnsafeStore,
)
from embedstore.operations.maintenance import import_store
from embedstore.storage.catalog import ARCHIVED_TABLES
from embedstore.storage.durable_files import file_xxh3
from tests.conftest import TINY, picture

VECTORS = np.array([[1, 2, 3], [np.float32(1e-7), -0.0, 60000], [0.1, 0.2, 0.3]], np.float32)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """Create a store with every kind of row: two spaces, failures, columns of odd types, a head, predictions, runs."""
    folder = tmp_path_factory.mktemp("full")
    photos = folder / "photos"
    for n in range(12):
        path = photos / ("val" if n % 3 == 2 else "train") / ("cat" if n < 6 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    (photos / "train" / "cat" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "train" / "dog" / "twin.png")
    odd = os.fsencode(photos) + b"/train/dog/not-utf8-\xff.png"
    picture(40).save(folder / "x.png")
    os.rename(folder / "x.png", odd)  # noqa: PTH104 - the name is bytes
    store = es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(photos)
    uris = [r[0] for r in store.sql("SELECT uri FROM items ORDER BY item LIMIT 3").rows]
    store.add_vectors(VECTORS, {"uri": uris, "year": [2020, 2021, None]}, space="mine", dtype="float32")
    with store._session.storage.writer("odd types") as writer, writer.transaction() as con:
        con.execute("ALTER TABLE items ADD COLUMN big HUGEINT")
        con.execute("UPDATE items SET big = 170141183460469231731687303715884105727 - item")
        con.execute("ALTER TABLE items ADD COLUMN size_class ENUM('s', 'l''x')")
        con.execute("UPDATE items SET size_class = CASE WHEN item % 2 = 0 THEN 's' ELSE 'l''x' END WHERE item > 1")
        con.execute('ALTER TABLE items ADD COLUMN "Odd ""Name""" STRUCT(a INTEGER, b VARCHAR[])')
        con.execute('UPDATE items SET "Odd ""Name""" = {a: item, b: [uri, NULL]}')
        con.execute("UPDATE items SET group_id = 'g' || item % 3 WHERE item < 9")
        con.execute("UPDATE items SET present = false WHERE item = 5")
    data = store.features("label")
    head = NearestPrototype().fit(data.X, data.y)
    registry.save_head(
        store._session.storage, store.spaces[0], "animal", head, label="label", kind="prototype", metadata={}
    )
    store.predict("animal")
    store.delete(items=[13])
    return store


def tables(store: es.Store) -> dict[str, tuple]:
    """Return the rows of every exported table, with columns sorted by name."""
    out = {}
    for name in ARCHIVED_TABLES:
        columns = sorted(r[0] for r in store.sql(f"DESCRIBE {name}").rows)
        columns = [c for c in columns if (name, c) not in (("counters", "generation"), ("counters", "next_shard"))]
        chosen = ", ".join('"' + c.replace('"', '""') + '"' for c in columns)
        types = sorted((r[0], r[1]) for r in store.sql(f"DESCRIBE {name}").rows)
        out[name] = (types, store.sql(f"SELECT {chosen} FROM {name} ORDER BY ALL").rows)
    return out


def vectors(store: es.Store) -> dict[tuple[str, str], bytes]:
    """Return the stored bytes of every vector by space and content."""
    out = {}
    for row in store.spaces:
        held = store._session.storage.vector_reader(row.space)
        found = store.sql('SELECT content::VARCHAR, shard, "row" FROM vectors WHERE space = ?', [row.key]).rows
        positions = held.positions(np.array([f[1] for f in found], int), np.array([f[2] for f in found], int))
        for (content, _, _), v in zip(found, held.read_float32(positions), strict=True):
            out[row.key, content] = v.astype(row.dtype).tobytes()
    return out


def test_import_restores_every_table_vector_and_head(full, tmp_path):
    """Every row, every vector of both spaces and every prediction is equal, and the new store verifies."""
    done = full.export_store(tmp_path / "out")
    counts = import_store(tmp_path / "new", tmp_path / "out")
    again = es.open(tmp_path / "new")
    assert tables(again) == tables(full)
    assert vectors(again) == vectors(full)
    assert len(vectors(full)) == counts.vectors == done.vectors == 16
    assert counts.tables["failures"] == 1
    assert {n: counts.tables[n] for n in ARCHIVED_TABLES if n != "counters"} == {
        n: len(tables(full)[n][1]) for n in ARCHIVED_TABLES if n != "counters"
    }
    assert again.verify().ok
    X = full.features("label").X
    assert np.array_equal(again.head("animal").predict_proba(X), full.head("animal").predict_proba(X))
    assert again.spaces[0].recipe == full.spaces[0].recipe
    assert [(h.item, h.score) for h in again.search(2, k=20)] == [(h.item, h.score) for h in full.search(2, k=20)]
    assert again.embed(full.path.parent / "photos").embedded == 0
    assert again.sql("SELECT max(item) FROM items").rows == ((15,),), "the file of the deleted item gets a new id"


def test_export_is_readable_by_any_parquet_reader(full, tmp_path):
    """DuckDB alone joins items with their vectors, which are lists of floats."""
    full.export_store(tmp_path / "out")
    with duckdb.connect() as con:
        mine = full.spaces[1].key
        rows = con.execute(
            f"SELECT v.vector FROM '{tmp_path}/out/items.parquet' i "
            f"JOIN '{tmp_path}/out/vectors/{mine}/*.parquet' v USING (content) WHERE i.year IS NOT NULL ORDER BY i.item"
        ).fetchall()
    assert np.array_equal(np.array([r[0] for r in rows], np.float32), VECTORS[:2])


def test_export_and_import_overwrite_nothing(full, tmp_path):
    """Both refuse a folder that exists; a folder without a manifest is no export."""
    full.export_store(tmp_path / "out")
    before = sorted(p.name for p in (tmp_path / "out").iterdir())
    with pytest.raises(StoreExists):
        full.export_store(tmp_path / "out")
    with pytest.raises(StoreExists):
        full.export_store(full.path / "inside")
    with pytest.raises(StoreExists):
        import_store(full.path, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotAStore, match=r"no export.json.*embedstore export"):
        import_store(tmp_path / "new", tmp_path / "empty")
    with pytest.raises(StoreNotFound):
        import_store(tmp_path / "new", tmp_path / "nowhere")
    assert not (tmp_path / "new").exists()


def rewrite_manifest(folder: Path, change: dict) -> None:
    """Change entries of the manifest."""
    found = json.loads((folder / "export.json").read_text())
    found.update(change)
    (folder / "export.json").write_text(json.dumps(found))


def update_checksum(folder: Path, name: str) -> None:
    """Update the manifest to match a changed file, as an attacker would."""
    found = json.loads((folder / "export.json").read_text())
    for p in [*found["tables"].values(), *found["vectors"], *found["files"]]:
        if p["name"] == name:
            p.update(bytes=(folder / name).stat().st_size, xxh3=file_xxh3(folder / name))
    (folder / "export.json").write_text(json.dumps(found))


def run_sql(query: str) -> None:
    with duckdb.connect() as con:
        con.execute(query)


def damage_export(folder: Path, how: str) -> None:
    """Damage an export in one way."""
    items, note = folder / "items.parquet", json.loads((folder / "export.json").read_text())
    first = note["vectors"][0]
    vector_file = folder / first["name"]
    if how == "a flipped bit":
        data = bytearray(items.read_bytes())
        data[len(data) // 2] ^= 4
        items.write_bytes(data)
    elif how == "a missing table":
        items.unlink()
    elif how == "a cut file":
        vector_file.write_bytes(vector_file.read_bytes()[:-9])
    elif how == "a later format":
        rewrite_manifest(folder, {"format": 2})
    elif how == "no JSON":
        (folder / "export.json").write_text("{" * 5000)
    elif how == "a path outside":
        note["files"] = [{**first, "name": "heads/../../../etc/passwd", "rows": 0, "space": ""}]
        rewrite_manifest(folder, note)
    elif how == "a link":
        shutil.move(items, folder / "other")
        items.symlink_to("other")
    elif how == "SQL for a type":
        note["tables"]["items"]["text"]["big"] = "INTEGER); DROP TABLE items; --"
        rewrite_manifest(folder, note)
    elif how == "no Parquet":
        items.write_bytes(b"PAR1 nothing PAR1")
        update_checksum(folder, "items.parquet")
    elif how == "another dimension":
        run_sql(f"COPY (SELECT content, vector[1:2] AS vector FROM '{vector_file}') TO '{folder}/t' (FORMAT parquet)")
        shutil.move(folder / "t", vector_file)
        update_checksum(folder, first["name"])
    elif how == "not finite":
        run_sql(
            f"COPY (SELECT content, list_transform(vector, lambda x: 'nan'::FLOAT) AS vector FROM '{vector_file}') "
            f"TO '{folder}/t' (FORMAT parquet)"
        )
        shutil.move(folder / "t", vector_file)
        update_checksum(folder, first["name"])
    elif how == "an item twice":
        run_sql(f"COPY (FROM '{items}' UNION ALL (FROM '{items}' LIMIT 1)) TO '{folder}/t' (FORMAT parquet)")
        shutil.move(folder / "t", items)
        note["tables"]["items"]["rows"] += 1
        rewrite_manifest(folder, note)
        update_checksum(folder, "items.parquet")
    elif how == "a head without its files":
        note["files"] = []
        rewrite_manifest(folder, note)
    elif how == "a space that is another":
        run_sql(
            f"COPY (SELECT * REPLACE (replace(facts::VARCHAR, 'size', 'sise')::JSON AS facts) FROM "
            f"'{folder}/spaces.parquet') TO '{folder}/t' (FORMAT parquet)"
        )
        shutil.move(folder / "t", folder / "spaces.parquet")
        update_checksum(folder, "spaces.parquet")


DAMAGES = [
    "a flipped bit", "a missing table", "a cut file", "a later format", "no JSON", "a path outside", "a link",
    "SQL for a type", "no Parquet", "another dimension", "not finite", "an item twice", "a head without its files",
    "a space that is another",
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(full, tmp_path_factory):
    """Export the store once, for tests to copy."""
    folder = tmp_path_factory.mktemp("exported") / "out"
    full.export_store(folder)
    return folder


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_export_is_refused_in_one_line(exported, tmp_path, how):
    """The refusal is one line with the path, and nothing is left of the new store."""
    shutil.copytree(exported, tmp_path / "out")
    damage_export(tmp_path / "out", how)
    with pytest.raises(EmbedstoreError) as e:
        import_store(tmp_path / "new", tmp_path / "out")
    assert isinstance(e.value, (StoreDamaged, StoreTooNew, UnsafeStore))
    assert "\n" not in str(e.value)
    assert str(tmp_path) in str(e.value)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_export_beside_a_writer_is_one_generation(tmp_path):
    """Each export holds whole commits and every vector, although a compaction removes files meanwhile."""
    import subprocess
    import sys

    from tests.helpers.vector_stores import make, rows

    code = """
import sys
from tests.helpers.vector_stores import batch
from embedstore.storage import compact
from embedstore.storage.storage import Storage
storage = Storage.open(sys.argv[1])
with storage.writer("adding") as writer:
    for i in range(12):
        writer.commit(batch(11 + 10 * i, 10), space=storage.space())
        if i % 3 == 2:
            compact.compact(storage, writer)
        print(i, flush=True)
"""
    make(tmp_path / "s", 10)
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s")], stdout=subprocess.PIPE, text=True)
    store, sizes = es.open(tmp_path / "s"), []
    for n in range(3):
        other.stdout.readline()
        store.export_store(tmp_path / f"e{n}")
        import_store(tmp_path / f"i{n}", tmp_path / f"e{n}")
        sizes.append(len(rows(es.open(tmp_path / f"i{n}")._session.storage)))
    other.stdout.read()
    assert other.wait() == 0
    assert {s % 10 for s in sizes} == {0}
    assert sizes == sorted(sizes)
