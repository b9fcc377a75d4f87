"""How fast this machine embeds: every stage alone and all together, on a person's own images."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import embedstore as es
from embedstore.backbones import load, resolve_name
from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.batch_size import find_batch_size, throughput_function
from embedstore.backbones.runtimes.runtime import Runtime, has_onnx_export
from embedstore.errors import EmbedstoreError, ImageError, NoImages, RuntimeMismatch
from embedstore.media.image import preprocess
from embedstore.pipeline.decode_method import Decoder
from embedstore.pipeline.decoder_choice import (
    PrepareFunction,
    fast_decoders,
    preserve_torch_threads,
    use_one_torch_thread,
)
from embedstore.sources.local_files import read_file
from embedstore.sources.open import open_source
from embedstore.space import Preprocess, Recipe
from embedstore.timing import available_cores
from embedstore.types import ImageInfo, ImageRef

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

MAX_SCANNED_FILES = 20_000  # files of a folder among which the sample is drawn
GENERATED_IMAGES = 64  # pictures, where no folder is named
MAX_SAMPLE_BYTES = 256 << 20  # bytes of files in memory at once
MAX_BATCH_SIZE = 256  # images per forward that are tried
WRITE_TEST_VECTORS = 20_000  # vectors


@dataclass(frozen=True)
class BenchSettings:
    """What is measured.

    Attributes:
        backbone: its architecture counts, not its weights: random ones are drawn, and nothing is downloaded.
        args, preprocess: as of :func:`embedstore.create`.
        images: how many of the folder. seconds: that a stage is given.
        threads: of the decoding pool; None is one per core.
        runtime: ``auto`` measures eager and onnx, ``compile`` and the others only what they say.
    """

    backbone: str = "timm/resnet50"
    backbone_args: dict[str, Any] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    images: int = 256
    seconds: float = 5.0
    threads: int | None = None
    device: str = "auto"
    precision: str = "auto"
    runtime: Runtime = Runtime.AUTO


@dataclass(frozen=True)
class RuntimeBenchmark:
    """One runtime: images per second, its least cosine to eager, and why it could not be measured."""

    runtime: str
    images_per_second: float
    cosine: float | None = None
    why: str = ""


@dataclass(frozen=True)
class BenchResult:
    """Images per second of every stage; ``limit`` is what the stages together allow.

    Attributes:
        images, pixels: how many were measured, and their mean number of pixels.
        failed: files that could not be decoded.
        read, decode: on all threads; decode is that of the decoder of the whole run. decoders: every way from bytes to
            pixels. networks: every runtime. write: vectors per second.
        batches: images per second of the eager network by batch size; knee: from which more bring nothing.
        end_to_end: of a whole run with the fastest runtime and decoder; limit: decoding and network one after the
            other on the same cores, or the slower of the two beside a device.
        bottleneck: what the whole run says of itself.
    """

    backbone: str
    device: str
    precision: str
    threads: int
    cores: int
    images: int
    pixels: int
    failed: int
    read: float
    decode: float
    decoder: str
    decoders: dict[str, float]
    networks: list[RuntimeBenchmark]
    batches: dict[int, float]
    knee: int
    write: float
    runtime: str
    end_to_end: float
    limit: float
    bottleneck: str

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def run(
    folder: str | Path | None,
    settings: BenchSettings = BenchSettings(),
    progress: Callable[[str], None] = lambda _: None,
) -> BenchResult:
    """Measure every stage on a sample of a folder, or on generated pictures; memory is that of the sample.

    Args:
        folder: of images; None makes some. setting: what is measured. note: told what is being measured.

    Raises:
        SourceNotFound, NoImages: nothing to measure on. UnknownBackbone, BadBackbone: as of ``create``.
    """
    with tempfile.TemporaryDirectory(prefix="embedstore-bench-") as name:
        home = Path(name)
        progress("looking for images")
        refs = _sample(folder or _generated(home / "pictures"), settings.images)
        recipe = Recipe(
            resolve_name(settings.backbone),
            args=settings.backbone_args,
            preprocess=settings.preprocess,
            random_init=True,
        )
        network = load(recipe, device=settings.device, precision=settings.precision, allow_code={recipe.backbone})
        return _measured(home, refs, network, settings, progress)


def _measured(
    home: Path, refs: Sequence[ImageRef], network: Backbone, setting: BenchSettings, note: Callable[[str], None]
) -> BenchResult:
    """All stages, one after the other."""
    threads = setting.threads or available_cores()
    p = network.space.preprocess
    if p is None:
        raise NoImages(f"{network.space.architecture} takes no images")
    note("reading")
    data, read = _reading(refs, threads)
    pixels, area = _pixels(data, p, threads)
    if not len(pixels):
        raise NoImages(f"none of {len(refs)} files can be decoded, e.g. {refs[0].uri}")
    decoders = {}
    for decoder, prepare in {Decoder.PILLOW: preprocess.prepare, **fast_decoders(network.device)}.items():
        note(f"decoding, {decoder}")
        decoders[decoder] = _decoding(data, prepare, p, threads, setting.seconds)
    networks = []
    for runtime in _runtimes(setting.runtime, network.device):
        note(f"the network, {runtime}")
        networks.append(_network(network, runtime, pixels, home / "towers", setting.seconds))
    note("batch sizes")
    best_batch, batches = find_batch_size(throughput_function(network, pixels), 1, MAX_BATCH_SIZE)
    note("writing")
    write = _writing(home / "vectors.store", network.space.dim)
    fastest = max(networks, key=lambda n: n.images_per_second)
    note(f"end to end, {fastest.runtime}")
    decoder = max(decoders, key=decoders.__getitem__)
    report, seconds = _end_to_end(home / "whole.store", refs, setting, fastest.runtime, decoder)
    shared = network.device == "cpu"
    decoding = decoders[Decoder(report.decoder)]
    both = (decoding, fastest.images_per_second)
    return BenchResult(
        backbone=setting.backbone,
        device=network.device,
        precision=network.precision,
        threads=threads,
        cores=available_cores(),
        images=len(pixels),
        pixels=area,
        failed=len(refs) - len(pixels),
        read=read,
        decode=decoding,
        decoder=report.decoder,
        decoders={d.value: rate for d, rate in decoders.items()},
        networks=networks,
        batches=batches,
        knee=best_batch,
        write=write,
        runtime=fastest.runtime,
        end_to_end=len(pixels) / seconds,
        limit=1 / sum(1 / r for r in both) if shared else min(both),
        bottleneck=report.bottleneck,
    )


def _runtimes(asked: Runtime, device: str) -> list[Runtime]:
    """Which are measured."""
    if asked is not Runtime.AUTO:
        return list(dict.fromkeys([Runtime.EAGER, asked]))
    return [Runtime.EAGER, Runtime.ONNX] if device == "cpu" and has_onnx_export() else [Runtime.EAGER]


def _sample(source: str | Path, count: int) -> list[ImageRef]:
    """Files evenly spread over what a source finds first."""
    found = [
        r
        for r in islice(open_source(str(source), label_rule=None).scan(), MAX_SCANNED_FILES)
        if isinstance(r, ImageRef)
    ]
    if not found:
        raise NoImages(f"{source} has no files; name a folder of images")
    step = max(1.0, len(found) / count)
    spread = [found[int(i * step)] for i in range(min(count, len(found)))]
    room = np.cumsum([r.size for r in spread]) <= MAX_SAMPLE_BYTES
    return [r for r, fits in zip(spread, room, strict=True) if fits] or spread[:1]


def _reading(refs: Sequence[ImageRef], threads: int) -> tuple[list[bytes], float]:
    """The files that can be read, and how many a second."""
    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        data = [d for d in pool.map(_bytes, refs) if d is not None]
        return data, len(refs) / (time.perf_counter() - begin)


def _pixels(data: Sequence[bytes], p: Preprocess, threads: int) -> tuple[NDArray[np.uint8], int]:
    """Prepared images ``(B, 3, H, W)``, and their mean number of pixels in the file."""
    with ThreadPoolExecutor(threads) as pool:
        made = [m for m in pool.map(lambda d: _prepared(preprocess.prepare, d, p), data) if m is not None]
    if not made:
        return np.empty((0, 3, *p.size), np.uint8), 0
    return np.stack([pixels for pixels, _ in made]), int(np.mean([f.width * f.height for _, f in made]))


def _prepared(prepare: PrepareFunction, data: bytes, p: Preprocess) -> tuple[Any, ImageInfo] | None:
    """One file, or None where it cannot be decoded."""
    try:
        return prepare(data, p)
    except ImageError:
        return None


def _decoding(data: Sequence[bytes], prepare: PrepareFunction, p: Preprocess, threads: int, seconds: float) -> float:
    """Images decoded and resized per second; what a device was given is waited for."""
    with preserve_torch_threads(), ThreadPoolExecutor(threads, initializer=use_one_torch_thread) as pool:
        begin, rounds = time.perf_counter(), 0
        while not rounds or (time.perf_counter() - begin) * (rounds + 1) / rounds < seconds:
            made = [m[0] for m in pool.map(lambda d: _prepared(prepare, d, p), data) if m is not None]
            if not isinstance(made[-1], np.ndarray):
                made[-1].cpu()
            rounds += 1
        return rounds * len(data) / (time.perf_counter() - begin)


def _bytes(ref: ImageRef) -> bytes | None:
    """A file, or None where it cannot be read."""
    try:
        return read_file(ref.path)
    except ImageError:
        return None


def _network(
    network: Backbone, runtime: Runtime, pixels: NDArray[np.uint8], towers: Path, seconds: float
) -> RuntimeBenchmark:
    """One runtime on prepared images, as a run would use it."""
    try:
        chosen = AdaptiveEncoder([network], runtime, towers, expected_images=len(pixels))
        chosen.encode_images(pixels[: network.batch_size])
        size = chosen.batch_size
        parts = [pixels[i : i + size] for i in range(0, len(pixels), size)]
        with ThreadPoolExecutor(chosen.concurrency) as pool:
            done, begin = 0, time.perf_counter()
            while time.perf_counter() - begin < seconds:
                for vectors in pool.map(chosen.encode_images, parts[: max(chosen.concurrency, 4)]):
                    done += len(vectors)
            rate = done / (time.perf_counter() - begin)
    except (EmbedstoreError, OSError) as e:
        return RuntimeBenchmark(runtime.value, 0.0, why=" ".join(str(e).split()))
    return RuntimeBenchmark(runtime.value, rate, chosen.agreement.cosine if chosen.agreement else None)


def _writing(path: Path, dim: int) -> float:
    """Vectors committed per second."""
    store = es.create(path)
    vectors = np.random.default_rng(0).normal(size=(WRITE_TEST_VECTORS, dim)).astype(np.float32)
    begin = time.perf_counter()
    store.add_vectors(vectors)
    return WRITE_TEST_VECTORS / (time.perf_counter() - begin)


def _end_to_end(
    path: Path, refs: Sequence[ImageRef], setting: BenchSettings, runtime: str, decoder: Decoder
) -> tuple[Any, float]:
    """A whole run, and the seconds of its stages at work; the network is loaded and exported before."""
    store = es.create(
        path,
        setting.backbone,
        device=setting.device,
        precision=setting.precision,
        backbone_args=setting.backbone_args,
        preprocess=setting.preprocess,
        random_init=True,
    )
    towers = path.parent / "towers"
    if runtime == Runtime.ONNX and towers.is_dir():
        towers.rename(path / "spaces" / store.spaces[0].key / "towers")
    files = [r.path for r in refs]
    how: dict[str, Any] = {"threads": setting.threads, "runtime": runtime, "show_progress": False}
    try:
        report = _opened(path, setting, decoder).embed(files, **how)
    except RuntimeMismatch:  # random weights tell images apart less than trained ones, and a decoder may be too coarse
        report = _opened(path, setting, Decoder.PILLOW).embed(files, **how)
    return report, report.stages.get("seconds", report.seconds) or report.seconds


def _opened(path: Path, setting: BenchSettings, decoder: Decoder) -> es.Store:
    """The store of the whole run."""
    how = {"device": setting.device, "precision": setting.precision, "decoder": decoder.value}
    return es.open(path, **how, allow_code={setting.backbone})


def _generated(folder: Path) -> Path:
    """JPEG files of 500 x 375 with the detail of photos: smooth shapes and fine noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for n in range(GENERATED_IMAGES):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        coarse = np.asarray(shapes.resize((500, 375), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(coarse + rng.normal(0, 12, (375, 500, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{n:04d}.jpg", quality=90)
    return folder
