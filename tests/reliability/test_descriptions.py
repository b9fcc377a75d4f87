"""The descriptions of a store and of its spaces: what changed in them is found, and a space's is written again."""

import errno
import json
import os
import shutil
import time
from contextlib import suppress

import duckdb
import numpy as np
import pytest

import embedstore as es
from embedstore.errors import EmbedstoreError
from tests.conftest import ROOT
from tests.helpers.clusters import clusters, store_of

FLIPS = 60  # of one bit, spread over a file


@pytest.fixture
def store(tmp_path):
    """The folder of a store with one space, which had another name before."""
    made = store_of(tmp_path / "s", np.eye(5, dtype=np.float32), space="old name")
    made.rename_space("old name", "new name")
    made.close()
    return tmp_path / "s"


def description(store, name):
    """The path of a description."""
    return store / name if name == "embedstore.json" else next((store / "spaces").glob(f"*/{name}"))


def is_whole(store):
    """Whether the store opens and verifies without damage."""
    try:
        with es.open(store) as opened:
            return opened.verify().ok
    except EmbedstoreError:
        return False


@pytest.mark.parametrize("name", ["embedstore.json", "space.json"])
def test_every_changed_bit_of_a_description_is_found(store, name):
    """Names, values and the checksum itself."""
    path = description(store, name)
    data = path.read_bytes()
    for n, position in enumerate(np.linspace(0, len(data) - 1, FLIPS).astype(int).tolist()):
        changed = bytearray(data)
        changed[position] ^= 1 << n % 8
        path.write_bytes(changed)
        assert not is_whole(store), (position, data[position : position + 1])
    path.write_bytes(data)
    assert is_whole(store)


@pytest.mark.parametrize("change", ["a bit", "a value with its checksum removed", "no file", "an empty file"])
def test_repair_writes_the_description_of_a_space_again(store, change):
    """The catalog has all of it; the second repair has nothing to do."""
    path = description(store, "space.json")
    data = path.read_bytes()
    facts = json.loads(data) | {"dtype": "float16"}
    del facts["description_xxh3"]
    changed = {"a bit": data[:40] + b"~" + data[41:], "an empty file": b""}
    if change == "no file":
        path.unlink()
    else:
        path.write_bytes(changed.get(change, json.dumps(facts).encode()))
    assert not is_whole(store)
    with es.open(store) as opened:
        (action,) = opened.repair().actions
        assert "space.json" in action
        assert opened.repair().actions == []
    assert path.read_bytes() == data
    assert is_whole(store)


def test_repair_keeps_what_the_marker_says(store):
    """The id is what it reads as now, and the action says that it may have been another."""
    path = description(store, "embedstore.json")
    marker = json.loads(path.read_text())
    path.write_text(json.dumps(marker | {"created": "2026-01-01"}))
    with es.open(store) as opened:
        (action,) = opened.repair().actions
    assert "the store's id may have changed" in action
    assert json.loads(path.read_text())["id"] == marker["id"]
    assert is_whole(store)


def test_descriptions_of_earlier_versions_have_no_checksum_and_are_whole(store):
    """Without their checksums the files are those that earlier versions wrote."""
    for name in ("embedstore.json", "space.json"):
        path = description(store, name)
        facts = json.loads(path.read_text())
        del facts["description_xxh3"]
        path.write_text(json.dumps(facts))
    assert is_whole(store)


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v4"])
def test_stores_of_earlier_formats_are_whole(tmp_path, version):
    """The first format had no description of a space, which `repair` writes."""
    shutil.copytree(ROOT / "tests" / "golden" / version, tmp_path / "s")
    with es.open(tmp_path / "s") as store:
        assert store.verify().damage == []
        store.repair()
        assert store.verify().damage == []
    assert description(tmp_path / "s", "space.json").exists()


def test_a_lost_catalog_is_rebuilt_with_the_name_of_now(store):
    """A rename reaches the description."""
    (store / "catalog.duckdb").write_bytes(b"")
    for extra in store.glob("catalog.duckdb.*"):
        extra.unlink()
    es.repair_store(store)
    with es.open(store) as opened:
        assert [s.name for s in opened.spaces] == ["new name"]


@pytest.mark.parametrize("place", ["quarantine", "heads"])
def test_a_description_of_a_head_of_a_terabyte_is_not_read(tmp_path, place):
    """A file with a hole takes no room on the disk, and hours to read."""
    X, y = clusters(40)
    made = store_of(tmp_path / "t", X, label=y)
    made.probe("label", head="ridge", save_as="line")
    made.close()
    head = tmp_path / "t" / "heads" / "line"
    folder = tmp_path / "t" / "quarantine" / "heads-line"
    shutil.copytree(head, folder)
    if place == "quarantine":
        shutil.rmtree(head)
    os.truncate(folder / "head.json" if place == "quarantine" else head / "head.json", 1 << 40)
    started = time.perf_counter()
    repaired = es.repair_store(tmp_path / "t")
    assert time.perf_counter() - started < 60
    taken_back = [action for action in repaired.actions if "taken back" in action]
    assert len(taken_back) == (place == "heads")


@pytest.mark.parametrize("change", ["facts = '0'", "facts = NULL", "recipe = '[1]'", "dtype = 'int8'", "name = NULL"])
def test_a_damaged_catalog_is_not_written_into_a_description(store, change):
    """The description keeps what it says, whatever `repair` makes of the catalog."""
    with duckdb.connect(str(store / "catalog.duckdb")) as con:
        con.execute(f"UPDATE spaces SET {change}")
    data = description(store, "space.json").read_bytes()
    with suppress(EmbedstoreError):
        es.repair_store(store)
    assert description(store, "space.json").read_bytes() == data


def test_a_description_that_cannot_be_written_fails_no_change(store, monkeypatch):
    """The catalog has the new name already; `repair` brings the description up to date."""
    path = description(store, "space.json")
    before = path.read_bytes()

    def refuse(target, data):
        raise OSError(errno.EIO, "refused", str(target))

    with es.open(store) as opened, monkeypatch.context() as patch:
        patch.setattr("embedstore.storage.space_files.durable_files.write_synced", refuse)
        opened.rename_space("new name", "newest")
    assert path.read_bytes() == before
    assert is_whole(store)
    with es.open(store) as opened:
        assert [s.name for s in opened.spaces] == ["newest"]
        opened.repair()
    assert json.loads(path.read_text())["name"] == "newest"
