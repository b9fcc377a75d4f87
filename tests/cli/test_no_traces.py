"""No verb needs the network, and none leaves anything in the home folder of the user."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

import embedstore as es
from embedstore.cli import load_commands
from embedstore.cli.app import app
from tests.conftest import ROOT, picture

VERBS = {
    "create": ["create", "NEW", "--backbone", "tiny"],
    "embed": ["embed", "STORE", "PHOTOS"],
    "reembed": ["reembed", "STORE", "--space", "SPACE"],
    "import": ["import", "NEW", "ARCHIVE"],
    "report": ["report", "PHOTOS", "-o", "OUT/r.html", "--store", "STORE", "--backbone", "tiny"],
    "backbones": ["backbones", "resnet"],
    "quickstart": ["quickstart", "PHOTOS", "-o", "NEW"],
    "search": ["search", "STORE", "a red square", "-o", "OUT/h.html", "-o", "OUT/h.csv", "-o", "OUT/h.parquet"],
    "map": ["map", "STORE", "-o", "OUT/m.html", "-o", "OUT/m.png"],
    "index": ["index", "STORE", "--kind", "flat"],
    "info": ["info", "STORE"],
    "failures": ["failures", "STORE"],
    "sql": ["sql", "STORE", "select * from items"],
    "export": ["export", "STORE", "OUT/e.parquet"],
    "probe": ["probe", "STORE", "-o", "OUT/p.html", "-o", "OUT/p.png"],
    "knn": ["knn", "STORE"],
    "zero-shot": ["zero-shot", "STORE", "--classes", "cat,dog"],
    "few-shot": ["few-shot", "STORE", "--shots", "2"],
    "learning-curve": ["learning-curve", "STORE", "--labels-per-class", "2,4"],
    "compare-heads": ["compare-heads", "STORE", "--heads", "ridge,prototype"],
    "classify": ["classify", "STORE", "h", "PHOTOS", "-o", "OUT/n.html"],
    "retrieval": ["retrieval", "STORE", "label", "-o", "OUT/g.html"],
    "shift": ["shift", "STORE", "--first", "label = 'cat'", "--second", "label = 'dog'"],
    "predict": ["predict", "STORE", "h"],
    "heads": ["heads", "STORE"],
    "export-head": ["export-head", "STORE", "h", "OUT/h.npz"],
    "export-classifier": ["export-classifier", "STORE", "h", "OUT/h.onnx"],
    "label-errors": ["label-errors", "STORE", "--folds", "2", "-o", "OUT/l.html"],
    "suggest-labels": ["suggest-labels", "STORE", "label"],
    "duplicates": ["duplicates", "STORE"],
    "checkup": ["checkup", "STORE"],
    "cluster": ["cluster", "STORE", "-k", "2"],
    "edit": ["edit", "STORE", "--set", "label='cat'", "--where", "item = 1"],
    "rename": ["rename", "STORE", "PHOTOS/", "/elsewhere/"],
    "rename-space": ["rename-space", "STORE", "SPACE", "other"],
    "delete": ["delete", "STORE", "--item", "1"],
    "purge": ["purge", "STORE", "--item", "1"],
    "set-default": ["set-default", "STORE", "SPACE"],
    "drop-space": ["drop-space", "STORE", "second"],
    "finetune": ["finetune", "STORE", "label", "--epochs", "1", "--device", "cpu"],
    "compare-spaces": ["compare-spaces", "STORE", "label", "--space", "second", "--baseline", "SPACE"],
    "advise": ["advise", "STORE", "label"],
    "compare-strategies": [
        "compare-strategies",
        "STORE",
        "--labels-per-class",
        "4",
        "--epochs",
        "1",
        "-o",
        "OUT/s.png",
    ],
    "plan-parts": ["plan-parts", "STORE", "PHOTOS"],
    "work": ["work", "PLANNED", "--part", "1/1"],
    "register": ["register", "PLANNED"],
    "replicate": ["replicate", "STORE", "--help"],
    "verify": ["verify", "STORE"],
    "repair": ["repair", "STORE"],
    "backup": ["backup", "STORE", "NEW"],
    "restore": ["restore", "BACKUP", "NEW"],
    "compact": ["compact", "STORE"],
    "bench": ["bench", "PHOTOS", "--seconds-per-stage", "0.2", "--max-images", "8"],
}
SLOW = (  # they load PyTorch
    "quickstart report finetune compare-strategies bench advise few-shot learning-curve map zero-shot reembed "
    "create embed work"
).split()


def without_network():
    """Return a command that runs another one without any network, or skip the test."""
    command = ["unshare", "--user", "--map-root-user", "--net"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False, capture_output=True).returncode
    ):
        pytest.skip("this system does not let a user take the network away from a process")
    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A store of 48 pictures in two spaces with a head, a backup and an archive of it."""
    folder = tmp_path_factory.mktemp("traces")
    for n in range(48):
        path = folder / "photos" / ("cat" if n % 2 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "photos")
    store.probe("label", head="ridge", save_as="h")
    uris = [u for (u,) in store.sql("select uri from items order by item").rows]
    second = np.random.default_rng(0).normal(size=(48, 4)).astype(np.float32)
    store.add_vectors(second, {"uri": uris}, space="second")
    store.edit({"label": "nullif(label, 'none')"}, "item > 20")
    store.backup(folder / "backup")
    store.export_store(folder / "archive")
    (folder / "out").mkdir()
    es.create(folder / "planned", "tiny").plan_parts(folder / "photos", 1)
    return folder


def run_in_a_fresh_home(place, tmp_path, arguments):
    """Run a verb on a copy of the store; return the process and every path below its home folder."""
    shutil.copytree(place / "s", tmp_path / "s")
    home = tmp_path / "home"
    home.mkdir()
    words = {"STORE": tmp_path / "s", "NEW": tmp_path / "new", "PHOTOS": place / "photos", "BACKUP": place / "backup",
             "ARCHIVE": place / "archive", "PLANNED": place / "planned", "OUT": place / "out",
             "SPACE": es.open(place / "s").spaces[0].name}  # fmt: skip
    values = [_filled(a, words) for a in arguments]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path / "t"),
    }
    (tmp_path / "t").mkdir()
    done = subprocess.run(
        [*without_network(), sys.executable, "-m", "embedstore", *values],
        env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    return done, sorted(str(p.relative_to(home)) for p in home.rglob("*"))


def _filled(argument, words):
    name, slash, rest = argument.partition("/")
    return f"{words[name]}{slash}{rest}" if name in words else argument


def verbs():
    """Yield each verb; those that load PyTorch are slow."""
    for verb in VERBS:
        yield pytest.param(verb, marks=[pytest.mark.slow] if verb in SLOW else [])


@pytest.mark.parametrize("verb", verbs())
def test_a_verb_needs_no_network_and_leaves_nothing_at_home(place, tmp_path, verb):
    """Without a network it succeeds; a fresh home folder stays empty, and so does the folder for temporary files."""
    done, made = run_in_a_fresh_home(place, tmp_path, VERBS[verb])
    assert done.returncode == 0, done.stderr[-2000:]
    assert made == []
    left = [p.name for p in (tmp_path / "t").iterdir() if not p.name.startswith("torchinductor_")]  # PyTorch's, empty
    assert left == []


def test_every_verb_is_tried():
    """A new verb needs a line above; ``serve`` and ``mcp``, which do not end, have tests in the room of the server."""
    load_commands()
    names = {c.name or c.callback.__name__.rstrip("_").replace("_", "-") for c in app.registered_commands}
    assert set(VERBS) == names - {"serve", "mcp"}


def test_a_variable_of_the_user_stays():
    """Somebody who wants to send statistics can."""
    code = "import embedstore, os; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['HF_HUB_DISABLE_TELEMETRY'])"
    environment = os.environ | {"ORT_DISABLE_TELEMETRY": "0", "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["0", "1"]
