"""A compiled network has batches of one size on one thread, and nothing in it that a CUDA graph cannot hold."""

import threading

import numpy as np
import pytest
import torch

import embedstore as es
from embedstore.backbones import load
from embedstore.backbones.base import Backbone
from embedstore.backbones.registry import BUNDLED_INFO
from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.compiled import CompiledEncoder
from embedstore.backbones.runtimes.runtime import Runtime, compare_vectors
from embedstore.space import Recipe
from tests.conftest import TINY, picture
from tests.helpers.pretend_cuda import pretended_gpus
from tests.helpers.pretend_device import DeviceFault


class Capture:
    """In place of ``torch.compile``: a forward pass that may do what one in a CUDA graph may.

    Attributes:
        modes: how networks were compiled.
        shapes: of every batch.
        threads: that ran it.
    """

    def __init__(self, machine=None):
        self.machine, self.modes, self.shapes, self.threads = machine, [], [], set()

    def __call__(self, forward, *, dynamic, mode):
        assert not dynamic
        self.modes.append(mode)

        def captured(pixels):
            self.shapes.append(tuple(pixels.shape))
            self.threads.add(threading.get_ident())
            if self.machine is None:
                return forward(pixels)
            self.machine.capturing = True
            try:
                return forward(pixels)
            finally:
                self.machine.capturing = False

        return captured


@pytest.fixture
def photos(tmp_path):
    """Eleven photos, the last two of which are copies of the first."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for n in range(11):
        picture(n % 9, (200, 150)).save(folder / f"{n:02d}.jpg", quality=92)
    return folder


def vectors_of(store):
    """Return the vectors by file name."""
    features = store.features("uri")
    return features.X[np.argsort(features.y)]


def test_every_batch_of_a_compiled_run_has_one_size_and_one_thread(monkeypatch, tmp_path, photos):
    """Nine contents in batches of four: the last one is padded, nothing waits inside, and vectors are as by eager."""
    eager = es.create(tmp_path / "eager", BUNDLED_INFO.name, device="cpu", dtype="float32", runtime="eager")
    eager.embed(photos, batch_size=4)
    es.create(tmp_path / "s", BUNDLED_INFO.name, device="cpu", dtype="float32")
    with pretended_gpus(monkeypatch) as machine:
        capture = Capture(machine)
        monkeypatch.setattr(torch, "compile", capture)
        store = es.open(tmp_path / "s", device="cuda:0", precision="fp32", decoder="pillow")
        report = store.embed(photos, batch_size=4, runtime="compile")
        vectors = vectors_of(store)
    assert (report.runtime, report.embedded, report.reused) == ("compile", 9, 2)
    assert capture.modes == ["reduce-overhead"]
    assert {shape[0] for shape in capture.shapes} == {4}
    assert len(capture.threads) == 1
    assert compare_vectors(vectors_of(eager), vectors).is_close


@pytest.mark.parametrize(
    ("first", "named", "expected", "static"), [(3, None, 100, 32), (3, 8, 100, 8), (3, 64, 100, 32), (3, None, 5, 5)]
)
def test_the_size_does_not_follow_from_the_first_batch(monkeypatch, first, named, expected, static):
    """A first batch of three (the others were copies) does not make every batch of the run small."""
    capture = Capture()
    monkeypatch.setattr(torch, "compile", capture)
    network = load(Recipe(TINY, random_init=True), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (first, 3, *network.space.preprocess.size), dtype=np.uint8)
    encoder = AdaptiveEncoder([network], Runtime.COMPILE, expected_images=expected, batch_size=named)
    encoder.encode_images(pixels)
    assert encoder.batch_size == static
    assert {shape[0] for shape in capture.shapes} == {static}
    assert capture.modes == ["default"]


def test_black_images_of_the_padding_change_no_vector():
    """A padded batch gives its images the vectors that they have alone, for every number of images."""
    network = load(Recipe(TINY, random_init=True), device="cpu")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, *network.space.preprocess.size), dtype=np.uint8)
    expected = network.encode_images(pixels)
    compiled = CompiledEncoder(network, 4)
    compiled._forward = network.vectors_from_pixels
    for count in range(1, 6):
        np.testing.assert_allclose(compiled.encode_images(pixels[:count]), expected[:count], rtol=1e-4, atol=1e-5)


def ask_for_a_number(pixels):
    """Ask the device for a number in the middle of a forward pass."""
    return pixels.float() * float(pixels.float().max() >= 0)


def copy_from_the_host(pixels):
    """Copy a constant from the host in the middle of a forward pass."""
    return pixels.float() * torch.ones(3, 1, 1).to(pixels.device)


@pytest.mark.parametrize(
    ("normalize", "fault"),
    [(ask_for_a_number, "the host waits while a graph"), (copy_from_the_host, "memory of the host is copied while")],
)
def test_what_a_graph_cannot_hold_is_noticed(monkeypatch, normalize, fault):
    """A forward pass that waits, or copies from the host, fails the capture."""

    def run():
        with pretended_gpus(monkeypatch) as machine:
            network = load(Recipe(BUNDLED_INFO.name), device="cuda")
            monkeypatch.setattr(Backbone, "normalize", lambda self, batch: normalize(batch))
            capture = Capture(machine)(network.vectors_from_pixels, dynamic=False, mode="default")
            network.run_forward(np.zeros((2, 3, *network.space.preprocess.size), np.uint8), capture)

    with pytest.raises(DeviceFault, match=fault):
        run()
