"""How a run turns files into pixels: Pillow's way, or a faster one that has proved to give the same vectors.

Some of the run's own images go every way and through the eager network. A way whose vectors differ from Pillow's by
more than :data:`~embedstore.backbones.runtimes.runtime.MIN_COSINE` allows, plain or centered, is not used; of the
others the fastest is. Where a faster way would save less time than the comparison costs, nothing is compared and Pillow
is used.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.backbones.runtimes.runtime import Agreement, compare_vectors
from embedstore.errors import BadOption, ImageError, RuntimeMismatch
from embedstore.media.image import preprocess as reference
from embedstore.pipeline.decoder import Decoder
from embedstore.space import Preprocess
from embedstore.types import ContentInfo

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

PrepareFunction = Callable[[bytes, Preprocess], tuple[Any, ContentInfo]]  # pixels (3, H, W) uint8, an array or a tensor
COMPARISON_IMAGES = 8  # images that are compared
MIN_IMAGES_TO_COMPARE = 128  # images of a run: with fewer, even the timing costs more than it saves
AUTOMATIC = (Decoder.GPU_RESIZE, Decoder.FAST)  # what `auto` may choose; why not GPU_JPEG is said in gpu_decode
MIN_SAVING_RATIO = 1.0  # how many times the cost of the comparison must be saved
MIN_SPEEDUP = 1.1  # how much faster than Pillow a way must be: less is noise


@dataclass(frozen=True)
class DecodeMethod:
    """The way from files to pixels that a run uses.

    Attributes:
        decoder: its name.
        prepare: from the bytes of a file to pixels.
        agreement: with Pillow's vectors, if they were compared.
        notices: one sentence for each way that was refused.
    """

    decoder: Decoder
    prepare: PrepareFunction
    agreement: Agreement | None = None
    notices: tuple[str, ...] = ()

    def initialize_thread(self) -> None:
        """Prepare a thread that decodes."""
        if self.decoder is not Decoder.PILLOW:
            use_one_torch_thread()

    def on_devices(self, devices: Sequence[str], images_per_turn: Callable[[], int]) -> DecodeMethod:
        """Return this method with the work of a device spread over several: each resizes what it will embed.

        Args:
            devices: the devices of the run.
            images_per_turn: how many images in a row one device gets: those of a batch.
        """
        if self.decoder not in (Decoder.GPU_RESIZE, Decoder.GPU_JPEG) or len(devices) < 2:
            return self
        prepares = [fast_decoders(device)[self.decoder] for device in devices]
        return replace(self, prepare=DeviceTurns(prepares, images_per_turn).prepare)


class DeviceTurns:
    """Prepares images on several devices, a batch on each in turn; for many threads.

    Args:
        prepares: one function per device.
        images_per_turn: how many images in a row one device gets.
    """

    def __init__(self, prepares: Sequence[PrepareFunction], images_per_turn: Callable[[], int]) -> None:
        self._turns, self._images_per_turn = itertools.cycle(prepares), images_per_turn
        self._left = 0
        self._lock = threading.Lock()

    def prepare(self, data: bytes, preprocess: Preprocess) -> tuple[Any, ContentInfo]:
        """Decode, resize and crop one file on the device whose turn it is."""
        with self._lock:
            if self._left == 0:
                self._prepare, self._left = next(self._turns), max(1, self._images_per_turn())
            self._left -= 1
            prepare = self._prepare
        return prepare(data, preprocess)


PILLOW_METHOD = DecodeMethod(Decoder.PILLOW, reference.prepare)


def fast_decoders(device: str) -> dict[Decoder, PrepareFunction]:
    """Return every faster way that the device allows, the fastest by expectation first."""
    from embedstore.media.image import fast_jpeg, gpu_decode

    ways: dict[Decoder, PrepareFunction] = {Decoder.FAST: fast_jpeg.prepare}
    if device.startswith("cuda"):
        ways = {Decoder.GPU_RESIZE: gpu_decode.GpuImagePreparer(device).prepare, **ways}
        if jpeg := gpu_decode.torchvision_jpeg_decoder(device):
            ways = {Decoder.GPU_JPEG: gpu_decode.GpuImagePreparer(device, jpeg).prepare, **ways}
    return ways


def choose_decode_method(
    backbone: Backbone, sample: Sequence[bytes], *, requested: Decoder, expected_images: int, threads: int
) -> DecodeMethod:
    """Choose how a run turns files into pixels.

    Args:
        backbone: the loaded network.
        sample: some of the run's own files, ordinary ones.
        requested: what the user requested.
        expected_images: how many images the run has to decode.
        threads: the size of the decoding pool.

    Raises:
        RuntimeMismatch: if the requested decoder gives other vectors.
        BadOption: if the requested decoder needs a GPU and the run is on another device.
    """
    preprocess = backbone.space.preprocess
    if (
        requested is Decoder.PILLOW
        or preprocess is None
        or (requested is Decoder.AUTO and expected_images < MIN_IMAGES_TO_COMPARE)
    ):
        return PILLOW_METHOD
    ways = fast_decoders(backbone.device)
    candidates = {d: way for d, way in ways.items() if requested is d or (requested is Decoder.AUTO and d in AUTOMATIC)}
    if not candidates:
        raise BadOption(f"--decoder {requested} needs a GPU, and this run is on {backbone.device}; leave it out")
    sample, pixels = _decodable(sample, preprocess)
    if not len(pixels):
        return PILLOW_METHOD
    with preserve_torch_threads():
        use_one_torch_thread()
        pillow_seconds = seconds_per_image(reference.prepare, sample, preprocess)
        seconds = {d: seconds_per_image(way, sample, preprocess) for d, way in candidates.items()}
    if requested is Decoder.AUTO:
        seconds = {d: t for d, t in seconds.items() if t * MIN_SPEEDUP < pillow_seconds}
        saving = (pillow_seconds - min(seconds.values(), default=pillow_seconds)) * expected_images / threads
        if saving < MIN_SAVING_RATIO * comparison_seconds(backbone, pixels):
            return PILLOW_METHOD
    by_speed = {d: candidates[d] for d in sorted(seconds, key=seconds.__getitem__)}
    return _first_in_agreement(backbone, preprocess, by_speed, sample, pixels, requested)


def use_one_torch_thread() -> None:
    """Let torch compute on the calling thread alone: as many images are decoded at once as there are cores.

    Two OpenMP threads for each of two decoders would spend most of their time waiting for each other.
    """
    import torch

    torch.set_num_threads(1)


@contextmanager
def preserve_torch_threads() -> Iterator[Callable[[], None]]:
    """Restore torch's number of threads at the end.

    Yields:
        A function that sets the number as it was, for other threads to call.
    """
    import torch

    threads = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(threads)
    finally:
        torch.set_num_threads(threads)


def _first_in_agreement(
    backbone: Backbone,
    preprocess: Preprocess,
    candidates: dict[Decoder, PrepareFunction],
    sample: Sequence[bytes],
    pixels: Any,
    requested: Decoder,
) -> DecodeMethod:
    """Return the first candidate whose vectors are those of Pillow's ``pixels``, or Pillow if there is none."""
    notices: list[str] = []
    expected = backbone.encode_images(pixels)
    for decoder, prepare in candidates.items():
        vectors = backbone.encode_images(stack_pixels([prepare(data, preprocess)[0] for data in sample]))
        agreement = compare_vectors(expected, vectors)
        if agreement.is_close:
            return DecodeMethod(decoder, prepare, agreement, tuple(notices))
        problem = (
            f"--decoder {decoder} gives other vectors than Pillow on your images ({agreement}; 0.9999 is the least)"
        )
        if requested is decoder:
            raise RuntimeMismatch(f"{problem}; it is not used: --decoder pillow")
        notices.append(f"{problem}; it is not used")
    return DecodeMethod(Decoder.PILLOW, reference.prepare, None, tuple(notices))


def _decodable(files: Sequence[bytes], preprocess: Preprocess) -> tuple[list[bytes], Any]:
    """Return the files that can be decoded, and their pixels by Pillow ``(B, 3, H, W)``."""
    sample, pixels = [], []
    for data in files[:COMPARISON_IMAGES]:
        try:
            pixels.append(reference.prepare(data, preprocess)[0])
        except ImageError:
            continue
        sample.append(data)
    return sample, np.stack(pixels) if pixels else np.empty(0, np.uint8)


def seconds_per_image(prepare: PrepareFunction, sample: Sequence[bytes], preprocess: Preprocess) -> float:
    """Return the seconds that one thread takes for an image, after a warm-up; work on a device is waited for."""
    prepare(sample[0], preprocess)
    begin = time.perf_counter()
    pixels = [prepare(data, preprocess)[0] for data in sample]
    if not isinstance(pixels[-1], np.ndarray):
        pixels[-1].cpu()
    return (time.perf_counter() - begin) / len(sample)


def comparison_seconds(backbone: Backbone, pixels: Any) -> float:
    """Return the seconds that comparing one way costs, estimated from the forward pass of one image."""
    backbone.encode_images(pixels[:1])
    begin = time.perf_counter()
    backbone.encode_images(pixels[:1])
    return 2 * COMPARISON_IMAGES * (time.perf_counter() - begin)


def stack_pixels(pixels: Sequence[Any]) -> Any:
    """Return one batch: an array, or a tensor on the device where most of the images are that are on one."""
    devices = Counter(x.device for x in pixels if not isinstance(x, np.ndarray))
    if not devices:
        return np.stack(pixels)
    device = devices.most_common(1)[0][0]
    import torch

    return torch.stack([torch.as_tensor(x).to(device) for x in pixels])
