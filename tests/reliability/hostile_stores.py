"""Stores that somebody changed on purpose, and what embedstore does with them. Run as a program: FOLDER FIRST COUNT.

A seed decides everything. A store is changed in one to three ways (bytes, links, objects and values of the catalog,
JSON with checksums that fit) and used by a few verbs. A line per seed says what was wrong: an error that is none of
ours, or an effect outside of the store. A verb that does not end, and a crash, end the program.
"""

import faulthandler
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np

import embedstore as es
from embedstore.classify import registry
from embedstore.classify.heads import head_files
from embedstore.classify.heads.prototype import NearestPrototype
from embedstore.search.index import build
from embedstore.storage.catalog_check import files_of
from embedstore.storage.durable_files import file_xxh3
from tests.helpers.index_descriptions import change_description
from tests.helpers.vector_stores import batch, make, vector

ITEMS = 24
SECONDS_PER_STORE = 90.0
Random = random.Random
VALUES = [
    "NULL", "''", "-1", "0", "1e300", "9223372036854775807", "'../../../x'", "'/etc/passwd'", "'{}'", "'[]'", "'null'",
    "'{\"digest\": 1}'", "'\x1b[2J'", "'a'", "now()", "true",
]  # fmt: skip
JSON_VALUES = [
    None, True, -1, 0, 1 << 70, 1e300, "", "../../../x", "/etc/passwd", "x\0y", [], {}, [[1, 2]], {"a": {"b": 1}},
    "a" * 10_000, 3,
]  # fmt: skip
FUNCTIONS = "coalesce count max sum starts_with list_contains lower md5 unnest row_number read_parquet hash".split()
NAMES = "rows items vectors codes wanted selected processed flat scan todo known labels main cat".split()


def create_original(path: Path) -> None:
    """A store with two commits, a column of its own, a head, predictions, an index, and a log."""
    storage = make(path, ITEMS // 2)
    X = np.array([vector(n) for n in range(1, ITEMS + 1)], np.float32)
    head = NearestPrototype().fit(X, np.array(["a", "b", "c"] * (ITEMS // 3)))
    registry.save_head(storage, storage.space(), "kind", head, label="label", kind="prototype", metadata={})
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    with storage.writer("test") as writer:
        writer.add_columns({"year": "BIGINT"})
    with storage._recovered_writer("test", wait=0.0) as writer:  # without a checkpoint at its end: the log stays
        writer.commit(batch(ITEMS // 2 + 1, ITEMS // 2), space=storage.space())


def is_small_file(path: Path) -> bool:
    """Whether an earlier change left a regular file that can be read whole."""
    return not path.is_symlink() and path.is_file() and 16 <= path.stat().st_size < 1 << 24


def change_bytes(r: Random, store: Path) -> str:
    """Overwrite, cut or lengthen a file."""
    path = r.choice(sorted(p for p in store.rglob("*") if is_small_file(p)))
    data = bytearray(path.read_bytes())
    kind = r.choice(["flip", "overwrite", "cut", "append", "empty", "huge"])
    if kind == "flip" and data:
        data[r.randrange(len(data))] ^= 1 << r.randrange(8)
    elif kind == "overwrite" and data:
        at = r.randrange(len(data))
        data[at : at + 64] = r.randbytes(len(data[at : at + 64]))
    elif kind == "cut":
        del data[r.randrange(len(data) + 1) :]
    elif kind == "append":
        data += r.randbytes(100)
    elif kind == "empty":
        data.clear()
    path.write_bytes(data)
    if kind == "huge":
        os.truncate(path, 1 << 38)
    return f"{kind} {path.relative_to(store)}"


def change_entry(r: Random, store: Path) -> str:
    """Put a link, a named pipe or a second name of a file of somebody in the place of an entry."""
    known = sorted(p for p in store.rglob("*"))
    invented = [store / n for n in ("COMMITTED.new", "catalog.duckdb.wal.recovery", "checkpoint.guard", "quarantine",
                                    "checkpoints", "heads/.kind.previous", "checkpoint.guard/COMPLETE")]  # fmt: skip
    path = r.choice([*known, *invented])
    outside = store.parent / "outside"
    target = r.choice(
        [outside, outside / "mine.txt", outside / "missing", Path("/dev/zero"), store / "LOCK", Path("..")]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind = r.choice(["link", "link", "pipe", "hard link"])
    if kind == "link":
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        os.link(outside / r.choice(["mine.txt", "empty", "catalog.duckdb"]), path)
    return f"{kind} {path.relative_to(store)} -> {target}"


def change_catalog(r: Random, store: Path) -> str:
    """Add an object to the catalog, or change its values, in the file or in its log."""
    statement = r.choice([foreign_object, changed_value, changed_value, changed_table])(r)
    checkpoint = r.random() < 0.5
    if not can_attach(store / "catalog.duckdb"):
        return "no catalog any more"
    with duckdb.connect() as con:
        con.execute("SET checkpoint_on_detach = 'DISABLED'; SET wal_autocheckpoint = '1TB'")
        try:
            con.execute(f"ATTACH '{store / 'catalog.duckdb'}' AS cat")
            con.execute(statement)
            if checkpoint:
                con.execute("CHECKPOINT cat")
        except duckdb.Error:
            statement += " (failed)"
    return f"{statement} {'in the file' if checkpoint else 'in the log'}"


def can_attach(file: Path) -> bool:
    """Whether an earlier change left a catalog and logs that DuckDB can open without waiting."""
    return all(is_small_file(path) or not os.path.lexists(path) for path in files_of(file))


def foreign_object(r: Random) -> str:
    """A statement that creates something which is none of ours."""
    name, function = r.choice(NAMES), r.choice(FUNCTIONS)
    return r.choice([
        f"CREATE MACRO cat.{function}(a) AS true",
        f"CREATE MACRO cat.{function}(a, b) AS (SELECT content FROM read_text('/etc/hostname'))",
        f"CREATE MACRO cat.{function}(a) AS TABLE SELECT * FROM range(10000000000)",
        f"CREATE OR REPLACE VIEW cat.{name}2 AS SELECT * FROM range(10000000000)",
        f"CREATE TABLE IF NOT EXISTS cat.{name} (uri VARCHAR, item BIGINT)",
        "DROP TABLE cat.failures; CREATE VIEW cat.failures AS SELECT * FROM read_text('/etc/hostname')",
        f"ALTER TABLE cat.items ADD COLUMN {name} DOUBLE DEFAULT random()",
        f"CREATE SCHEMA cat.{name}",
        f"CREATE SEQUENCE cat.{name}",
        f"CREATE TYPE cat.{name} AS ENUM ('a')",
        "CREATE UNIQUE INDEX i ON cat.items (uri)",
    ])  # fmt: skip


COLUMNS = {
    "items": "item uri content label split group_id size mtime_ns present added path year".split(),
    "contents": "content bytes width height format".split(),
    "spaces": "space name current dim dtype recipe facts created".split(),
    "vectors": "space content shard row".split(),
    "shards": "space shard rows bytes checksum written".split(),
    "heads": "head space label kind facts created".split(),
    "runs": "run verb space settings result started seconds".split(),
    "counters": "next_item next_shard next_run generation".split(),
    "schema": "migration name applied".split(),
}


def changed_value(r: Random) -> str:
    """A statement that changes values of a table."""
    table = r.choice(sorted(COLUMNS))
    where = r.choice(["", f" WHERE rowid = {r.randrange(4)}", " WHERE rowid % 2 = 0"])
    return f'UPDATE cat."{table}" SET "{r.choice(COLUMNS[table])}" = {r.choice(VALUES)}{where}'


def changed_table(r: Random) -> str:
    """A statement that removes or repeats rows, or changes the columns of a table."""
    table = r.choice(sorted(COLUMNS))
    column = r.choice(COLUMNS[table])
    return r.choice([
        f'DELETE FROM cat."{table}"', f'INSERT INTO cat."{table}" FROM cat."{table}"', f'DROP TABLE cat."{table}"',
        f'DELETE FROM cat."{table}" WHERE rowid % 2 = 0', f'ALTER TABLE cat."{table}" DROP "{column}"',
        f'ALTER TABLE cat."{table}" ALTER "{column}" SET DATA TYPE VARCHAR',
        f'ALTER TABLE cat."{table}" RENAME TO other',
    ])  # fmt: skip


def change_json(r: Random, store: Path) -> str:
    """Change a value in a JSON file, and the checksums that cover it."""
    paths = sorted(p for p in store.rglob("*.json") if is_small_file(p))
    if not paths:
        return "no JSON"
    path = r.choice(paths)
    try:
        facts = json.loads(path.read_bytes())
        key = r.choice(sorted(facts))
    except (ValueError, TypeError, IndexError, OSError):
        return "no JSON any more"
    value = r.choice(JSON_VALUES)
    if r.random() < 0.1:
        path.write_bytes(r.choice([b"[" * 100_000, b'{"a":' * 100_000, b"null", b"[]", b"{}", b"\xff\xfe", b"1e999"]))
        return f"other JSON in {path.relative_to(store)}"
    nested = facts[key]
    if isinstance(nested, dict) and nested and r.random() < 0.7:
        nested[r.choice(sorted(nested))] = value
    elif isinstance(nested, list) and nested and r.random() < 0.7:
        nested[r.randrange(len(nested))] = value
    else:
        facts[key] = value
    seal(path, facts)
    return f"{path.relative_to(store)}: {key} = {value!r:.40}"


def seal(path: Path, facts: dict) -> None:
    """Write JSON with the checksums that its maker can compute."""
    if path.name == "head.json":
        facts.pop("digest", None)
        path.write_bytes(head_files.seal_description(facts))
        digest = head_files.file_digest(path.parent)
        if not can_attach(path.parents[2] / "catalog.duckdb"):
            return
        with duckdb.connect() as con:
            con.execute("SET checkpoint_on_detach = 'DISABLED'")
            try:
                con.execute(f"ATTACH '{path.parents[2] / 'catalog.duckdb'}' AS cat")
                con.execute(f"UPDATE cat.heads SET facts = json_object('digest', '{digest}')")
            except duckdb.Error:
                return
    else:
        path.write_text(json.dumps(facts))


def change_index(r: Random, store: Path) -> str:
    """Change an index file, with a sidecar that fits."""
    for sidecar in store.glob("spaces/*/index/*.json"):
        if not is_small_file(sidecar) or not is_small_file(sidecar.with_suffix(".faiss")):
            return "no index any more"
        try:
            dict(json.loads(sidecar.read_bytes()))
        except (ValueError, TypeError, OSError):
            return "no sidecar any more"
        file = sidecar.with_suffix(".faiss")
        data = bytearray(file.read_bytes())
        at = r.randrange(min(len(data), 200) - 8)
        data[at : at + 8] = r.choice([0, 1, 1 << 31, (1 << 64) - 1, 1 << 40]).to_bytes(8, "little")
        file.write_bytes(data)
        change_description(sidecar, bytes=len(data), xxh3=file_xxh3(file))
        return f"index at {at}"
    return "no index"


CHANGES: list[Callable[[Random, Path], str]] = [
    change_bytes, change_entry, change_catalog, change_catalog, change_json, change_json, change_index
]  # fmt: skip


def change(r: Random, store: Path) -> str:
    """Change a store in one way, unless an earlier change made that impossible."""
    try:
        return r.choice(CHANGES)(r, store)
    except (OSError, ValueError, TypeError, RecursionError) as e:
        return f"nothing ({type(e).__name__})"


def use(verb: str, store: Path, out: Path) -> None:
    """Use a store as one verb does."""
    match verb:
        case "untrusted":
            es.verify_untrusted(store).to_json()
        case "repair":
            es.repair_store(store, reembed=False).to_json()
        case "restore":
            es.restore(store, out / "restored")
        case _:
            use_open_store(verb, es.open(store), out)


def use_open_store(verb: str, store: es.Store, out: Path) -> None:
    """Use a store that was opened."""
    match verb:
        case "info":
            store.info().to_json()
            [s.to_json() for s in store.spaces]
            [h.to_json() for h in store.heads]
        case "search":
            store.search(vector(3).tolist(), k=5).to_json()
            store.search(vector(3).tolist(), k=5, where="label = 'c1'").to_json()
        case "sql":
            store.sql("SELECT count(*), max(uri) FROM items").to_json()
            store.sql("SELECT * FROM runs").to_json()
        case "verify":
            store.verify().to_json()
        case "predict":
            store.predict("kind").to_json()
        case "probe":
            store.probe("label").to_json()
        case "duplicates":
            store.duplicates().to_json()
        case "delete":
            store.delete(items=[1]).to_json()
        case "compact":
            store.compact().to_json()
        case "backup":
            store.backup(out / "backup")
        case "export":
            store.export_store(out / "export")
            es.import_store(out / "imported", out / "export")
        case "export items":
            store.export(out / "items.parquet")
        case "index":
            store.build_index(kind="flat", recall=1.0)
        case "drop head":
            store.delete_head("kind")


VERBS = ["info", "search", "sql", "verify", "predict", "probe", "duplicates", "delete", "compact", "backup", "export",
         "export items", "index", "drop head", "repair", "restore", "untrusted"]  # fmt: skip


def snapshot(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    """Mode, size, time and content of everything in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        s = path.lstat()
        found[str(path.relative_to(folder))] = (
            s.st_mode, s.st_size if path.is_file() else 0, s.st_mtime_ns, path.read_bytes() if path.is_file() else b""
        )  # fmt: skip
    return found


def run_seed(seed: int, folder: Path) -> dict:
    """Change a copy of the original by a seed, use it, and return what was wrong."""
    r, work = Random(seed), folder / f"{seed}"
    store, outside, out = work / "s", work / "outside", work / "out"
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder / "original", store)
    outside.mkdir()
    out.mkdir()
    for name in ("mine.txt", "empty"):
        (outside / name).write_text("mine" if name == "mine.txt" else "")
    shutil.copyfile(folder / "original" / "catalog.duckdb", outside / "catalog.duckdb")
    changes = [change(r, store) for _ in range(r.choice([1, 1, 1, 2, 3]))]
    verbs = ["info", *r.sample(VERBS, 4)]
    before, wrong, refused = snapshot(outside), [], 0
    for verb in verbs:
        try:
            use(verb, store, out)
        except es.EmbedstoreError as e:
            refused += 1
            if "\n" in str(e):
                wrong.append(f"{verb}: {e!s:.200} has more than one line")
        except Exception:
            wrong.append(f"{verb}: {traceback.format_exc()}")
        shutil.rmtree(out)
        out.mkdir()
    if snapshot(outside) != before:
        wrong.append("a file outside of the store was changed")
    if extra := {p.name for p in work.iterdir()} - {"s", "outside", "out"}:
        wrong.append(f"files were made outside of the store: {extra}")
    shutil.rmtree(work, ignore_errors=True)
    return {"seed": seed, "changes": changes, "verbs": verbs, "refused": refused, "wrong": wrong}


def main() -> None:
    """Run seeds, one line of JSON each."""
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if not (folder / "original").exists():
        create_original(folder / "original")
    for seed in range(first, first + count):
        print(json.dumps({"begin": seed}), flush=True)
        faulthandler.dump_traceback_later(SECONDS_PER_STORE, exit=True)
        print(json.dumps(run_seed(seed, folder)), flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
