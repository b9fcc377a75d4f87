"""Half precision is used only where it gives the vectors of fp32, and an overflow costs nothing."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import nn

from embedstore.backbones.batch_runner import BatchRunner
from embedstore.backbones.forward_gate import ForwardGate
from embedstore.backbones.loading import half_precision_candidates, load, training_precision
from embedstore.backbones.precision import HalfWeights
from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder, prepare_eager
from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.runtime import Runtime, compare_vectors
from embedstore.backbones.runtimes.runtime_choice import FirstBatch
from embedstore.backbones.runtimes.runtime_plan import RuntimePlan
from embedstore.devices import is_out_of_memory
from embedstore.errors import BadBackbone, RuntimeMismatch
from embedstore.media.image.preprocess import prepare
from embedstore.space import Recipe
from tests.conftest import TINY


class Overflowing(nn.Module):
    """A network whose bright images exceed the range of fp16 in its middle; its vectors are small again."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 8)
        self.down = nn.Linear(8, 4)
        with torch.no_grad():
            for layer, scale in ((self.up, 1e5), (self.down, 1e-5)):
                layer.bias.zero_()
                layer.weight.copy_(scale * torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(images.mean((2, 3))))


def overflowing(**_: object) -> nn.Module:
    """Return the network, as a factory of a recipe."""
    return Overflowing()


def images(backbone, brightness) -> np.ndarray:
    """Return noisy images of some brightness each, as the backbone takes them."""
    size = backbone.space.preprocess.size
    noise = np.random.default_rng(0).integers(0, 3, (len(brightness), 3, *size))
    return (np.array(brightness).reshape(-1, 1, 1, 1) + noise).astype(np.uint8)


def encoder_of(backbone, tmp_path) -> AdaptiveEncoder:
    """Return the encoder of a run."""
    return AdaptiveEncoder([backbone], Runtime.AUTO, expected_images=100)


@pytest.fixture(scope="module")
def mobilenet(shared_data):
    """Load MobileNetV2 with its real weights for a precision."""
    weights = shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors"
    arguments = {"pad_type": "same", "bn_eps": 1e-3}
    preprocess = {"mean": 0.5, "std": 0.5}

    def of(precision: str):
        recipe = Recipe("timm/mobilenetv2_100", weights=str(weights), args=arguments, preprocess=preprocess)
        return load(recipe, device="cpu", precision=precision)

    return of


@pytest.fixture(scope="module")
def photos(unpacked):
    """32 real photos as the network takes them."""
    files = sorted(unpacked("imagenet250").rglob("*.JPEG"))[:32]
    return lambda preprocess: np.stack([prepare(f.read_bytes(), preprocess)[0] for f in files])


def test_a_half_precision_that_moves_vectors_is_refused(mobilenet, photos, tmp_path):
    """bf16 moves MobileNetV2's vectors below the limit: requested it is an error that names the cure."""
    backbone = mobilenet("bf16")
    encoder = encoder_of(backbone, tmp_path)
    with pytest.raises(RuntimeMismatch, match=r"--precision bf16 gives other vectors than fp32.*--precision fp32"):
        encoder.encode_images(photos(backbone.space.preprocess))
    assert backbone.precision == "fp32"


@pytest.mark.slow
def test_a_half_precision_that_agrees_is_used_and_recorded(mobilenet, photos, tmp_path):
    """fp16 keeps MobileNetV2's vectors; the weights come back to the bit at the end of the run."""
    backbone = mobilenet("fp16")
    pixels = photos(backbone.space.preprocess)
    exact = backbone.encode_images(pixels)
    encoder = encoder_of(backbone, tmp_path)
    np.testing.assert_array_equal(encoder.encode_images(pixels), exact)  # the first batch is fp32
    half = encoder.encode_images(pixels)
    assert encoder.precision == "fp16"
    assert encoder.choice.precision.agreement.is_close
    assert not np.array_equal(half, exact)
    assert compare_vectors(exact, half).is_close
    encoder.close()
    assert backbone.precision == "fp32"
    np.testing.assert_array_equal(backbone.encode_images(pixels), exact)


@pytest.mark.slow
def test_half_precision_is_worth_more_than_folded_normalizations(mobilenet, photos, tmp_path):
    """Folded, MobileNetV2 leaves the limit in fp16; unfolded it keeps it. Then it is not folded."""
    backbone = mobilenet("fp16")
    pixels = photos(backbone.space.preprocess)
    pool, first = DevicePool([backbone]), FirstBatch(pixels, backbone.encode_images(pixels))
    choice = prepare_eager(pool, first, RuntimePlan(Runtime.EAGER, fold_batchnorms=True))
    assert backbone.precision == "fp16"
    assert choice.folded_batchnorms == 0
    assert choice.precision.agreement.is_close
    pool.set_precision("fp32")
    np.testing.assert_array_equal(backbone.encode_images(pixels), first.vectors)


def test_auto_tries_the_next_precision_and_says_what_it_refused(mobilenet, photos, tmp_path):
    """What a card offers is tried in order; what does not agree is named."""
    backbone = mobilenet("bf16")
    backbone.half_precisions, backbone.must_be_half = ("bf16", "fp16"), False
    encoder = encoder_of(backbone, tmp_path)
    encoder.encode_images(photos(backbone.space.preprocess))
    assert encoder.precision == "fp16"
    (notice,) = encoder.choice.precision.notices
    assert "bf16" in notice


def test_what_overflows_in_half_precision_is_computed_in_fp32(tmp_path):
    """A bright image overflows in fp16; its vector is that of fp32, in the same run, and the others stay fast."""
    name = f"{__name__}:overflowing"
    preprocess = {"size": 8, "mean": 0.5, "std": 0.5}
    backbone = load(Recipe(name, preprocess=preprocess), device="cpu", precision="fp16", allow_code={name})
    backbone.set_precision("fp16")
    pixels = images(backbone, [128, 250, 128, 0, 128])
    vectors = backbone.encode_images(pixels)
    backbone.set_precision("fp32")
    exact = backbone.encode_images(pixels)
    assert np.isfinite(vectors).all()
    assert compare_vectors(exact, vectors).min_cosine > 0.999


def test_the_candidates_of_a_device():
    """On a CPU auto is fp32; a requested precision is the only candidate."""
    assert half_precision_candidates("auto", "cpu") == ()
    assert half_precision_candidates("fp32", "cuda") == ()
    assert half_precision_candidates("bf16", "cpu") == ("bf16",)


def test_training_uses_the_precision_that_the_backbone_was_loaded_for():
    """The settings outweigh it."""
    backbone = load(Recipe(TINY, random_init=True), device="cpu", precision="bf16")
    assert training_precision("auto", backbone) == "bf16"
    assert training_precision("fp32", backbone) == "fp32"
    assert training_precision("auto", load(Recipe(TINY, random_init=True), device="cpu")) == "fp32"


def test_cast_weights_leave_normalizations_and_tied_weights_alone():
    """Only layers that autocast runs in half precision are cast, and every weight returns to the bit."""
    net = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 4)
    )
    net[5].weight = net[3].weight
    before = {name: p.clone() for name, p in net.named_parameters()}
    half = HalfWeights(net, torch.bfloat16)
    half.use_half()
    dtypes = {name: p.dtype for name, p in net.named_parameters()}
    assert {n for n, d in dtypes.items() if d == torch.bfloat16} == {"0.weight", "0.bias", "3.bias", "5.bias"}
    half.use_full()
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


# ---- memory


class Device:
    """A device with memory for so many images at once, whatever thread they belong to."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.used, self.sizes = capacity, 0, []
        self._lock = threading.Lock()

    def forward(self, batch: np.ndarray) -> np.ndarray:
        """Hold the memory of a batch for a moment; raise what torch raises where there is too little."""
        with self._lock:
            self.used += len(batch)
            is_full = self.used > self.capacity
        try:
            time.sleep(0.01)
            if is_full:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            self.sizes.append(len(batch))
            return batch.astype(np.float32)
        finally:
            with self._lock:
                self.used -= len(batch)


def run_in_threads(runner: BatchRunner, device: Device, threads: int, rows: int) -> list[np.ndarray]:
    """Encode rows on several threads at once."""
    results: list = [None] * threads

    def encode(at: int) -> None:
        results[at] = runner.run(np.full((rows, 4), at), device.forward)

    workers = [threading.Thread(target=encode, args=(at,)) for at in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return results


def test_batches_that_fill_the_memory_together_keep_their_size():
    """Two batches of 64 do not fit at once, but each does: nothing is halved."""
    device, runner = Device(100), BatchRunner(4, 64)
    results = run_in_threads(runner, device, threads=2, rows=256)
    assert runner.batch_size == 64
    assert [np.unique(r).tolist() for r in results] == [[0], [1]]


def test_a_batch_that_does_not_fit_alone_is_halved_once():
    """The memory holds 40: 64 becomes 32, not 16, whatever the threads do."""
    device, runner = Device(40), BatchRunner(4, 64)
    run_in_threads(runner, device, threads=2, rows=256)
    assert runner.batch_size == 32


def test_an_image_that_fits_alone_is_never_said_not_to_fit():
    """Single images of eight threads fill a memory of one."""
    device, runner = Device(1), BatchRunner(4, 1)
    results = run_in_threads(runner, device, threads=8, rows=3)
    assert [r.shape for r in results] == [(3, 4)] * 8


def test_an_image_that_does_not_fit_alone_is_an_error():
    """The device and the cure are named."""
    with pytest.raises(BadBackbone, match="does not fit into the memory of"):
        BatchRunner(4, 1).run(np.zeros((1, 4)), Device(0).forward)


@pytest.mark.parametrize(
    ("message", "is_memory"),
    [
        ("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", True),
        ("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`", True),
        ("cuFFT error: CUFFT_ALLOC_FAILED", True),
        ("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate", True),
        ("CUDA out of memory", True),
        ("CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasSgemm`", False),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", False),
        ("CUBLAS_STATUS_EXECUTION_FAILED", False),
        ("CUDA error: an illegal memory access was encountered", False),
    ],
)
def test_which_errors_are_a_lack_of_memory(message, is_memory):
    """The libraries beneath torch name it in their own way."""
    assert is_out_of_memory(RuntimeError(message)) is is_memory


def test_who_is_alone_waits_for_the_others_and_keeps_new_ones_out():
    """A change of the network never meets a forward pass."""
    gate, state, errors = ForwardGate(), {"forward": 0, "alone": 0}, []

    def forward() -> None:
        for _ in range(200):
            with gate.forward():
                state["forward"] += 1
                if state["alone"]:
                    errors.append("a forward pass during a change")
                state["forward"] -= 1

    def change() -> None:
        for _ in range(50):
            with gate.alone():
                state["alone"] += 1
                if state["forward"] or state["alone"] > 1:
                    errors.append("a change during something")
                state["alone"] -= 1

    threads = [threading.Thread(target=t) for t in (forward, forward, forward, change, change)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert errors == []
