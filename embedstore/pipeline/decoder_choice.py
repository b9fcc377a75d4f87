"""Which way from a file to pixels a run takes: Pillow's, or a quicker one that has proved to give the same vectors.

Some of the run's own images go every way and through the eager network. A way whose vectors are further off than
:data:`runtime.LEAST`, plain or centred, is not taken; of the others the fastest is. Where a
quicker way would save less than the comparison costs, nothing is compared and Pillow stays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.backbones.runtimes.runtime import Agreement, compare_vectors
from embedstore.errors import BadBackbone, ImageError, RuntimeMismatch
from embedstore.media.image import preprocess
from embedstore.pipeline.decode_method import Decoder
from embedstore.space import Preprocess
from embedstore.types import ImageInfo

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

PrepareFunction = Callable[[bytes, Preprocess], tuple[Any, ImageInfo]]  # pixels (3, H, W) uint8, an array or a tensor
COMPARISON_IMAGES = 8  # images that are compared
MIN_IMAGES_TO_COMPARE = 128  # images of a run: with fewer, not even looking at the clock pays
MIN_SAVING_RATIO = 1.0  # times what the comparison costs must be saved
MIN_SPEEDUP = 1.1  # times as fast as Pillow a way must be: less is noise


@dataclass(frozen=True)
class DecodeMethod:
    """What a run takes.

    Attributes:
        decoder: its name. prepare: a file to pixels. agreement: with Pillow, where it was compared.
        notices: what a person should know.
    """

    decoder: Decoder
    prepare: PrepareFunction
    agreement: Agreement | None = None
    notices: tuple[str, ...] = ()

    def initialize_thread(self) -> None:
        """Of every thread that decodes."""
        if self.decoder is not Decoder.PILLOW:
            use_one_torch_thread()


PILLOW_METHOD = DecodeMethod(Decoder.PILLOW, preprocess.prepare)


def fast_decoders(device: str) -> dict[Decoder, PrepareFunction]:
    """Every quicker way on a device, the likely fastest first."""
    from embedstore.media.image import fast_jpeg
    from embedstore.media.image import gpu_decode as on

    found: dict[Decoder, PrepareFunction] = {Decoder.QUICK: fast_jpeg.prepare}
    if device.startswith("cuda"):
        found = {Decoder.DEVICE: on.GpuImagePreparer(device).prepare, **found}
        if jpeg := on.torchvision_jpeg_decoder(device):
            found = {Decoder.HARDWARE: on.GpuImagePreparer(device, jpeg).prepare, **found}
    return found


def choose_decode_method(
    backbone: Backbone, sample: Sequence[bytes], *, requested: Decoder, expected_images: int, threads: int
) -> DecodeMethod:
    """The way of a run.

    Args:
        network: loaded. files: some of the run's own, ordinary ones. asked: what the person wants.
        images: how many are to come. threads: of the decoding pool.

    Raises:
        RuntimeMismatch: the decoder that was asked for gives other vectors. BadBackbone: it is not there.
    """
    p = backbone.space.preprocess
    if (
        requested is Decoder.PILLOW
        or p is None
        or (requested is Decoder.AUTO and expected_images < MIN_IMAGES_TO_COMPARE)
    ):
        return PILLOW_METHOD
    known = fast_decoders(backbone.device)
    candidates = {d: way for d, way in known.items() if requested in (Decoder.AUTO, d)}
    if not candidates:
        raise BadBackbone(f"--decoder {requested} needs a GPU, and this run is on {backbone.device}; leave it out")
    sample, reference = _usable(sample, p)
    if not len(reference):
        return PILLOW_METHOD
    with preserve_torch_threads():
        use_one_torch_thread()
        slow = _seconds(preprocess.prepare, sample, p)
        times = {d: _seconds(way, sample, p) for d, way in candidates.items()}
    if requested is Decoder.AUTO:
        times = {d: t for d, t in times.items() if t * MIN_SPEEDUP < slow}
        saved = (slow - min(times.values(), default=slow)) * expected_images / threads
        if saved < MIN_SAVING_RATIO * _cost(backbone, reference):
            return PILLOW_METHOD
    return _compared(
        backbone, {d: candidates[d] for d in sorted(times, key=times.__getitem__)}, sample, reference, requested
    )


def use_one_torch_thread() -> None:
    """Torch computes on the calling thread alone from now on: as many pictures are under way as there are cores.

    Two threads of OpenMP for each of two decoders would spend most of their time waiting for each other.
    """
    import torch

    torch.set_num_threads(1)


@contextmanager
def preserve_torch_threads() -> Iterator[Callable[[], None]]:
    """Gives what sets torch's threads to what they were, for other threads; the calling one has it back at the end."""
    import torch

    threads = torch.get_num_threads()
    try:
        yield lambda: torch.set_num_threads(threads)
    finally:
        torch.set_num_threads(threads)


def _compared(
    network: Backbone,
    candidates: dict[Decoder, PrepareFunction],
    sample: Sequence[bytes],
    reference: Any,
    asked: Decoder,
) -> DecodeMethod:
    """The first whose vectors are Pillow's."""
    p = network.space.preprocess
    assert p is not None  # noqa: S101 - choose has looked
    notices: list[str] = []
    wanted = network.encode_images(reference)
    for decoder, prepare in candidates.items():
        found = compare_vectors(wanted, network.encode_images(stack_pixels([prepare(d, p)[0] for d in sample])))
        if found.is_close:
            return DecodeMethod(decoder, prepare, found, tuple(notices))
        said = f"--decoder {decoder} gives other vectors than Pillow on your images ({found}; 0.9999 is the least)"
        if asked is decoder:
            raise RuntimeMismatch(f"{said}; it is not used: --decoder pillow")
        notices.append(f"{said}; it is not used")
    return DecodeMethod(Decoder.PILLOW, preprocess.prepare, None, tuple(notices))


def _usable(files: Sequence[bytes], p: Preprocess) -> tuple[list[bytes], Any]:
    """The files that can be decoded, and their pixels by Pillow."""
    sample, pixels = [], []
    for data in files[:COMPARISON_IMAGES]:
        try:
            pixels.append(preprocess.prepare(data, p)[0])
        except ImageError:
            continue
        sample.append(data)
    return sample, np.stack(pixels) if pixels else np.empty(0, np.uint8)


def _seconds(prepare: PrepareFunction, sample: Sequence[bytes], p: Preprocess) -> float:
    """Seconds an image takes one thread, after a first one; a device's work is waited for."""
    prepare(sample[0], p)
    begin = time.perf_counter()
    made = [prepare(data, p)[0] for data in sample]
    if not isinstance(made[-1], np.ndarray):
        made[-1].cpu()
    return (time.perf_counter() - begin) / len(sample)


def _cost(network: Backbone, pixels: Any) -> float:
    """Seconds that comparing one way costs, from one forward of one image."""
    network.encode_images(pixels[:1])
    begin = time.perf_counter()
    network.encode_images(pixels[:1])
    return 2 * COMPARISON_IMAGES * (time.perf_counter() - begin)


def stack_pixels(pixels: Sequence[Any]) -> Any:
    """One batch: an array, or a tensor on the device where one of them lies."""
    device = next((x.device for x in pixels if not isinstance(x, np.ndarray)), None)
    if device is None:
        return np.stack(pixels)
    import torch

    return torch.stack([torch.as_tensor(x).to(device) for x in pixels])
