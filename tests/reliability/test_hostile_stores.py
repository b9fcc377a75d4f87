"""A store from somebody else: nothing outside of it is touched, every refusal is one line, and nothing hangs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import embedstore as es
from embedstore.classify.heads.head_files import file_digest, seal_description
from embedstore.cli import main
from embedstore.finetuning.checkpoint_manifest import dump_manifest
from embedstore.storage import connection
from tests.conftest import ROOT
from tests.helpers.index_descriptions import change_description
from tests.helpers.vector_stores import SPACE, make
from tests.reliability.hostile_stores import create_original
from tests.storage.test_catalog_check import FOREIGN, alter

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need a privilege, and there are no named pipes")


def run_seeds(folder: Path, first: int, count: int) -> list[dict]:
    """Run the program that changes stores; check that it ended by itself and left nothing in the home folder."""
    home = folder / f"home-{first}"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability.hostile_stores", str(folder), str(first), str(count)],
        check=False, capture_output=True, text=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert done.returncode == 0, (lines[-1], done.stderr[-3000:])
    return [line for line in lines if "wrong" in line]


def check_seeds(folder: Path, first: int, count: int) -> None:
    """Assert that no store had an effect, and that the changes were of consequence."""
    create_original(folder / "original")
    reports = run_seeds(folder, first, count)
    assert len(reports) == count
    assert [(r["seed"], r["changes"], r["wrong"]) for r in reports if r["wrong"]] == []
    assert sum(r["refused"] > 0 for r in reports) > count / 3


@pytest.mark.timeout(900)
def test_changed_stores_have_no_effect(tmp_path):
    """Bytes, links, objects and values of the catalog, JSON and indexes, changed at random with a fixed seed."""
    check_seeds(tmp_path, 0, 50)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_2000_changed_stores_have_no_effect(tmp_path):
    """The long form."""
    check_seeds(tmp_path, 0, 2000)


def findings(path: Path) -> str:
    return "\n".join(map(str, es.verify_untrusted(path).findings))


def test_an_ordinary_store_has_nothing_to_report(tmp_path, capsys):
    """A store with a head, an index, a log and an own column is data only; so are those of older versions."""
    create_original(tmp_path / "s")
    assert findings(tmp_path / "s") == ""
    for version in ("v1", "v2", "v3"):
        assert findings(ROOT / "tests" / "golden" / version) == ""
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "s"), "--untrusted"])
    assert ended.value.code == 0
    assert "nothing but data" in capsys.readouterr().out


def test_what_a_store_would_have_tried_is_listed_and_nothing_is_changed(tmp_path, capsys):
    """Links first, since nothing may be followed; then the catalog, and what its rows name."""
    storage = make(tmp_path / "s", 4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "s" / "heads").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "s" / "COMMITTED.new")
    assert "'" + str(tmp_path / "mine") + "'" in findings(tmp_path / "s")
    assert "COMMITTED.new: a named pipe" in findings(tmp_path / "s")
    (tmp_path / "s" / "heads").unlink()
    (tmp_path / "s" / "COMMITTED.new").unlink()
    alter(storage.layout.catalog, FOREIGN["macro that reads a file"], checkpoint=False)
    before = {p: (p.lstat().st_mtime_ns, p.lstat().st_size) for p in tmp_path.rglob("*")}
    assert findings(tmp_path / "s") == ("catalog.duckdb: macro 'coalesce': it would take part in queries of embedstore")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "s"), "--untrusted", "--json"])
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert {p: (p.lstat().st_mtime_ns, p.lstat().st_size) for p in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [('{"backbone": "evil.module:run"}', "would import 'evil.module:run', only with --allow-code"),
     ('{"backbone": "timm/resnet18", "weights": "../x.pth"}', "which are not a checkpoint of the store"),
     ('{"backbone": "timm/resnet18", "args": {"a": []}}', "does not say what space"),
     ("[]", "does not say what space")],
)  # fmt: skip
def test_what_recipes_would_load_is_listed(tmp_path, recipe, problem):
    """Code, files of the store that are no checkpoint, and recipes of another form."""
    storage = make(tmp_path / "s", 4)
    alter(storage.layout.catalog, f"UPDATE cat.spaces SET recipe = '{recipe}'", checkpoint=True)
    assert problem in findings(tmp_path / "s")


def test_a_catalog_with_a_false_length_is_refused(tmp_path):
    """A file full of holes would be copied before its log is written into it, and fill the disk."""
    for name, size, problem in (
        ("catalog.duckdb", 1 << 38, "are stored"), ("catalog.duckdb", 1 << 29, "bytes and holds"),
        ("catalog.duckdb.wal", 1 << 38, "are stored"),
    ):  # fmt: skip
        make(tmp_path / f"{name}-{size}", 4)
        path = tmp_path / f"{name}-{size}" / name
        path.touch()
        os.truncate(path, size)
        with pytest.raises(es.UnsafeStore, match=problem):
            es.open(path.parent)
        assert problem in findings(path.parent)


@pytest.mark.parametrize("checkpoint", [True, False], ids=["in the file", "in the log"])
@pytest.mark.parametrize(
    "statement",
    ['vectors SET "row" = 1000', 'vectors SET "row" = -1', "vectors SET shard = 77", 'vectors SET "row" = NULL',
     "spaces SET facts = '{}'", "spaces SET facts = NULL", "spaces SET created = NULL", "spaces SET dtype = 'object'",
     "shards SET rows = NULL", "shards SET rows = -4", "shards SET shard = NULL", "counters SET next_shard = NULL"],
)  # fmt: skip
def test_rows_that_do_not_exist_and_values_of_other_kinds_are_damage(tmp_path, statement, checkpoint):
    """What the catalog says is compared with the files before a number of it is followed."""
    storage = make(tmp_path / "s", 4)
    alter(storage.layout.catalog, f"UPDATE cat.{statement}", checkpoint=checkpoint)
    with pytest.raises(es.StoreDamaged):
        es.open(tmp_path / "s").export(tmp_path / "items.parquet")
    assert not (tmp_path / "items.parquet").exists()


def test_an_index_and_a_head_with_a_false_length_are_not_read(tmp_path):
    """The length is compared before the checksum: a file of holes takes minutes to read."""
    create_original(tmp_path / "s")
    for path in [*tmp_path.glob("s/spaces/*/index/*.faiss"), tmp_path / "s" / "heads" / "kind" / "head.json"]:
        os.truncate(path, 1 << 38)
    store = es.open(tmp_path / "s")
    assert len(store.search([1, 2, 3, 4], k=3).to_json()["hits"]) == 3
    with pytest.raises(es.StoreDamaged, match=r"head\.json"):
        store.predict("kind")


def test_files_of_holes_whose_descriptions_state_their_lengths_are_not_read(tmp_path):
    """Whoever knows the format can describe a terabyte of holes: nothing reads it, and verify names every file."""
    create_original(tmp_path / "s")
    index = next(tmp_path.glob("s/spaces/*/index/*.faiss"))
    change_description(index.with_suffix(".json"), bytes=1 << 40)
    head = tmp_path / "s" / "heads" / "kind"
    description = json.loads((head / "head.json").read_text())
    description["files"]["head.safetensors"]["bytes"] = 1 << 40
    before = file_digest(head)
    (head / "head.json").write_bytes(seal_description({k: v for k, v in description.items() if k != "digest"}))
    digests = f"replace(facts::VARCHAR, '{before}', '{file_digest(head)}')"
    alter(tmp_path / "s" / "catalog.duckdb", f"UPDATE cat.heads SET facts = {digests}", checkpoint=True)
    checkpoint = tmp_path / "s" / "checkpoints" / "abc"
    checkpoint.mkdir(parents=True)
    (checkpoint / "weights.safetensors").touch()
    entry = {"file": "weights.safetensors", "bytes": 1 << 40, "xxh3": "0" * 32}
    (checkpoint / "checkpoint.json").write_bytes(dump_manifest({"files": [entry]}))
    for path in (index, head / "head.safetensors", checkpoint / "weights.safetensors"):
        os.truncate(path, 1 << 40)
    started = time.monotonic()
    store = es.open(tmp_path / "s")
    assert len(store.search([1, 2, 3, 4], k=3).hits) == 3
    with pytest.raises(es.StoreDamaged, match=r"1,099,511,627,776 bytes of which .* are stored"):
        store.predict("kind")
    problems = {d.file.rpartition("/")[2] for d in store.verify().damage}
    assert problems == {index.name, "kind", "weights.safetensors"}
    assert time.monotonic() - started < 60


@pytest.mark.parametrize("pattern", ["spaces/*/shards/*.vec", "heads/kind/head.safetensors"])
def test_a_copy_of_a_file_of_holes_is_refused(tmp_path, pattern):
    """Neither a backup nor an export fills the disk with the length that a file claims."""
    create_original(tmp_path / "s")
    for path in tmp_path.glob(f"s/{pattern}"):
        os.truncate(path, 1 << 38)
    for copy in ("backup", "export_store"):
        with pytest.raises(es.StoreError):
            getattr(es.open(tmp_path / "s"), copy)(tmp_path / copy)
        assert not (tmp_path / copy).exists()


def test_a_store_is_checked_once_in_a_process(tmp_path, monkeypatch):
    """The check takes some ten milliseconds: an unchanged store is not checked again, and no commit starts a check."""
    create_original(tmp_path / "s")
    opened = []
    confined = connection.connect_confined
    monkeypatch.setattr(connection, "connect_confined", lambda *a, **k: opened.append(a) or confined(*a, **k))
    store = es.open(tmp_path / "s")
    store.info()
    es.open(tmp_path / "s").info()
    assert len(opened) == 1
    store.delete(items=[1])
    store.info()
    assert len(opened) == 1


def test_keys_of_spaces_in_the_catalog_are_never_paths(tmp_path):
    """Files with the suffix .tmp in the folder of a space are removed; the catalog does not choose the folder."""
    storage = make(tmp_path / "s", 4)
    (tmp_path / "mine" / "shards").mkdir(parents=True)
    (tmp_path / "mine" / "shards" / "x.tmp").write_text("mine")
    alter(storage.layout.catalog, "UPDATE cat.spaces SET space = '../../mine'", checkpoint=True)
    for use in (lambda: es.open(tmp_path / "s").delete(items=[1]), lambda: es.repair_store(tmp_path / "s")):
        with pytest.raises(es.StoreError):
            use()
    assert (tmp_path / "mine" / "shards" / "x.tmp").read_text() == "mine"
    assert SPACE.key in [p.name for p in (tmp_path / "s" / "spaces").iterdir()]
