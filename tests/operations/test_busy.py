"""Writing while another process writes."""

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
from tests.helpers.clusters import add, clusters, store_of

HOLD = """
import sys
import time
from embedstore.storage.storage import Storage
with Storage.open(sys.argv[1]).writer("an import"):
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


def hold(store):
    """Hold the write lock of a store in another process."""
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(store.path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "held\n"
    return other


def test_every_method_that_waits_is_tried():
    """A new method with ``wait=`` is tried here too; an index has a lock of its own."""
    methods = {
        n for n, m in vars(es.Store).items() if inspect.isfunction(m) and "wait" in inspect.signature(m).parameters
    }
    assert methods - {"build_index"} <= {name.split()[0] for name in (*WRITES, *IMAGE_WRITES)}


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
    other = hold(store)
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
    other = hold(store)
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


def test_every_verb_whose_method_waits_has_the_option():
    """In the command line and in Python."""
    load_commands()
    verbs = {c.name or c.callback.__name__: inspect.signature(c.callback).parameters for c in app.registered_commands}
    methods = {n.replace("_", "-"): m for n, m in vars(es.Store).items() if inspect.isfunction(m)}
    methods |= {"index": es.Store.build_index, "repair": es.repair_store, "zero-shot": es.ZeroShotClassifier.save}
    missing = [
        v
        for v, m in methods.items()
        if v in verbs and "wait" in inspect.signature(m).parameters and "wait" not in verbs[v]
    ]
    assert missing == []


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
