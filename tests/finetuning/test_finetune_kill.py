"""SIGKILL while training and while embedding again: it goes on, to the very same result, and nothing is mixed."""

import json
import multiprocessing
import random
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors.torch import load_file

import embedstore as es
from embedstore.pipeline.run import EmbedOptions, embed_source
from embedstore.sources.store_items import StoreItemsSource
from tests.helpers.finetune_store import files, store_of, textures, vectors

HOW = {"epochs": 4, "batch_size": 8, "weight_average": "ema", "mixup": 0.2, "patience": 9}

HEAVY = ["torchvision.transforms.v2", "timm.scheduler.cosine_lr", "accelerate", "matplotlib.backends.backend_agg"]
"""Imported once by the server whose forks are killed, so that a kill costs no ten seconds of imports."""


def train(path):
    """The work that is killed: training."""
    es.open(path).finetune("label", **HOW)


def embed(path):
    """The work that is killed: embedding into the newest space, in small commits."""
    store = es.open(path)
    row = store.spaces[-1]
    options = EmbedOptions(commit_rows=4, batch_size=4)
    embed_source(
        store._storage, StoreItemsSource(store._storage), lambda: store.backbone(row.key), row, options=options
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A store before, and its copy after a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    store_of(folder / "before", textures(folder / "photos"))
    shutil.copytree(folder / "before", folder / "after")
    result = es.open(folder / "after").finetune("label", **HOW)
    return folder, result


def killed(work, path, ready, rng):
    """Let a process work on a store and kill it at a random moment after ``ready()``; 0 if it was faster, else 1."""
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([__name__, *HEAVY])
    process = processes.Process(target=work, args=(path,))
    process.start()
    deadline = time.monotonic() + 240
    while not ready() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(rng.uniform(0, 0.5))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)  # nothing but the kill stops it
    return int(process.exitcode != 0)


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
    note = json.loads((path / "checkpoints" / expected.key / "checkpoint.json").read_bytes())
    assert note["seconds"] >= round(sum(e["seconds"] for e in note["history"]["epochs"]), 3)  # those before a kill too
    a, b = vectors(store, expected.key), vectors(after, expected.key)
    assert a.keys() == b.keys()
    assert all(np.allclose(a[u], b[u], atol=1e-5) for u in b)
    assert [p.name for p in (path / "checkpoints").iterdir()] == [expected.key]
    assert store.verify().ok


def train_under_fire(path, whole, rng, epochs):
    """Kill after each of the epochs, then let it finish; the number of kills that came in time."""
    kills = sum([killed(train, path, lambda wanted=epoch: epoch_of(path) >= wanted, rng) for epoch in epochs])
    es.open(path).finetune("label", **HOW)
    same_result(path, whole)
    return kills


@pytest.mark.slow
def test_a_run_that_was_killed_ends_as_if_it_had_not_been(whole, tmp_path):
    """Killed in the second epoch; resumed, every weight is equal, bit for bit."""
    path = shutil.copytree(whole[0] / "before", tmp_path / "s")
    assert train_under_fire(path, whole, random.Random(1), [1]) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_of_training(whole, tmp_path):
    """Ten runs, each killed one to three times at random epochs, before the first state too."""
    rng, kills = random.Random(2), 0
    for n in range(10):
        path = shutil.copytree(whole[0] / "before", tmp_path / f"s{n}")
        kills += train_under_fire(path, whole, rng, sorted(rng.sample([-1, 0, 1, 2, 3], rng.randint(1, 3))))
    assert kills >= 5


def embed_under_fire(path, whole, rng, counts):
    """Train, then kill the embedding when so many vector files are there, then let it finish; the kills in time."""
    store = es.open(path)
    made = store.finetune("label", **HOW, embed=False)
    shards = path / "spaces" / made.key / "shards"
    kills = sum([killed(embed, path, lambda n=count: len(list(shards.glob("*.vec"))) >= n, rng) for count in counts])
    assert len(list(shards.glob("*.vec"))) >= max(counts)
    done = es.open(path).finetune("label", **HOW)
    assert done.already_trained
    assert done.embed_report.embedded < 60
    same_result(path, whole)
    return kills


def test_embedding_again_goes_on_after_a_kill(whole, tmp_path):
    """Only what is missing is computed; the vectors are those of an undisturbed run."""
    path = shutil.copytree(whole[0] / "before", tmp_path / "s")
    embed_under_fire(path, whole, random.Random(3), [2])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_of_embedding_again(whole, tmp_path):
    """Five stores, each killed three times."""
    rng, kills = random.Random(4), 0
    for n in range(5):
        path = shutil.copytree(whole[0] / "before", tmp_path / f"s{n}")
        kills += embed_under_fire(path, whole, rng, [1, 4, 8])
    assert kills >= 5
