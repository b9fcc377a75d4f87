"""Whole embedding runs on pretended devices, and proof that each kind of fault is noticed."""

import contextlib
import itertools
import shutil
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.backbones import base, batch_runner
from embedstore.backbones import load as load_backbone
from embedstore.backbones.base import Backbone
from embedstore.backbones.device_clock import DeviceClock, union_length
from embedstore.backbones.registry import BUNDLED_INFO
from embedstore.backbones.runtimes.runtime import Agreement, compare_vectors
from embedstore.errors import BadBackbone
from embedstore.operations import session
from embedstore.pipeline import decode_method
from embedstore.pipeline import encoder as encoder_module
from embedstore.pipeline.decoder import Decoder
from embedstore.quickstart import bench
from embedstore.quickstart.bench_result import BenchSettings
from embedstore.space import Recipe
from tests.conftest import picture
from tests.helpers.pretend_cuda import pretended_gpus
from tests.helpers.pretend_device import DeviceFault
from tests.media.test_hardware_jpeg import pretended_decoder

COUNT, BATCH = 16, 4


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    """Photos larger than the network's input."""
    folder = tmp_path_factory.mktemp("jpegs")
    for n in range(COUNT):
        picture(n, (200, 150)).save(folder / f"{n:03d}.jpg", quality=92)
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An empty store of the bundled network."""
    path = tmp_path_factory.mktemp("empty") / "s"
    es.create(path, BUNDLED_INFO.name, device="cpu", dtype="float32")
    return path


@pytest.fixture
def embed(empty, jpegs, tmp_path):
    """Embed the photos into a new store; return the report and the vectors by file name."""
    names = itertools.count()
    return lambda **options: embed_into(shutil.copytree(empty, tmp_path / f"{next(names)}"), jpegs, **options)


@pytest.fixture(scope="module")
def reference(empty, jpegs, tmp_path_factory):
    """The vectors by the CPU."""
    folder = shutil.copytree(empty, tmp_path_factory.mktemp("reference") / "s")
    return embed_into(folder, jpegs, device="cpu")[1]


@pytest.fixture
def store(empty, tmp_path):
    """An empty store, opened in fp32; its network is loaded by the first who needs it."""
    return es.open(shutil.copytree(empty, tmp_path / "s"), decoder="pillow", precision="fp32")


def embed_into(path, folder, *, device="auto", precision="auto", decoder="pillow", batch_size=BATCH, threads=2):
    """Embed a folder; return the report and the vectors by file name."""
    store = es.open(path, device=device, precision=precision, decoder=decoder)
    report = store.embed(folder, batch_size=batch_size, threads=threads)
    features = store.features("uri")
    return report, features.X[np.argsort(features.y)]


RUNS = [(1, "pillow"), (1, "device"), (2, "device"), (2, "hardware")]


@pytest.mark.parametrize(("gpus", "decoder"), RUNS)
def test_a_run_on_devices_gives_the_vectors_of_the_cpu(monkeypatch, embed, reference, gpus, decoder):
    """One device or two, decoded and resized on the CPU or on the device: every file has its own vector."""
    with pretended_gpus(monkeypatch, gpus) as machine:
        pretended_decoder(monkeypatch, machine)
        report, vectors = embed(decoder=decoder, precision="fp32")
        used = [gpu.counts["kernels"] for gpu in machine.gpus]
    assert report.embedded == COUNT
    assert report.decoder == decoder
    assert report.device == ",".join(["cuda", "cuda:1"][:gpus])
    assert all(used)
    assert compare_vectors(reference, vectors).is_close


def test_half_precision_is_compared_and_used(monkeypatch, embed, reference):
    """Fp16 is computed as fp16: the vectors agree, and they are not those of fp32."""
    with pretended_gpus(monkeypatch):
        report, vectors = embed()
    assert report.precision == "fp16"
    agreement = compare_vectors(reference, vectors)
    assert agreement.is_close
    assert not np.array_equal(reference[BATCH:], vectors[BATCH:])


def test_half_precision_is_used_with_the_eager_runtime_too(monkeypatch, store, jpegs):
    """To name the runtime does not switch the choice of a precision off."""
    with pretended_gpus(monkeypatch):
        store._session.options = replace(store._session.options, precision="auto")
        assert store.embed(jpegs, batch_size=BATCH, runtime="eager").precision == "fp16"


def test_several_devices_resize_their_own_images(monkeypatch, embed, reference):
    """Each device gets whole batches in turn and resizes them itself: no pixels go from one device to another."""
    with pretended_gpus(monkeypatch, 2) as machine:
        _, vectors = embed(decoder="device", precision="fp32", threads=1)
        uploads = [gpu.counts["pinned_copies"] for gpu in machine.gpus]
        assert machine.counts["peer_copies"] == 0
    assert min(uploads) >= COUNT / 2
    assert compare_vectors(reference, vectors).is_close


def test_the_copies_of_a_network_are_loaded_once(monkeypatch, store, jpegs):
    """A second run of the same store finds them on their devices; a dropped space drops them."""
    loads = []
    load = session.load
    monkeypatch.setattr(session, "load", lambda recipe, **options: loads.append(options) or load(recipe, **options))
    with pretended_gpus(monkeypatch, 3):
        for part in ("00*", "01*"):
            store.embed(jpegs / part, batch_size=BATCH)
        assert [options["device"] for options in loads] == ["auto", "cuda:1", "cuda:2"]
        store._session.forget_backbone(store.spaces[0].key)
        assert not store._session._replicas


def test_the_decoder_is_compared_in_fp32(monkeypatch, embed):
    """Also where a half precision was requested: in that, the comparison would measure its noise."""
    seen = []

    def encode(self, batch):
        if not chosen:
            seen.append(self.precision)
        return own(self, batch)

    def choose(*args, **options):
        method = choose_method(*args, **options)
        chosen.append(method)
        return method

    own, choose_method, chosen = Backbone.encode_images, encoder_module.choose_decode_method, []
    monkeypatch.setattr(Backbone, "encode_images", encode)
    monkeypatch.setattr(encoder_module, "choose_decode_method", choose)
    with pretended_gpus(monkeypatch):
        report, _ = embed(decoder="device", precision="fp16")
    assert report.precision == "fp16"
    assert chosen[0].agreement.is_close
    assert set(seen) == {"fp32"}


def test_loading_leaves_the_generators_of_devices_alone(monkeypatch):
    """Random weights and example inputs are drawn on the CPU, and the program's own numbers go on."""
    with pretended_gpus(monkeypatch, 2) as machine:
        before = torch.get_rng_state()
        for name in ("timm/test_resnet", "open_clip/ViT-S-32-alt", f"{__name__}:tiny_network"):
            recipe = Recipe(name, random_init=True, preprocess={"size": 64, "mean": 0.5, "std": 0.5})
            load_backbone(recipe, device="cuda:1", allow_code={name}).example_input()
        assert torch.equal(torch.get_rng_state(), before)
        assert machine.seeded == set()
        torch.manual_seed(0)
        assert machine.seeded == {0, 1}, "the pretended device notices it"


def tiny_network(**_):
    """Return a network of a person."""
    return torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 4))


# ---- memory


def test_a_batch_that_does_not_fit_is_halved_and_nothing_is_lost(monkeypatch, store, jpegs, reference):
    """The memory that half of the photos take at once: the run ends with a smaller batch and all vectors."""
    with pretended_gpus(monkeypatch) as machine:
        backbone = store._session.backbone()
        (gpu,) = machine.gpus
        gpu.peak = gpu.used
        backbone.encode_images(np.zeros((COUNT // 2, 3, *backbone.space.preprocess.size), np.uint8))
        gpu.capacity = gpu.peak
        report = store.embed(jpegs, batch_size=COUNT)
        assert backbone.batch_size == COUNT // 2
        features = store.features("uri")
    assert report.embedded == COUNT
    assert compare_vectors(reference, features.X[np.argsort(features.y)]).is_close


def test_an_image_that_does_not_fit_is_an_error_that_names_the_memory(monkeypatch, store, jpegs):
    """The weights fit and one image does not: the message says how much is free, and no traceback is seen."""
    with pretended_gpus(monkeypatch) as machine:
        store._session.backbone()
        machine.gpus[0].capacity = machine.gpus[0].used + 1000
        with pytest.raises(BadBackbone, match=r"of cuda \(0\.0 of \d+\.\d GB are free\); use --device cpu"):
            store.embed(jpegs, batch_size=BATCH)


def test_what_overflows_does_not_run_out_of_memory_again(monkeypatch):
    """The repetition in fp32 has its own, smaller batches, and halves them too."""
    with pretended_gpus(monkeypatch) as machine:
        backbone = load_backbone(Recipe(BUNDLED_INFO.name), device="cuda")
        pixels = np.zeros((8, 3, *backbone.space.preprocess.size), np.uint8)
        exact = backbone.encode_images(pixels)
        (gpu,) = machine.gpus
        gpu.peak = gpu.used
        backbone.encode_images(pixels)
        gpu.capacity = gpu.used + (gpu.peak - gpu.used) // 2
        vectors = np.full_like(exact, np.nan)
        backbone._repeat_overflowed(pixels, vectors)
    assert np.allclose(vectors, exact, atol=1e-6)


# ---- the device's clock


def test_the_clock_of_the_device_does_not_count_the_host(monkeypatch):
    """Three uploads that each take a tenth of a second on the host are not in the rate of the device."""
    with pretended_gpus(monkeypatch):
        backbone = load_backbone(Recipe(BUNDLED_INFO.name), device="cuda")
        upload = backbone._to_device
        monkeypatch.setattr(backbone, "_to_device", lambda batch: time.sleep(0.1) or upload(batch))
        pixels = np.zeros((BATCH, 3, *backbone.space.preprocess.size), np.uint8)
        begin = time.perf_counter()
        for _ in range(3):
            backbone.encode_images(pixels)
        wall = time.perf_counter() - begin
        assert 0 < 3 * BATCH / backbone.clock.images_per_second <= wall - 0.3
        backbone.clock.reset()
        assert backbone.clock.images_per_second is None


def test_a_run_reports_the_time_of_the_device(monkeypatch, embed):
    """The rate of two devices is the sum of theirs."""
    with pretended_gpus(monkeypatch, 2):
        monkeypatch.setattr(DeviceClock, "images_per_second", property(lambda clock: 1000.0))
        report, _ = embed(precision="fp32")
    assert report.stage_times["forward"] == pytest.approx(COUNT / 2000)
    assert "2,000 images/s" in report.bottleneck


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted), max_size=8))
def test_time_that_several_passes_share_counts_once(spans):
    """The length of a union, in any order, against counting unit steps one by one."""
    covered = {step for begin, end in spans for step in range(begin, end)}
    assert union_length([(float(a), float(b)) for a, b in spans]) == len(covered)


# ---- the cost of a batch, and every kind of fault

RESIZE_KERNELS = 16  # operations that resize and crop one image, and stack it: 12 with torch 2.14


def test_a_run_costs_one_copy_per_image_and_one_wait_per_batch(monkeypatch, store, jpegs):
    """Eight more photos, in two more batches, on a device that resizes: nothing pageable, and no wait per image."""
    costs = []
    store._session.options = replace(store._session.options, decoder=Decoder.GPU_RESIZE)
    monkeypatch.setattr(decode_method, "COMPARISON_IMAGES", 2)  # as many in both runs
    with pretended_gpus(monkeypatch) as machine:
        (gpu,) = machine.gpus
        store._session.backbone()  # its weights are copied once
        for photos in (sorted(jpegs.iterdir())[:4], sorted(jpegs.iterdir())[4:]):
            gpu.counts.clear()
            assert store.embed(photos, batch_size=BATCH, threads=1).decoder == "device"
            costs.append(Counter(gpu.counts))
    few, many = costs
    images, batches = COUNT - 2 * BATCH, COUNT // BATCH - 2
    extra = {name: many[name] - few[name] for name in (*BUDGET, "kernels")}
    assert extra.pop("kernels") <= batches * MAX_KERNELS + images * RESIZE_KERNELS
    assert extra == {
        "pinned_copies": images,
        "copies_to_host": batches,
        "synchronizations": batches,
        "pageable_copies": 0,
        "peer_copies": 0,
    }


BUDGET = {"pinned_copies": 1, "copies_to_host": 1, "synchronizations": 1, "pageable_copies": 0, "peer_copies": 0}
MAX_KERNELS = 200  # operations in one forward pass of the bundled network: 160 with torch 2.14


def cost_of_a_batch(machine, backbone) -> Counter:
    """Return what one batch costs after the first one."""
    pixels = np.zeros((BATCH, 3, *backbone.space.preprocess.size), np.uint8)
    backbone.encode_images(pixels)
    machine.gpus[0].counts.clear()
    backbone.encode_images(pixels)
    return Counter(machine.gpus[0].counts)


def test_a_batch_costs_one_copy_each_way_and_one_wait(monkeypatch):
    """The budget of one batch, whatever its size; nothing is copied from pageable memory."""
    with pretended_gpus(monkeypatch) as machine:
        cost = cost_of_a_batch(machine, load_backbone(Recipe(BUNDLED_INFO.name), device="cuda"))
    assert cost.pop("kernels") <= MAX_KERNELS
    assert {name: cost[name] for name in BUDGET} == BUDGET


def test_pageable_memory_and_a_number_that_the_host_wants_leave_the_budget(monkeypatch):
    """A batch that is not pinned, and a forward pass that asks for a number in its middle."""
    upload, normalize = Backbone._to_device, Backbone.normalize
    with pretended_gpus(monkeypatch) as machine:
        backbone = load_backbone(Recipe(BUNDLED_INFO.name), device="cuda")
        monkeypatch.setattr(Backbone, "_to_device", lambda self, batch: torch.from_numpy(batch).to("cuda"))
        assert cost_of_a_batch(machine, backbone)["pageable_copies"] == 1
        monkeypatch.setattr(Backbone, "_to_device", upload)
        monkeypatch.setattr(
            Backbone, "normalize", lambda self, batch: normalize(self, batch) * float(batch.float().max() >= 0)
        )
        assert cost_of_a_batch(machine, backbone)["synchronizations"] == 2


def use_a_constant_of_the_cpu(monkeypatch):
    """Leave the mean on the CPU."""
    normalize = Backbone.normalize

    def broken(self, batch):
        self._mean = self._mean.cpu()
        return normalize(self, batch)

    monkeypatch.setattr(Backbone, "normalize", broken)


def use_the_other_device(monkeypatch):
    """Put the mean on the second device."""
    normalize = Backbone.normalize

    def broken(self, batch):
        self._mean = self._mean.to("cuda:1")
        return normalize(self, batch)

    monkeypatch.setattr(Backbone, "normalize", broken)


def recycle_a_buffer_too_early(monkeypatch):
    """Fill a pinned buffer, start its copy, and clear it for the next batch without waiting."""

    def broken(self, batch):
        buffer = torch.from_numpy(np.array(batch)).pin_memory()
        on_device = buffer.to("cuda", non_blocking=True)
        buffer.zero_()
        return on_device

    monkeypatch.setattr(Backbone, "_to_device", broken)


@pytest.mark.parametrize(
    ("break_something", "fault"),
    [
        (use_a_constant_of_the_cpu, "same device.*cpu.*cuda:0"),
        (use_the_other_device, "same device.*cuda:0.*cuda:1"),
        (recycle_a_buffer_too_early, "pinned buffer was rewritten"),
    ],
)
def test_a_broken_pipeline_is_noticed(monkeypatch, embed, break_something, fault):
    """Mixed devices and buffers that are used too early end the test, also where somebody catches the exception."""

    def run():
        with pretended_gpus(monkeypatch, 2):
            break_something(monkeypatch)
            with contextlib.suppress(Exception):
                embed(device="cuda:0", precision="fp32")

    with pytest.raises(DeviceFault, match=fault):
        run()


def test_vectors_that_are_read_before_they_arrive_are_wrong(monkeypatch):
    """A copy to the host that nobody waits for leaves something else in the buffer."""
    with pretended_gpus(monkeypatch) as machine:
        values = torch.ones(4, device="cuda").to("cpu", non_blocking=True)
        early = values.numpy().copy()
        torch.cuda.synchronize()
        assert values.tolist() == [1.0] * 4
        assert early.tolist() != values.tolist()
        assert machine.gpus[0].counts["synchronizations"] == 1


def test_precision_that_nobody_compares_is_seen_in_the_vectors(monkeypatch, embed, reference):
    """Bf16 without its comparison leaves the limit; TF32 leaves the vectors of fp32."""
    with pretended_gpus(monkeypatch):
        monkeypatch.setattr(Agreement, "is_close", True)
        _, vectors = embed(precision="bf16")
    monkeypatch.undo()
    assert not compare_vectors(reference, vectors).is_close
    with pretended_gpus(monkeypatch):
        exact = embed(precision="fp32")[1]
        monkeypatch.setattr(base, "true_fp32", lambda device: contextlib.nullcontext())
        rounded = embed(precision="fp32")[1]
    assert np.abs(exact - reference).max() < 1e-5 < np.abs(rounded - reference).max()


def test_an_out_of_memory_that_is_not_recognized_ends_the_run(monkeypatch, store, jpegs):
    """Without its policy the run above would fail: the cap raises what CUDA raises."""
    monkeypatch.setattr(batch_runner, "is_out_of_memory", lambda error: False)
    with pretended_gpus(monkeypatch) as machine:
        store._session.backbone()
        machine.gpus[0].capacity = machine.gpus[0].used + 1000
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            store.embed(jpegs, batch_size=BATCH)


# ---- the benchmark


def test_bench_reports_a_precision_that_it_cannot_measure(jpegs):
    """Bf16 moves the vectors of random weights: one line that names the cure, not a division by zero."""
    settings = BenchSettings("timm/test_resnet", max_images=4, seconds_per_stage=0.01, precision="bf16", device="cpu")
    with pytest.raises(
        BadBackbone, match=r"cannot be measured: --precision bf16 gives other vectors.*--precision fp32"
    ):
        bench.run(jpegs, settings)


def test_bench_measures_half_precision_and_compares_with_fp32(monkeypatch, jpegs):
    """The precision that a run would use is measured, and is not left behind for the next runtime."""
    monkeypatch.setattr(Agreement, "is_close", True)  # random weights tell images apart too little
    settings = BenchSettings("timm/test_resnet", max_images=8, seconds_per_stage=0.01, threads=1)
    loaded = []
    monkeypatch.setattr(bench, "load", lambda *args, **kw: loaded.append(load_backbone(*args, **kw)) or loaded[-1])
    monkeypatch.setattr(bench, "MAX_BATCH_SIZE", 2)
    with pretended_gpus(monkeypatch):
        result = bench.run(jpegs, settings)
    assert (result.device, result.precision) == ("cuda", "fp16")
    assert [runtime.precision for runtime in result.runtimes] == ["fp16"]
    assert loaded[0].precision == "fp32"
