"""A reader that is written from docs/storage-format.md alone reads a store; it imports nothing of the package."""

import hashlib
import json
from pathlib import Path

import duckdb
import numpy as np
import xxhash

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
