"""One bit of any file of a store: found, or without effect; never a wrong answer."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
from embedstore import indexing, keeping
from embedstore.errors import EmbedstoreError
from embedstore.heads.prototype import NearestPrototype
from embedstore.search import Ask, answer
from embedstore.store.storage import Storage
from tests.reliability.test_damage import flip
from tests.stores import expected, make, rows, vector

X = np.array([vector(n) for n in range(1, 301)], np.float32)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A store with an index, a head and a checkpoint's files."""
    path = tmp_path_factory.mktemp("furnished") / "s"
    storage = make(path, 150, 150)
    indexing.build(storage, storage.space(), recall=1.0, kind="flat")
    head = NearestPrototype().fit(X, np.array([f"c{n % 3}" for n in range(1, 301)]))
    keeping.keep(storage, storage.space(), "kind", head, label="label", kind="prototype", facts={})
    checkpoint(path)
    return path


def checkpoint(path: Path) -> None:
    """The files of a tuned network, noted as fine-tuning notes them."""
    import json

    from embedstore.archive.note import digest

    folder = path / "checkpoints" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(np.random.default_rng(0).bytes(4000))
    facts = {"file": "model.safetensors", "bytes": 4000, "xxh3": digest(folder / "model.safetensors")}
    (folder / "checkpoint.json").write_text(json.dumps({"files": [facts]}))


def answers(path: Path) -> list[object]:
    """Everything a user can ask of it: rows, the nearest by the index and exactly, what the head says."""
    storage = Storage.open(path)
    space = storage.space()
    found = [rows(storage)]
    for exact in (False, True):
        hits = answer(storage, space, vector(7), Ask(k=9, exact=exact)).hits
        found.append([(h.score, h.item, h.label) for h in hits])
    found.append(keeping.load(storage, "kind")[1].predict_proba(X).tolist())
    found.append([(s.name, s.space.to_json()) for s in storage.spaces()])
    return found


def asked(path: Path) -> list[object]:
    """Each answer, or None where it is refused."""
    try:
        return answers(path)
    except EmbedstoreError:
        return []


def flipped(furnished: Path, tmp_path: Path, count: int) -> dict[str, int]:
    """Flip bits of every file, one at a time; by file, how many ``verify`` named."""
    right = answers(furnished)
    assert right[0] == expected(300)
    found: dict[str, int] = {}
    names = sorted(p.relative_to(furnished) for p in furnished.rglob("*") if p.is_file() and p.stat().st_size)
    for name in names:
        for seed in range(count if name.name != "catalog.duckdb" else 1):  # the catalog has a test of its own
            path = tmp_path / "s"
            shutil.copytree(furnished, path)
            flip(path / name, np.random.default_rng(seed))
            got = asked(path)
            assert got in (right, []), f"{name}, seed {seed}: a wrong answer"
            try:
                report = es.open(path).verify()
                named = [d for d in report.damage if str(name) in str(d) or name.parent.name in str(d)]
                assert not report.damage or named, (name, seed, report.damage)
                noticed = bool(named)
            except EmbedstoreError:
                noticed = True
            assert noticed or got == right, f"{name}, seed {seed}: refused, and verify does not say why"
            found[str(name)] = found.get(str(name), 0) + noticed
            shutil.rmtree(path)
    return found


def all_found(found: dict[str, int], count: int) -> None:
    """Of files with a checksum over all of them every flip is found; padding in a header is nobody's."""
    for name, n in found.items():
        if name.endswith((".faiss", ".safetensors", "head.json")):
            assert n == count, (name, n)
        if name.endswith(".vec"):
            assert n >= 0.9 * count, (name, n)


def test_a_bit_of_any_file(furnished, tmp_path):
    """One of each file: vectors, index, head, checkpoint, sidecars, notes."""
    found = flipped(furnished, tmp_path, 1)
    assert {Path(n).suffix for n in found} >= {".vec", ".faiss", ".json", ".safetensors", ".duckdb"}
    all_found(found, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_bits_of_any_file(furnished, tmp_path):
    """Forty of each file."""
    all_found(flipped(furnished, tmp_path, 40), 40)
