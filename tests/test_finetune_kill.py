"""SIGKILL while training and while embedding again: it goes on, to the very same result, and nothing is mixed."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.torch import load_file

import embedstore as es
from tests.conftest import ROOT
from tests.tuning import files, store_of, textures, vectors

HOW = {"epochs": 4, "batch": 8, "average": "ema", "mixup": 0.2, "patience": 9}

TRAIN = f"import embedstore as es, sys; es.open(sys.argv[1]).finetune('label', **{HOW!r})"

EMBED = """
import embedstore as es, sys
from embedstore.embed.present import Present
from embedstore.embed.run import Options, run
store = es.open(sys.argv[1])
row = store.spaces[-1]
run(store._storage, Present(store._storage), lambda: store.backbone(row.key), row,
    options=Options(commit_rows=4, batch_size=4))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store before, and its copy after a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    store_of(folder / "before", textures(folder / "photos"))
    shutil.copytree(folder / "before", folder / "after")
    result = es.open(folder / "after").finetune("label", **HOW)
    return folder, result


def killed(script, path, ready, rng):
    """Run a script on a store and kill it at a random moment after ``ready()``; False if it was faster."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", script, str(path)], env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.5))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def epoch_of(store):
    """The last epoch whose state is on the disk, -1 for none."""
    for path in (store / "checkpoints").glob(".*/state.json"):
        try:
            return int(json.loads(path.read_bytes())["facts"]["epoch"])
        except FileNotFoundError:
            return -1
    return -1


def same_result(path, whole):
    """One new space, with the weights and vectors of the undisturbed run; the old files are what they were."""
    folder, expected = whole
    store, before, after = es.open(path), es.open(folder / "before"), es.open(folder / "after")
    assert [s.key for s in store.spaces] == [s.key for s in after.spaces]
    assert files(store, store.spaces[0].key) == files(before, before.spaces[0].key)
    made, wanted = (load_file(p / "checkpoints" / expected.key / "weights.safetensors") for p in (path, after.path))
    assert all(np.array_equal(made[n].numpy(), wanted[n].numpy()) for n in wanted)
    a, b = vectors(store, expected.key), vectors(after, expected.key)
    assert a.keys() == b.keys()
    assert all(np.allclose(a[u], b[u], atol=1e-5) for u in b)
    assert [p.name for p in (path / "checkpoints").iterdir()] == [expected.key]
    assert store.verify().ok


def train_under_fire(path, whole, rng, epochs):
    """Kill after each of the epochs, then let it finish."""
    for epoch in epochs:
        killed(TRAIN, path, lambda wanted=epoch: epoch_of(path) >= wanted, rng)
    es.open(path).finetune("label", **HOW)
    same_result(path, whole)


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(whole, tmp_path):
    """Killed in the second epoch; resumed, every weight is equal, bit for bit."""
    path = shutil.copytree(whole[0] / "before", tmp_path / "s")
    train_under_fire(path, whole, random.Random(1), [1])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_of_training(whole, tmp_path):
    """Ten runs, each killed one to three times at random epochs, before the first state too."""
    rng = random.Random(2)
    for n in range(10):
        path = shutil.copytree(whole[0] / "before", tmp_path / f"s{n}")
        train_under_fire(path, whole, rng, sorted(rng.sample([-1, 0, 1, 2, 3], rng.randint(1, 3))))


def embed_under_fire(path, whole, rng, counts):
    """Train, then kill the embedding when so many vector files are there, then let it finish."""
    store = es.open(path)
    made = store.finetune("label", **HOW, embed=False)
    shards = path / "spaces" / made.key / "shards"
    for count in counts:
        killed(EMBED, path, lambda wanted=count: len(list(shards.glob("*.vec"))) >= wanted, rng)
    assert len(list(shards.glob("*.vec"))) >= max(counts)
    done = es.open(path).finetune("label", **HOW)
    assert done.known
    assert done.embedded.embedded < 60
    same_result(path, whole)


def test_embedding_again_goes_on_after_a_kill(whole, tmp_path):
    """Only what is missing is computed; the vectors are those of an undisturbed run."""
    path = shutil.copytree(whole[0] / "before", tmp_path / "s")
    embed_under_fire(path, whole, random.Random(3), [2])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_of_embedding_again(whole, tmp_path):
    """Five stores, each killed three times."""
    rng = random.Random(4)
    for n in range(5):
        path = shutil.copytree(whole[0] / "before", tmp_path / f"s{n}")
        embed_under_fire(path, whole, rng, [1, 4, 8])
