"""One bit of any file of a store: found, or without effect; never a wrong answer."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import xxhash

import embedstore as es
from embedstore.classify import registry
from embedstore.classify.heads.prototype import NearestPrototype
from embedstore.errors import EmbedstoreError
from embedstore.finetuning.checkpoint_manifest import dump_manifest
from embedstore.search.execute import Searcher
from embedstore.search.index import build
from embedstore.search.options import SearchOptions
from embedstore.storage.storage import Storage
from tests.conftest import picture
from tests.helpers.finetune_store import QUICK, store_of, textures
from tests.helpers.vector_stores import expected, make, rows, vector
from tests.reliability.test_damage import flip

X = np.array([vector(n) for n in range(1, 301)], np.float32)


@pytest.fixture(scope="module")
def furnished(tmp_path_factory):
    """A store with an index, a head and a checkpoint's files."""
    path = tmp_path_factory.mktemp("furnished") / "s"
    storage = make(path, 150, 150)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    head = NearestPrototype().fit(X, np.array([f"c{n % 3}" for n in range(1, 301)]))
    registry.save_head(storage, storage.space(), "kind", head, label="label", kind="prototype", metadata={})
    checkpoint(path)
    return path


def checkpoint(path: Path) -> None:
    """The files of a tuned network, noted as fine-tuning notes them."""
    folder = path / "checkpoints" / "0123456789abcdef"
    folder.mkdir(parents=True)
    data = np.random.default_rng(0).bytes(4000)
    (folder / "model.safetensors").write_bytes(data)
    facts = {"file": "model.safetensors", "bytes": 4000, "xxh3": xxhash.xxh3_128_hexdigest(data)}
    (folder / "checkpoint.json").write_bytes(dump_manifest({"files": [facts], "classes": ["ant", "bee"]}))


def answers(path: Path) -> list[object]:
    """Everything a user can ask of it: rows, the nearest by the index and exactly, what the head says."""
    storage = Storage.open(path)
    space = storage.space()
    found = [rows(storage)]
    for exact in (False, True):
        hits = Searcher(storage).search(space, vector(7), SearchOptions(k=9, exact=exact)).hits
        found.append([(h.score, h.item, h.label) for h in hits])
    found.append(registry.load_head(storage, "kind")[1].predict_proba(X).tolist())
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
        if name.endswith((".faiss", ".safetensors", "head.json", "checkpoint.json")):
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


def read(store: es.Store, key: str) -> list[object]:
    """What fine-tuning made, as it is used: the network's answers, its own classifier, and what the classes are."""
    from embedstore.finetuning import checkpoint

    folder = store.path / "checkpoints" / key
    note = checkpoint.read_manifest(folder)
    weight, bias = checkpoint.read_head(folder)
    vector = store.search(image=picture(1, (40, 32)), k=3, space=key, exact=True)
    return [note["classes"], weight.tolist(), bias.tolist(), [(h.item, h.score) for h in vector]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_bits_of_a_real_checkpoint(tmp_path_factory, tmp_path):
    """Twenty-five of each file that fine-tuning wrote: each is found, and nothing of it is used."""
    made = tmp_path_factory.mktemp("tuned")
    tuned = store_of(made / "s", textures(made / "photos", per_class=10)).finetune("label", **QUICK)
    right = read(es.open(made / "s"), tuned.key)
    names = sorted(p.name for p in (made / "s" / "checkpoints" / tuned.key).iterdir())
    assert {"checkpoint.json", "head.safetensors", "weights.safetensors"} <= set(names)
    noted = {f["file"] for f in json.loads((tuned.checkpoint_folder / "checkpoint.json").read_text())["files"]}
    for name in sorted(noted | {"checkpoint.json"}):
        for seed in range(25):
            path = tmp_path / "s"
            shutil.copytree(made / "s", path)
            flip(path / "checkpoints" / tuned.key / name, np.random.default_rng(seed))
            damage = es.open(path).verify().damage
            assert [d for d in damage if name in d.file], (name, seed, damage)
            if seed < 3:  # loading the network takes its time
                try:
                    assert read(es.open(path), tuned.key) == right, (name, seed)
                except EmbedstoreError as e:
                    assert "\n" not in str(e)  # noqa: PT017 - either is right
            shutil.rmtree(path)
