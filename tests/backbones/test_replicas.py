"""Several devices, or several batches at once: nothing is mixed up."""

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
from embedstore.errors import BadBackbone
from embedstore.pipeline.decode import PreparedFile
from embedstore.pipeline.forward import ForwardStage
from embedstore.pipeline.plan import PlannedFile
from embedstore.space import Recipe
from embedstore.types import ImageRef
from tests.conftest import TINY


def test_a_run_on_several_devices_gives_the_vectors_of_one(tmp_path, photos):
    """Two replicas on the CPU share the batches: every item has the vector it has with one."""
    found = {}
    for device in ("cpu", "cpu,cpu"):
        es.create(tmp_path / device, TINY, random_init=True, device="cpu", dtype="float32")
        store = es.open(tmp_path / device, device=device)
        report = store.embed(photos, batch_size=2, runtime="eager")
        assert (report.embedded, report.device) == (12, device)
        features = store.features("uri")
        found[device] = features.X[np.argsort(features.y)]
    assert compare_vectors(found["cpu"], found["cpu,cpu"]).min_cosine > 0.999999


def test_batches_go_to_the_device_that_is_free():
    """A slow device keeps one batch while the other takes the rest; networks of two spaces are refused."""

    class Device:
        device = "cpu"

        def __init__(self, seconds, key="one"):
            self.space = SimpleNamespace(key=key)
            self.seconds, self.batches = seconds, 0

        def encode_images(self, batch):
            self.batches += 1
            time.sleep(self.seconds)
            return batch

    slow, quick = Device(0.5), Device(0.01)
    replicas = DevicePool([slow, quick])
    assert replicas.concurrency == 2
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(replicas.encode_images, range(12)))
    assert slow.batches + quick.batches == 12
    assert quick.batches > slow.batches
    with pytest.raises(BadBackbone, match="load the network into different spaces"):
        DevicePool([slow, Device(0, key="two")])


def test_devices_are_named_with_commas():
    """Every one is checked; a search or a fine-tuning uses the first."""
    assert resolve_devices("cpu") == ["cpu"]
    assert resolve_devices("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(BadBackbone, match="no device 'cuda:7' on this machine"):
        resolve_devices("cpu,cuda:7")
    assert load(Recipe(TINY, random_init=True), device="cpu,cpu").device == "cpu"


def test_batches_come_back_in_order_whoever_is_faster():
    """Four at once, the first the slowest: files and vectors stay together and in order."""

    def encode(pixels):
        time.sleep(0.2 if pixels[0, 0] == 0 else 0.0)
        return pixels.astype(np.float32)

    taken = 0

    def files():
        nonlocal taken
        for n in range(20):
            taken += 1
            yield PreparedFile(PlannedFile(ImageRef(str(n), str(n), 0, 0), n), pixels=np.full(3, n, np.uint8))

    encoder = SimpleNamespace(encode_images=encode, batch_size=1, concurrency=4)
    stage = ForwardStage(encoder, max_files=100)
    batches = []
    for batch in stage.run(files()):
        batches.append(batch)
        assert taken - len(batches) <= 4, "no more batches than threads are in progress"
    stage.close()
    assert [(b.files[0].planned.item, int(b.vectors[0, 0])) for b in batches] == [(n, n) for n in range(20)]
    assert stage.image_count == 20
