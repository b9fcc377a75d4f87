"""Several devices: every image has its own vector, whichever device embeds it."""

import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

import embedstore as es
from embedstore.backbones import load
from embedstore.backbones.loading import resolve_devices
from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.runtime import compare_vectors
from embedstore.errors import BadBackbone, BadOption
from embedstore.space import Recipe
from tests.conftest import TINY


def test_a_run_on_several_devices_gives_the_vectors_of_one(tmp_path, photos):
    """Two copies on the CPU share the batches, and every item has the vector it has with one copy."""
    vectors = {}
    for device in ("cpu", "cpu,cpu"):
        es.create(tmp_path / device, TINY, random_init=True, device="cpu", dtype="float32")
        store = es.open(tmp_path / device, device=device)
        report = store.embed(photos, batch_size=2, runtime="eager")
        assert (report.embedded, report.device) == (12, device)
        features = store.features("uri")
        vectors[device] = features.X[np.argsort(features.y)]
    assert compare_vectors(vectors["cpu"], vectors["cpu,cpu"]).min_cosine > 0.999999


def test_batches_go_to_a_free_device():
    """A slow device has one batch while the other embeds the rest; networks of two spaces are refused."""

    class Device:
        device = "cpu"

        def __init__(self, seconds, key="one"):
            self.space = SimpleNamespace(key=key)
            self.seconds, self.batches = seconds, 0

        def encode_images(self, batch):
            self.batches += 1
            time.sleep(self.seconds)
            return batch

    slow, fast = Device(0.5), Device(0.01)
    devices = DevicePool([slow, fast])
    assert devices.concurrency == 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(devices.encode_images, range(12)))
    assert slow.batches + fast.batches == 12
    assert fast.batches > slow.batches
    with pytest.raises(BadBackbone, match="load the network into different spaces"):
        DevicePool([slow, Device(0, key="two")])


def test_devices_are_separated_by_commas():
    """Every one is checked; a search or fine-tuning uses the first."""
    assert resolve_devices("cpu") == ["cpu"]
    assert resolve_devices("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(BadOption, match="no device 'cuda:7' on this machine"):
        resolve_devices("cpu,cuda:7")
    assert load(Recipe(TINY, random_init=True), device="cpu,cpu").device == "cpu"
