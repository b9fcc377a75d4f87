"""A flipped bit in any file of a store is detected or has no effect; no answer is wrong."""

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
    """Create a store with an index, a head and the files of a checkpoint."""
    path = tmp_path_factory.mktemp("furnished") / "s"
    storage = make(path, 150, 150)
    build.build_index(storage, storage.space(), build.IndexTarget(recall=1.0, kind="flat"))
    head = NearestPrototype().fit(X, np.array([f"c{n % 3}" for n in range(1, 301)]))
    registry.save_head(storage, storage.space(), "kind", head, label="label", kind="prototype", metadata={})
    write_checkpoint(path)
    return path


def write_checkpoint(path: Path) -> None:
    """Write the files of a checkpoint as fine-tuning does."""
    folder = path / "checkpoints" / "0123456789abcdef"
    folder.mkdir(parents=True)
    data = np.random.default_rng(0).bytes(4000)
    (folder / "model.safetensors").write_bytes(data)
    facts = {"file": "model.safetensors", "bytes": 4000, "xxh3": xxhash.xxh3_128_hexdigest(data)}
    (folder / "checkpoint.json").write_bytes(dump_manifest({"files": [facts], "classes": ["ant", "bee"]}))


def all_results(path: Path) -> list[object]:
    """Return all that a user can read: rows, nearest items with and without the index, predictions, spaces."""
    storage = Storage.open(path)
    space = storage.space()
    found = [rows(storage)]
    for exact in (False, True):
        hits = Searcher(storage).search(space, vector(7), SearchOptions(k=9, exact=exact)).hits
        found.append([(h.score, h.item, h.label) for h in hits])
    found.append(registry.load_head(storage, "kind")[1].predict_proba(X).tolist())
    found.append([(s.name, s.space.to_json()) for s in storage.spaces()])
    return found


def results_or_refusal(path: Path) -> list[object]:
    """Return all results, or [] where the store refuses."""
    try:
        return all_results(path)
    except EmbedstoreError:
        return []


def flip_each_file(furnished: Path, tmp_path: Path, count: int) -> dict[str, int]:
    """Flip single bits of every file; return by file how many ``verify`` named."""
    right = all_results(furnished)
    assert right[0] == expected(300)
    found: dict[str, int] = {}
    names = sorted(p.relative_to(furnished) for p in furnished.rglob("*") if p.is_file() and p.stat().st_size)
    for name in names:
        for seed in range(count if name.name != "catalog.duckdb" else 1):  # test_damage.py tests the catalog
            path = tmp_path / "s"
            shutil.copytree(furnished, path)
            flip(path / name, np.random.default_rng(seed))
            got = results_or_refusal(path)
            assert got in (right, []), f"{name}, seed {seed}: a wrong result"
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


def check_detection(found: dict[str, int], count: int) -> None:
    """Check that every flip is detected in files with a checksum of the whole; the padding of a header has none."""
    for name, n in found.items():
        if name.endswith((".faiss", ".safetensors", "head.json", "checkpoint.json")):
            assert n == count, (name, n)
        if name.endswith(".vec"):
            assert n >= 0.9 * count, (name, n)


def test_flipped_bit_in_any_file_is_detected_or_has_no_effect(furnished, tmp_path):
    """One bit of each file is detected, or every result is unchanged."""
    found = flip_each_file(furnished, tmp_path, 1)
    assert {Path(n).suffix for n in found} >= {".vec", ".faiss", ".json", ".safetensors", ".duckdb"}
    check_detection(found, 1)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_forty_flipped_bits_in_any_file_are_detected_or_have_no_effect(furnished, tmp_path):
    """Each of forty bits of each file is detected, or every result is unchanged."""
    check_detection(flip_each_file(furnished, tmp_path, 40), 40)


def checkpoint_results(store: es.Store, key: str) -> list[object]:
    """Return all that is read from a checkpoint: its classes, its head, and the results of its network."""
    from embedstore.finetuning import checkpoint

    folder = store.path / "checkpoints" / key
    note = checkpoint.read_manifest(folder)
    weight, bias = checkpoint.read_head(folder)
    vector = store.search(image=picture(1, (40, 32)), k=3, space=key, exact=True)
    return [note["classes"], weight.tolist(), bias.tolist(), [(h.item, h.score) for h in vector]]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_flipped_bits_of_a_real_checkpoint_are_detected(tmp_path_factory, tmp_path):
    """Each of 25 bits of every file that fine-tuning wrote is named, and the damaged file is not used."""
    made = tmp_path_factory.mktemp("tuned")
    tuned = store_of(made / "s", textures(made / "photos", per_class=10)).finetune("label", **QUICK)
    right = checkpoint_results(es.open(made / "s"), tuned.key)
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
            if seed < 3:  # loading the network is slow
                try:
                    assert checkpoint_results(es.open(path), tuned.key) == right, (name, seed)
                except EmbedstoreError as e:
                    assert "\n" not in str(e)  # noqa: PT017 - either is right
            shutil.rmtree(path)
