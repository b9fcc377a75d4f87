"""A catalog from a stranger is opened for work only if it holds the tables of our migrations and nothing else."""

import time
from pathlib import Path

import duckdb
import pytest

from embedstore.errors import StoreDamaged, StoreTooNew, UnsafeStore
from embedstore.storage import catalog_check, connection, migrations
from embedstore.storage.catalog_check import foreign_objects
from embedstore.storage.storage import Storage
from tests.conftest import ROOT
from tests.helpers.vector_stores import expected, make, rows

FOREIGN = {
    "view": "CREATE VIEW cat.latest AS SELECT * FROM cat.items",
    "a view in the place of a table": "DROP TABLE cat.failures; CREATE VIEW cat.failures AS SELECT 1 AS uri",
    "macro": "CREATE MACRO cat.list_contains(a, b) AS true",
    "macro that reads a file": "CREATE MACRO cat.coalesce(a, b) AS (SELECT content FROM read_text('/etc/hostname'))",
    "table macro": "CREATE MACRO cat.read_parquet(a) AS TABLE SELECT 1",
    "sequence": "CREATE SEQUENCE cat.s",
    "type": "CREATE TYPE cat.mood AS ENUM ('a', 'b')",
    "schema": "CREATE SCHEMA cat.other; CREATE TABLE cat.other.items (item BIGINT)",
    "index": "CREATE INDEX i ON cat.items (item)",
    "unique index": "CREATE UNIQUE INDEX i ON cat.items (uri)",
    "table with the name of a variable of ours": "CREATE TABLE cat.rows (uri VARCHAR)",
    "default": "ALTER TABLE cat.items ALTER label SET DEFAULT 'x'",
    "default that calls a function": "ALTER TABLE cat.failures ALTER detail SET DEFAULT current_database()",
    "default of an own column": "ALTER TABLE cat.items ADD COLUMN own DOUBLE DEFAULT random()",
    "constraint": "ALTER TABLE cat.items ALTER uri SET NOT NULL",
    "another type": "ALTER TABLE cat.shards ALTER shard SET DATA TYPE VARCHAR",
    "one column more": "ALTER TABLE cat.counters ADD COLUMN more INTEGER",
    "another order of columns": "ALTER TABLE cat.items DROP label; ALTER TABLE cat.items ADD COLUMN label VARCHAR",
    "generated column": (
        "DROP TABLE cat.heads; CREATE TABLE cat.heads (head VARCHAR, space VARCHAR, label VARCHAR, kind VARCHAR, "
        "facts JSON AS ('{}'), created TIMESTAMP)"
    ),
    "check": (
        "DROP TABLE cat.predictions; CREATE TABLE cat.predictions (head VARCHAR, item BIGINT, label VARCHAR, "
        "score DOUBLE, content UUID, CHECK (item > 0))"
    ),
    "collation": (
        "DROP TABLE cat.predictions; CREATE TABLE cat.predictions (head VARCHAR COLLATE nocase, item BIGINT, "
        "label VARCHAR, score DOUBLE, content UUID)"
    ),
}


def alter(file: Path, statements: str, *, checkpoint: bool) -> None:
    """Run statements on a catalog as its maker could: with any DuckDB, in the file or only in its log."""
    with duckdb.connect() as con:
        con.execute("SET checkpoint_on_detach = 'DISABLED'; SET wal_autocheckpoint = '1TB'")
        con.execute(f"ATTACH '{file}' AS cat")
        con.execute(statements)
        if checkpoint:
            con.execute("CHECKPOINT cat")
        con.execute("DETACH cat")


@pytest.mark.parametrize("checkpoint", [True, False], ids=["in the file", "in the log"])
@pytest.mark.parametrize("kind", FOREIGN)
def test_what_our_migrations_do_not_create_is_refused(tmp_path, kind, checkpoint):
    """Nothing of the catalog takes part in a query of ours, whether it is in the file or in the log."""
    storage = make(tmp_path / "s", 4)
    alter(storage.layout.catalog, FOREIGN[kind], checkpoint=checkpoint)
    assert storage.layout.wal.exists() != checkpoint
    with pytest.raises(UnsafeStore, match="never creates"):
        Storage.open(tmp_path / "s")
    assert foreign_objects(storage.layout.catalog)


@pytest.mark.parametrize("kind", ["view", "macro", "default"])
def test_a_writer_and_a_store_that_is_open_refuse_a_catalog_that_was_replaced(tmp_path, kind):
    """The file is checked again when another one is in its place."""
    storage, other = make(tmp_path / "s", 4), make(tmp_path / "other", 4)
    alter(other.layout.catalog, FOREIGN[kind], checkpoint=True)
    other.layout.catalog.replace(storage.layout.catalog)
    with pytest.raises(UnsafeStore), storage.writer("test") as writer:
        writer.set_default(storage.space().key)
    with pytest.raises(UnsafeStore):
        rows(storage)


@pytest.mark.parametrize(
    "kind",
    ["BIGINT", "DOUBLE", "VARCHAR[]", "STRUCT(a INTEGER, b VARCHAR[3])", "MAP(VARCHAR, DATE)", "DECIMAL(30, 5)",
     "ENUM ('it''s', 'b')", "TIMESTAMP WITH TIME ZONE", "UHUGEINT", "UNION(a INTEGER, b VARCHAR)", "JSON", "INTERVAL"],
)  # fmt: skip
def test_own_columns_of_plain_types_are_allowed(tmp_path, kind):
    """A person's own columns, under any name, are part of an ordinary store."""
    storage = make(tmp_path / "s", 4)
    alter(storage.layout.catalog, f'ALTER TABLE cat.items ADD COLUMN "it\'s ""own" {kind}', checkpoint=False)
    assert foreign_objects(storage.layout.catalog) == []
    assert rows(Storage.open(tmp_path / "s")) == expected(4)


@pytest.mark.parametrize("version", ["v1", "v2", "v3"])
def test_catalogs_of_older_versions_are_ours(version):
    """Stores of every published format pass, with the migrations they have had."""
    assert foreign_objects(ROOT / "tests" / "golden" / version / "catalog.duckdb") == []


@pytest.mark.parametrize("count", range(1, len(migrations.MIGRATIONS) + 1))
def test_the_tables_after_every_migration_are_ours(tmp_path, count, monkeypatch):
    """A new migration needs no change of the check."""
    file = tmp_path / "catalog.duckdb"
    with connection.connect() as con:
        connection.attach_new_file(con, file)
        with monkeypatch.context() as older:
            older.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:count])
            migrations.apply_pending(con)
        con.execute("CHECKPOINT cat")
    assert foreign_objects(file) == []


def test_a_missing_column_is_damage_and_a_later_version_is_named(tmp_path):
    """Only what is there and not ours is unsafe."""
    storage = make(tmp_path / "s", 4)
    alter(storage.layout.catalog, "ALTER TABLE cat.contents DROP format", checkpoint=True)
    with pytest.raises(StoreDamaged, match=r"contents\.format"):
        foreign_objects(storage.layout.catalog)
    for n, change in enumerate(
        ["UPDATE cat.schema SET migration = -1", "DELETE FROM cat.schema", "DROP TABLE cat.schema"]
    ):
        older = make(tmp_path / f"{n}", 4)
        alter(older.layout.catalog, change, checkpoint=n == 0)
        with pytest.raises(StoreDamaged):
            Storage.open(tmp_path / f"{n}")
    newer = make(tmp_path / "newer", 4)
    alter(newer.layout.catalog, "INSERT INTO cat.schema VALUES (99, 'm099', now())", checkpoint=False)
    with pytest.raises(StoreTooNew, match="99 migrations"):
        Storage.open(tmp_path / "newer")


def test_a_log_that_computes_for_long_is_interrupted(tmp_path, monkeypatch):
    """A log may change the type of a column with any expression over its rows; the time for it is limited."""
    storage = make(tmp_path / "s", 4)
    alter(storage.layout.catalog, "INSERT INTO cat.items (item) SELECT range FROM range(3000)", checkpoint=True)
    slow = "list_sum(list_transform(range(20000 + item % 7), lambda x: x * x))::BIGINT"
    alter(storage.layout.catalog, f"ALTER TABLE cat.items ALTER item SET DATA TYPE BIGINT USING {slow}",
          checkpoint=False)  # fmt: skip
    monkeypatch.setattr(catalog_check, "REPLAY_SECONDS", 0.2)
    begin = time.monotonic()
    with pytest.raises(UnsafeStore, match="took more than"):
        Storage.open(tmp_path / "s")
    assert time.monotonic() - begin < 20


def test_confined_connections_reach_nothing(tmp_path):
    """No file, network, extension or Python variable, and no setting can be changed; the one allowed file opens."""
    (tmp_path / "secret.txt").write_text("secret")
    file = tmp_path / "a.duckdb"
    duckdb.connect(str(file)).close()
    variable = [1]  # noqa: F841 - must not be found
    con = connection.connect_confined([file, file.with_name("a.duckdb.wal")])
    for query in (
        f"FROM read_text('{tmp_path}/secret.txt')", f"FROM glob('{tmp_path}/*')",
        f"COPY (SELECT 1) TO '{tmp_path}/out'",
        f"ATTACH '{tmp_path}/b.duckdb' AS b", "INSTALL httpfs", "LOAD httpfs", "SET threads = 2", "FROM variable",
        "FROM 'https://localhost:1/x.parquet'", "CREATE PERSISTENT SECRET s (TYPE s3)",
    ):  # fmt: skip
        with pytest.raises(duckdb.Error):
            con.execute(query)
    con.execute(f"ATTACH '{file}' AS a (READ_ONLY)")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.duckdb", "secret.txt"]
