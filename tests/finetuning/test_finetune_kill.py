"""SIGKILL while training and while embedding: the run resumes to exactly the same result."""

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
from tests.helpers.finetune_store import files, store_of, textures, torch_threads, vectors

OPTIONS = {"epochs": 4, "batch_size": 8, "weight_average": "ema", "mixup": 0.2, "patience": 9}

HEAVY = ["torchvision.transforms.v2", "timm.scheduler.cosine_lr", "accelerate", "matplotlib.backends.backend_agg"]
"""Imported once by the server whose forks are killed, so that a kill does not cost ten seconds of imports."""


def train(path):
    """Fine-tune; the work that is killed."""
    es.open(path).finetune("label", **OPTIONS)


def embed(path):
    """Embed into the newest space in small commits; the work that is killed."""
    store = es.open(path)
    row = store.spaces[-1]
    options = EmbedOptions(commit_rows=4, batch_size=4, on_cpu=True)
    embed_source(
        store._session.storage,
        StoreItemsSource(store._session.storage),
        lambda: store.backbone(row.key),
        row,
        options=options,
    )


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Compute as the forked children do, which are killed."""
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A store before fine-tuning, a copy of it after a run that was not disturbed, and its result."""
    folder = tmp_path_factory.mktemp("whole")
    store_of(folder / "before", textures(folder / "photos"))
    shutil.copytree(folder / "before", folder / "after")
    result = es.open(folder / "after").finetune("label", **OPTIONS)
    return folder, result


def run_and_kill(work, path, ready, rng):
    """Run work on a store and kill it at a random moment after ``ready()``; return 0 if it ended before, else 1."""
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
    assert process.exitcode in (0, -signal.SIGKILL)  # only the kill stops it
    return int(process.exitcode != 0)


def stored_epoch(store):
    """Return the last epoch whose state is on the disk, -1 for none."""
    for path in (store / "checkpoints").glob(".*/state.json"):
        try:
            return int(json.loads(path.read_bytes())["facts"]["epoch"])
        except FileNotFoundError:
            return -1
    return -1


def assert_same_result(path, undisturbed):
    """There is one new space with the weights and vectors of the undisturbed run; the old files are unchanged."""
    folder, expected = undisturbed
    store, before, after = es.open(path), es.open(folder / "before"), es.open(folder / "after")
    assert [s.key for s in store.spaces] == [s.key for s in after.spaces]
    assert files(store, store.spaces[0].key) == files(before, before.spaces[0].key)
    actual, wanted = (load_file(p / "checkpoints" / expected.key / "weights.safetensors") for p in (path, after.path))
    assert all(np.array_equal(actual[n].numpy(), wanted[n].numpy()) for n in wanted)
    manifest = json.loads((path / "checkpoints" / expected.key / "checkpoint.json").read_bytes())
    seconds = sum(e["seconds"] for e in manifest["history"]["epochs"])  # with the epochs before a kill
    assert manifest["seconds"] >= round(seconds, 3)
    a, b = vectors(store, expected.key), vectors(after, expected.key)
    assert a.keys() == b.keys()
    assert all(np.allclose(a[u], b[u], atol=1e-5) for u in b)
    assert [p.name for p in (path / "checkpoints").iterdir()] == [expected.key]
    assert store.verify().ok


def train_with_kills(path, undisturbed, rng, epochs):
    """Kill after each of the epochs, then let it finish; return the number of kills that came in time."""
    kills = sum([run_and_kill(train, path, lambda wanted=epoch: stored_epoch(path) >= wanted, rng) for epoch in epochs])
    es.open(path).finetune("label", **OPTIONS)
    assert_same_result(path, undisturbed)
    return kills


@pytest.mark.slow
def test_a_killed_training_ends_with_the_weights_of_an_undisturbed_run(undisturbed, tmp_path):
    """Killed in the second epoch and resumed, every weight is equal bit for bit."""
    path = shutil.copytree(undisturbed[0] / "before", tmp_path / "s")
    assert train_with_kills(path, undisturbed, random.Random(1), [1]) == 1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_of_training(undisturbed, tmp_path):
    """Ten runs are killed one to three times at random epochs, before the first state too."""
    rng, kills = random.Random(2), 0
    for n in range(10):
        path = shutil.copytree(undisturbed[0] / "before", tmp_path / f"s{n}")
        kills += train_with_kills(path, undisturbed, rng, sorted(rng.sample([-1, 0, 1, 2, 3], rng.randint(1, 3))))
    assert kills >= 5


def embed_with_kills(path, undisturbed, rng, counts):
    """Train, kill the embedding at some numbers of vector files, then let it finish; return the kills in time."""
    store = es.open(path)
    result = store.finetune("label", **OPTIONS, embed=False)
    shards = path / "spaces" / result.key / "shards"
    kills = sum(
        [run_and_kill(embed, path, lambda n=count: len(list(shards.glob("*.vec"))) >= n, rng) for count in counts]
    )
    assert len(list(shards.glob("*.vec"))) >= max(counts)
    resumed = es.open(path).finetune("label", **OPTIONS)
    assert resumed.already_trained
    assert resumed.embed_report.embedded < 60
    assert_same_result(path, undisturbed)
    return kills


def test_embedding_resumes_after_a_kill(undisturbed, tmp_path):
    """Only missing vectors are computed, and they equal those of an undisturbed run."""
    path = shutil.copytree(undisturbed[0] / "before", tmp_path / "s")
    embed_with_kills(path, undisturbed, random.Random(3), [2])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_kills_at_random_moments_of_embedding(undisturbed, tmp_path):
    """Five stores are killed three times each."""
    rng, kills = random.Random(4), 0
    for n in range(5):
        path = shutil.copytree(undisturbed[0] / "before", tmp_path / f"s{n}")
        kills += embed_with_kills(path, undisturbed, rng, [1, 4, 8])
    assert kills >= 5
