"""A reader that is written from docs/storage-format.md alone reads a store; it imports nothing of the package."""

import hashlib
import json
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
import xxhash

from tests.conftest import ROOT
from tests.helpers.vector_stores import SPACE, digest, make, vector


def read_vector_file(path: Path) -> tuple[dict[str, str], np.ndarray, np.ndarray]:
    """Return the metadata, vectors and contents of a vector file."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % 64 == 0
    tensors = {}
    for name, dtype in (("vectors", {"F16": np.float16, "F32": np.float32}), ("contents", {"U8": np.uint8})):
        begin, end = header[name]["data_offsets"]
        values = np.frombuffer(data[8 + length + begin : 8 + length + end], dtype[header[name]["dtype"]])
        tensors[name] = values.reshape(header[name]["shape"])
    return header["__metadata__"], tensors["vectors"], tensors["contents"]


def test_documented_vector_files_and_checksums(tmp_path):
    """Vectors, contents, block checksums and the checksum of a file are as documented."""
    make(tmp_path / "s", 600)
    path = tmp_path / "s" / "spaces" / SPACE.key / "shards" / "000000001.vec"
    entries, vectors, contents = read_vector_file(path)
    assert vectors.tolist() == [vector(n).tolist() for n in range(1, 601)]
    assert [c.tobytes().hex() for c in contents] == [digest(n) for n in range(1, 601)]
    rows = int(entries["block_rows"])
    assert rows == 256
    blocks = [
        xxhash.xxh3_64(vectors[i : i + rows].tobytes() + contents[i : i + rows].tobytes()).hexdigest()
        for i in range(0, 600, rows)
    ]
    assert entries["blocks"] == ",".join(blocks)
    checksum = entries.pop("checksum")
    text = json.dumps(entries, sort_keys=True).encode()
    assert checksum == xxhash.xxh3_128(text + vectors.tobytes() + contents.tobytes()).hexdigest()


def test_documented_catalog_leads_to_every_vector(tmp_path):
    """The tables give the file and row of every item's vector, and the facts of a space give its key."""
    make(tmp_path / "s", 20, 30)
    with duckdb.connect(tmp_path / "s" / "catalog.duckdb", read_only=True) as con:
        rows = con.execute(
            'SELECT i.uri, v.shard, v."row" FROM items i JOIN vectors v USING (content) WHERE v.space = ?', [SPACE.key]
        ).fetchall()
        facts = json.loads(con.execute("SELECT facts FROM spaces").fetchall()[0][0])
        generation = con.execute("SELECT generation FROM counters").fetchall()[0][0]
    files = {n: read_vector_file(tmp_path / "s" / "spaces" / SPACE.key / "shards" / f"{n:09d}.vec") for n in (1, 2)}
    assert {uri: files[shard][1][row].tolist() for uri, shard, row in rows} == {
        f"/i/{n}.jpg": vector(n).tolist() for n in range(1, 51)
    }
    named = {k: v for k, v in facts.items() if k not in ("origin", "licence", "text")}
    text = json.dumps(named, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == SPACE.key
    committed = (tmp_path / "s" / "COMMITTED").read_bytes()
    record = committed[4096 * (generation % 2) :][:24]
    assert record[:16] == b"EMBEDST1" + generation.to_bytes(8, "little")
    assert record[16:] == xxhash.xxh3_64(record[:16]).digest()


def documented_columns() -> dict[str, set[str]]:
    """Return the names of the columns of each table of the page; of `computed_columns` without the roles."""
    page = (ROOT / "docs" / "storage-format.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", page.split("## Tables")[1].split("## ")[0], re.MULTILINE)
    return {table: set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)|; .*", "", text))) for table, text in rows}


def catalog_columns(catalog: Path) -> dict[str, set[str]]:
    """Return the names of the columns of each table of a catalog."""
    with duckdb.connect(catalog, read_only=True) as con:
        rows = con.execute(
            "SELECT table_name, list(column_name) FROM duckdb_columns() WHERE NOT internal GROUP BY ALL"
        ).fetchall()
    return {table: set(names) for table, names in rows}


def test_documented_tables_and_columns_are_those_of_the_catalog(tmp_path):
    """A table or a column that a migration adds is documented with it."""
    make(tmp_path / "s", 20)
    assert documented_columns() == catalog_columns(tmp_path / "s" / "catalog.duckdb")


@pytest.mark.parametrize(("version", "missing"), [(1, {"content", "generation"}), (2, {"generation"}), (3, set())])
def test_documented_gaps_of_older_stores_are_those_of_the_golden_ones(version, missing):
    """Without a migration a store lacks what the page says, and nothing else."""
    golden = ROOT / "tests" / "golden" / f"v{version}"
    columns = catalog_columns(golden / "catalog.duckdb")
    documented = documented_columns()
    assert set(documented) - set(columns) == {"computed_columns"}
    lacks = {c for table in columns for c in documented[table] - columns[table]}
    assert lacks == missing
    assert (golden / "COMMITTED").exists() or "generation" in missing


def test_documented_counter_has_the_number_of_commits(tmp_path):
    """Two records with checksums; the larger valid count is the generation of the catalog."""
    make(tmp_path / "s", 20, 30)
    data = (tmp_path / "s" / "COMMITTED").read_bytes()
    assert len(data) == 8192
    records = [data[at : at + 24] for at in (0, 4096)]
    valid = [r for r in records if r[:8] == b"EMBEDST1" and r[16:] == xxhash.xxh3_64(r[:16]).digest()]
    with duckdb.connect(tmp_path / "s" / "catalog.duckdb", read_only=True) as con:
        (generation,) = con.execute("SELECT generation FROM counters").fetchall()[0]
    assert max(int.from_bytes(r[8:16], "little") for r in valid) == generation
