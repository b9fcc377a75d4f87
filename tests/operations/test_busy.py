"""Writing while another process writes."""

import ast
import inspect
import re
import subprocess
import sys
import time

import numpy as np
import pytest

import embedstore as es
from embedstore.cli import load_commands, main
from embedstore.cli.app import app
from embedstore.errors import StoreBusy
from tests.conftest import TINY, picture
from tests.helpers.call_graph import functions, reaching
from tests.helpers.clusters import add, clusters, store_of

HOLD = """
import sys
import time
from pathlib import Path
from embedstore.storage.lock import writer_lock
with writer_lock(Path(sys.argv[1]) / "LOCK", "an import"):
    print("held", flush=True)
    time.sleep(600)
"""

WRITES = {
    "add_vectors": lambda s, wait: s.add_vectors(
        np.eye(8, dtype="f4"), {"uri": list("pqrstuvw")}, space="new", wait=wait
    ),
    "edit": lambda s, wait: s.edit({"label": "'x'"}, items=[1], wait=wait),
    "rename": lambda s, wait: s.rename("a", "b", wait=wait),
    "delete": lambda s, wait: s.delete(items=[1], wait=wait),
    "purge": lambda s, wait: s.purge(items=[1], wait=wait),
    "set_default": lambda s, wait: s.set_default("other", wait=wait),
    "rename_space": lambda s, wait: s.rename_space("other", "third", wait=wait),
    "drop_space": lambda s, wait: s.drop_space("other", wait=wait),
    "compact": lambda s, wait: s.compact(wait=wait),
    "probe": lambda s, wait: s.probe("label", save_as="h", wait=wait),
    "knn": lambda s, wait: s.knn("label", save_as="h", wait=wait),
    "few_shot": lambda s, wait: s.few_shot(
        "label", ["c0", "c1", "c2"], class_vectors=np.eye(3, 16), shots=1, save_as="h", wait=wait
    ),
    "zero_shot save": lambda s, wait: s.zero_shot(["c0", "c1"], class_vectors=np.eye(2, 16)).save("h", wait=wait),
    "cluster": lambda s, wait: s.cluster(2, wait=wait),
    "duplicates": lambda s, wait: s.duplicates(0.5, write_columns=True, wait=wait),
    "edit_from_table": lambda s, wait: s.edit_from_table(table_of(s), wait=wait),
    "repair": lambda s, wait: s.repair(wait=wait),
    "save_head": lambda s, wait: s.save_head("h", s.probe("label"), wait=wait),
    "delete_head": lambda s, wait: s.delete_head("kept", wait=wait),
    "confirm_labels": lambda s, wait: s.confirm_labels([1], wait=wait),
    "predict": lambda s, wait: s.predict("kept", wait=wait),
}


# Of a store with images and a backbone.
IMAGE_WRITES = {
    "embed": lambda s, wait: s.embed(s.path.parent / "photos", wait=wait),
    "reembed": lambda s, wait: s.reembed("second", wait=wait),
    "plan_parts": lambda s, wait: s.plan_parts(s.path.parent / "photos", 2, replace=True, wait=wait),
    "register": lambda s, wait: s.register("second", wait=wait),
    "add_space": lambda s, wait: s.add_space(TINY, random_init=True, space_name="third", wait=wait),
    "finetune": lambda s, wait: s.finetune("label", epochs=1, layers="head", embed=False, wait=wait),
}


def table_of(store):
    """A table that edits one item."""
    table = store.path.parent / "edits.csv"
    table.write_text("item,label\n1,x\n")
    return table


def hold(folder):
    """Hold the lock of a folder in another process: that of a store, or of what is derived from a space."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    return other


METHODS = {n: inspect.signature(m).parameters for n, m in vars(es.Store).items() if inspect.isfunction(m)}
WAITING = {name for name, parameters in METHODS.items() if "wait" in parameters}
OWN_LOCK = {  # the folder of the space with the lock, and the call
    "build_index": ("index", lambda s, wait: s.build_index(wait=wait)),
    "export_towers": ("towers", lambda s, wait: s.export_towers(wait=wait)),
    "replicate": ("replicas", lambda s, wait: s.replicate(["postgresql://me@127.0.0.1:9/pets"], wait=wait)),
}
FIXED_WAITS = {
    "RECORD_WAIT": "the result is returned anyway, with a notice that its run is not recorded",
    "WRITE_WAIT": "the page and the tools for language models, whose user cannot choose it",
    "None": "the same training: nobody waits hours for it, and the message offers no `--wait`",
}


def fixed_and_offered():
    """Return the seconds of each place that takes a lock of writers, and the functions that leave them to a caller."""
    fixed, offered = set(), set()
    for name, function in functions().items():
        if name.startswith("embedstore.storage."):  # the lock itself, and recovery
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("storage.writer", "writer_lock")):
                (wait,) = [ast.unparse(k.value) for k in node.keywords if k.arg == "wait"] or ["the default"]
                offered |= {name} if wait.split(".")[-1] == "wait" else set()
                fixed |= {wait} if wait.split(".")[-1] != "wait" else set()
    return fixed, offered


def test_every_method_that_takes_a_lock_of_writers_has_wait():
    """Whoever writes chooses how long to wait for others; the few places with fixed seconds have a reason."""
    fixed, offered = fixed_and_offered()
    assert fixed == FIXED_WAITS.keys()
    prefix = "embedstore.store.Store."
    assert {n.removeprefix(prefix) for n in reaching(offered) if n.startswith(prefix)} == WAITING


def test_every_method_that_waits_says_when_it_gives_up():
    """Its docstring names the error."""
    assert [name for name in sorted(WAITING) if "StoreBusy:" not in getattr(es.Store, name).__doc__] == []


def test_every_method_that_waits_is_tried():
    """A new method with ``wait=`` is tried here too, with the writer's lock or with its own."""
    assert {*WRITES, *IMAGE_WRITES, *OWN_LOCK} - {"zero_shot save"} == WAITING


@pytest.fixture(scope="module")
def busy_images(tmp_path_factory):
    """A store of photos with two spaces, on which another process holds the write lock."""
    folder = tmp_path_factory.mktemp("busy-images")
    for n in range(24):
        path = folder / "photos" / ("ab"[n % 2]) / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    store = es.create(folder / "s", "embedstore/tiny")
    store.embed(folder / "photos")
    store.add_space("embedstore/tiny", layer="before-projection", space_name="second")
    picture(99).save(folder / "photos" / "a" / "99.png")
    store.plan_parts(folder / "photos", 1, space="second")
    other = hold(store.path)
    yield store, other
    other.kill()
    other.wait()


@pytest.mark.parametrize("name", IMAGE_WRITES)
def test_a_method_that_embeds_or_trains_waits_as_long_as_it_is_told(busy_images, name):
    """The error names the process, and the store is unchanged."""
    store, other = busy_images
    before = (store.info().items, store.info().spaces)
    with pytest.raises(StoreBusy, match=re.escape(f"process {other.pid}") + ".*an import"):
        IMAGE_WRITES[name](store, 0.0)
    assert (store.info().items, store.info().spaces) == before


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """A store with a head, on which another process holds the write lock."""
    X, y = clusters(60, noise=0.1)
    store = store_of(tmp_path_factory.mktemp("busy") / "s", X, label=y)
    add(store, X[:, ::-1], "other")
    store.save_head("kept", store.probe("label"))
    other = hold(store.path)
    yield store, other
    other.kill()
    other.wait()


@pytest.mark.parametrize("name", WRITES)
def test_a_method_that_writes_waits_as_long_as_it_is_told(busy, name):
    """The error names the process and what it does, and the store is unchanged."""
    store, other = busy
    before = store.sql("select count(*) n, min(label) first from items").rows
    start = time.monotonic()
    with pytest.raises(StoreBusy, match=re.escape(f"process {other.pid}") + ".*an import"):
        WRITES[name](store, 0.0)
    assert time.monotonic() - start < 8
    assert store.sql("select count(*) n, min(label) first from items").rows == before
    assert [head.name for head in store.heads] == ["kept"]


@pytest.mark.parametrize("name", OWN_LOCK)
def test_a_method_with_a_lock_of_its_own_waits_for_its_kind_only(busy_images, name):
    """While somebody writes, it takes its lock; if that is held, the error names the process and the option."""
    store, writer = busy_images
    folder, call = OWN_LOCK[name]
    path = store.path / "spaces" / store.spaces[0].key / folder
    path.mkdir(exist_ok=True)
    other = hold(path)
    try:
        with pytest.raises(StoreBusy, match=re.escape(f"process {other.pid}") + ".*an import.*--wait SECONDS"):
            call(store, 0.0)
    finally:
        other.kill()
        other.wait()
    if name == "replicate":  # the lock is free, and the server is not there
        with pytest.raises((es.ReplicaError, es.MissingExtra)):
            call(store, 0.0)
    else:
        assert call(store, 0.0)
    assert writer.poll() is None


CLI_WRITES = {
    "predict": ["predict", "STORE", "kept"],
    "heads": ["heads", "STORE", "--delete", "kept"],
    "probe": ["probe", "STORE", "--head", "ridge", "--save", "h"],
    "knn": ["knn", "STORE", "--save", "h"],
    "delete": ["delete", "STORE", "--item", "1"],
    "cluster": ["cluster", "STORE", "-k", "2"],
    "duplicates": ["duplicates", "STORE", "--threshold", "0.5", "--write-columns"],
    "compact": ["compact", "STORE"],
}
NEW_STORES = {  # verbs that write to a store that nobody else knows yet
    "create": {"export_towers"},
    "bench": {"embed", "add_vectors"},
    "quickstart": {"embed", "add_vectors"},
}


@pytest.mark.parametrize("verb", CLI_WRITES)
def test_a_verb_that_writes_waits_as_long_as_it_is_told(busy, verb, capsys):
    """``--wait 0`` fails at once, in one line that names the process."""
    store, other = busy
    with pytest.raises(SystemExit) as stopped:
        main([*[str(store.path) if w == "STORE" else w for w in CLI_WRITES[verb]], "--wait", "0"])
    assert stopped.value.code == 1
    err = capsys.readouterr().err
    assert f"process {other.pid}" in err.splitlines()[-1]
    assert [head.name for head in store.heads] == ["kept"]


def calls_that_wait():
    """Yield each call of a method with ``wait`` in the command line: the function, the method, and what it passes."""
    for name, function in functions().items():
        for node in ast.walk(function) if name.startswith("embedstore.cli.") else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = ast.unparse(node.func).split(".")[-1]
                owner = ast.unparse(node.func.value)
                if called in WAITING | {"repair_store", "save"} and owner not in ("re", "values"):
                    yield name, called, [ast.unparse(k.value) for k in node.keywords if k.arg == "wait"]


def test_every_verb_whose_method_waits_has_the_option():
    """In the command line as in Python: what the user says is what the method waits."""
    load_commands()
    calls = [call for call in calls_that_wait() if call[1] not in NEW_STORES.get(call[0].split(".")[-1], ())]
    assert [call for call in calls if call[2] != ["wait"]] == []
    verbs = {f"{c.callback.__module__}.{c.callback.__name__}": c.callback for c in app.registered_commands}
    waiting = verbs.keys() & reaching({name for name, _, _ in calls})
    assert [verb for verb in waiting if "wait" not in inspect.signature(verbs[verb]).parameters] == []
    assert WAITING - {called for _, called, _ in calls} == {"repair", "export_towers", "save_head"}


@pytest.mark.parametrize("name", ["a b", "../h", "", "x" * 80])
def test_the_name_of_a_head_is_checked_before_the_work(busy, name):
    """An evaluation is not lost because its head cannot be saved."""
    store, _ = busy
    runs = store.sql("SELECT count(*) FROM runs").rows
    for save in (
        lambda: store.probe(save_as=name, wait=0.0),
        lambda: store.knn(save_as=name, wait=0.0),
        lambda: store.few_shot(
            classes=["c0", "c1", "c2"], class_vectors=np.eye(3, 16), shots=1, save_as=name, wait=0.0
        ),
    ):
        with pytest.raises(es.BadHead, match="does not fit"):
            save()
    assert store.sql("SELECT count(*) FROM runs").rows == runs
