"""How a run turns files into pixels: by Pillow, with the same bytes, or in a way that gives the same vectors.

On the CPU ``auto`` is the exact way, which needs no proof and no PyTorch. Otherwise some of the run's own images go
both ways and through the network: a way whose vectors differ from Pillow's by more than
:data:`~embedstore.backbones.runtimes.runtime.MIN_COSINE` allows, plain or centered, is not used. No time is measured,
so a command that is repeated decodes in the same way.
"""

from __future__ import annotations

import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from embedstore.backbones.runtimes.runtime import Agreement, compare_vectors
from embedstore.errors import BadOption, ImageError, RuntimeMismatch
from embedstore.media.image import plain_jpeg
from embedstore.media.image import preprocess as reference
from embedstore.pipeline.decoder import Decoder
from embedstore.space import Preprocess, Space
from embedstore.types import ContentInfo

PrepareFunction = Callable[[bytes, Preprocess], tuple[Any, ContentInfo]]  # pixels (3, H, W) uint8, an array or a tensor
# Pixels and facts of some of the files, by place; the others are prepared one by one.
PrepareTogether = Callable[[Sequence[bytes], Preprocess], Mapping[int, tuple[Any, ContentInfo]]]
COMPARISON_IMAGES = 8  # images that are compared
FORWARDS_BESIDE = 4  # forward passes during which a decoder of the device decodes the images that are compared


class ImageNetwork(Protocol):
    """A network with images on its way in, whatever runs it.

    Attributes:
        space: the space of its vectors.
        device: where it computes.
    """

    @property
    def space(self) -> Space: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102

    def encode_images(self, batch: Any) -> NDArray[np.float32]:
        """Return the vectors of uint8 images ``(B, 3, H, W)``."""


@dataclass(frozen=True)
class DecodeMethod:
    """The way from files to pixels that a run uses.

    Attributes:
        decoder: its name.
        prepare: from the bytes of a file to pixels.
        agreement: the agreement with Pillow's vectors, if they were compared.
        notices: one sentence for each way that was refused.
        together: from the bytes of some files to the pixels of those that are decoded at once; None if none are.
    """

    decoder: Decoder
    prepare: PrepareFunction
    agreement: Agreement | None = None
    notices: tuple[str, ...] = ()
    together: PrepareTogether | None = None

    def prepare_together(self, files: Sequence[bytes], preprocess: Preprocess) -> Mapping[int, tuple[Any, ContentInfo]]:
        """Return pixels and facts, by place, of the files that are decoded at once; the others are for ``prepare``."""
        return self.together(files, preprocess) if self.together else {}

    def initialize_thread(self) -> None:
        """Prepare a thread that decodes."""
        if self.decoder not in WITHOUT_TORCH:
            use_one_torch_thread()

    def on_devices(self, devices: Sequence[str], images_per_turn: Callable[[], int]) -> DecodeMethod:
        """Return this method with the work of a device spread over several: each resizes what it will embed.

        Args:
            devices: the devices of the run.
            images_per_turn: how many images in a row one device gets: those of a batch.
        """
        if self.decoder not in (Decoder.GPU_RESIZE, Decoder.GPU_JPEG) or len(devices) < 2:
            return self
        turns = DeviceTurns([fast_decoders(device)[self.decoder] for device in devices], images_per_turn)
        return replace(self, prepare=turns.prepare, together=turns.prepare_together)


class DeviceTurns:
    """Prepares images on several devices, a batch on each in turn; for many threads.

    Args:
        methods: one way per device.
        images_per_turn: how many images in a row one device gets.
    """

    def __init__(self, methods: Sequence[DecodeMethod], images_per_turn: Callable[[], int]) -> None:
        self._turns, self._images_per_turn = itertools.cycle(methods), images_per_turn
        self._left = 0
        self._lock = threading.Lock()

    def prepare(self, data: bytes, preprocess: Preprocess) -> tuple[Any, ContentInfo]:
        """Decode, resize and crop one file on the device whose turn it is."""
        return self._take(1).prepare(data, preprocess)

    def prepare_together(self, files: Sequence[bytes], preprocess: Preprocess) -> Mapping[int, tuple[Any, ContentInfo]]:
        """Decode, resize and crop some of the files on the device whose turn it is."""
        with self._lock:
            method = self._current()
        prepared = method.prepare_together(files, preprocess)
        self._take(len(prepared))
        return prepared

    def _take(self, images: int) -> DecodeMethod:
        """Return the way whose turn it is, and count what it gets."""
        with self._lock:
            method = self._current()
            self._left -= images
        return method

    def _current(self) -> DecodeMethod:
        """Return the way whose turn it is; the lock is held."""
        if self._left <= 0:
            self._method, self._left = next(self._turns), max(1, self._images_per_turn())
        return self._method


PILLOW_METHOD = DecodeMethod(Decoder.PILLOW, reference.prepare)
EXACT_METHOD = DecodeMethod(Decoder.EXACT, plain_jpeg.prepare)
WITHOUT_TORCH = (Decoder.PILLOW, Decoder.EXACT)


def fast_decoders(device: str) -> dict[Decoder, DecodeMethod]:
    """Return every faster way that the device allows."""
    from embedstore.media.image import fast_jpeg, gpu_decode, hardware_jpeg

    methods = [DecodeMethod(Decoder.FAST, fast_jpeg.prepare)]
    if device.startswith("cuda"):
        resize = DecodeMethod(Decoder.GPU_RESIZE, gpu_decode.GpuImagePreparer(device).prepare)
        methods.append(resize)
        if jpeg := hardware_jpeg.torchvision_jpeg_decoder(device):
            together = hardware_jpeg.HardwareJpegs(device, jpeg).prepare_together
            methods.append(replace(resize, decoder=Decoder.GPU_JPEG, together=together))
    return {method.decoder: method for method in methods}


def choose_decode_method(
    network: ImageNetwork, read_sample: Callable[[], Sequence[bytes]], *, requested: Decoder
) -> DecodeMethod:
    """Choose how a run turns files into pixels: by the request and the device, and by no measured time.

    Args:
        network: embeds the images that are compared.
        read_sample: returns some of the run's own files, ordinary ones; called only to compare.
        requested: what the user requested.

    Raises:
        RuntimeMismatch: if the requested decoder gives other vectors.
        BadOption: if the requested decoder needs a GPU and the run is on another device.
    """
    preprocess = network.space.preprocess
    if requested is Decoder.PILLOW or preprocess is None:
        return PILLOW_METHOD
    decoder = _automatic(network.device) if requested is Decoder.AUTO else requested
    if decoder is Decoder.EXACT:
        return EXACT_METHOD
    method = fast_decoders(network.device).get(decoder)
    if method is None:
        raise BadOption(f"--decoder {requested} needs a GPU, and this run is on {network.device}; leave it out")
    return _compare(network, read_sample(), method, is_required=requested is not Decoder.AUTO)


def _automatic(device: str) -> Decoder:
    """Return what ``auto`` tries; why it is never the JPEG decoder of a GPU is said in decode_stream."""
    return Decoder.GPU_RESIZE if device.startswith("cuda") else Decoder.EXACT


def use_one_torch_thread() -> None:
    """Let torch compute on the calling thread alone: as many images are decoded at once as there are cores.

    Two OpenMP threads for each of two decoders would spend most of their time waiting for each other.
    """
    import torch

    torch.set_num_threads(1)


@contextmanager
def preserve_torch_threads() -> Iterator[Callable[[], None]]:
    """Restore torch's number of threads at the end; do nothing in a process that has not imported it.

    Yields:
        A function that sets the number as it was, for other threads to call.
    """
    if sys.modules.get("torch") is None:
        yield lambda: None
        return
    import torch

    threads = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(threads)
    finally:
        torch.set_num_threads(threads)


def _compare(
    network: ImageNetwork, sample: Sequence[bytes], method: DecodeMethod, *, is_required: bool
) -> DecodeMethod:
    """Return the method if its vectors are those of Pillow; else the exact one, or raise if it is required."""
    preprocess = network.space.preprocess
    if preprocess is None:
        return PILLOW_METHOD
    sample, pixels = decodable_images(sample, preprocess, COMPARISON_IMAGES)
    if not len(pixels):
        return EXACT_METHOD
    expected = network.encode_images(pixels)
    found = _vectors_by(method, network, preprocess, sample, pixels)
    agreements = [compare_vectors(expected, vectors) for vectors in found]
    agreement = next((a for a in agreements if not a.is_close), agreements[0])
    if agreement.is_close:
        return replace(method, agreement=agreement)
    problem = (
        f"--decoder {method.decoder} gives other vectors than Pillow on your images ({agreement}; 0.9999 is the least)"
    )
    if is_required:
        raise RuntimeMismatch(f"{problem}; it is not used: --decoder pillow")
    return replace(EXACT_METHOD, notices=(f"{problem}; it is not used",))


def _vectors_by(
    method: DecodeMethod,
    network: ImageNetwork,
    preprocess: Preprocess,
    files: Sequence[bytes],
    pixels: NDArray[np.uint8],
) -> list[NDArray[np.float32]]:
    """Return what must be the vectors of some files: those of the images that a method prepares, and others.

    A decoder of the device prepares them while the network embeds the pixels again, as in a run: if it writes into
    memory of queued work, it spoils its own images or the vectors beside them.
    """
    beside: list[NDArray[np.float32]] = []
    with preserve_torch_threads(), ThreadPoolExecutor(1, initializer=use_one_torch_thread) as thread:
        preparing = thread.submit(_prepare_all, method, files, preprocess)
        if method.together is not None:
            beside = [network.encode_images(pixels) for _ in range(FORWARDS_BESIDE)]
        return [network.encode_images(preparing.result()), *beside]


def _prepare_all(method: DecodeMethod, files: Sequence[bytes], preprocess: Preprocess) -> Any:
    """Return the pixels of some files as one batch, those first that are decoded at once."""
    together = method.prepare_together(files, preprocess)
    rest = (n for n in range(len(files)) if n not in together)
    found = {n: prepared[0] for n, prepared in together.items()}
    found |= {n: method.prepare(files[n], preprocess)[0] for n in rest}
    return stack_pixels([found[n] for n in range(len(files))])


def decodable_images(files: Sequence[bytes], preprocess: Preprocess, most: int) -> tuple[list[bytes], Any]:
    """Return those of the first files that can be decoded, and their pixels by Pillow ``(B, 3, H, W)``."""
    sample, pixels = [], []
    for data in files[:most]:
        try:
            pixels.append(reference.prepare(data, preprocess)[0])
        except ImageError:
            continue
        sample.append(data)
    return sample, np.stack(pixels) if pixels else np.empty(0, np.uint8)


def stack_pixels(pixels: Sequence[Any]) -> Any:
    """Return one batch: an array, or a tensor on the device where most of the images are that are on one."""
    devices = Counter(x.device for x in pixels if not isinstance(x, np.ndarray))
    if not devices:
        return np.stack(pixels)
    device = devices.most_common(1)[0][0]
    import torch

    return torch.stack([torch.as_tensor(x).to(device) for x in pixels])
