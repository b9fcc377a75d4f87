"""Measure how fast this machine embeds: every stage alone and all together, on a user's own images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import embedstore as es
from embedstore.backbones import load, resolve_name
from embedstore.backbones.base import MAX_BATCH_SIZE, affordable_batch
from embedstore.backbones.error_text import one_line
from embedstore.backbones.loading import require_images
from embedstore.backbones.runtimes.adaptive_encoder import AdaptiveEncoder
from embedstore.backbones.runtimes.runtime import Runtime, has_onnx_export
from embedstore.backbones.runtimes.tower_encoder import TowerEncoder, TowerPlace
from embedstore.errors import BadBackbone, EmbedstoreError, ImageError, NoImages, RuntimeMismatch
from embedstore.media.image import preprocess
from embedstore.pipeline.decode import TASK_FILES
from embedstore.pipeline.decode_method import (
    EXACT_METHOD,
    PILLOW_METHOD,
    DecodeMethod,
    fast_decoders,
    preserve_torch_threads,
    use_one_torch_thread,
)
from embedstore.pipeline.decoder import Decoder
from embedstore.pipeline.encoder import TOWER_IMAGES
from embedstore.quickstart.bench_result import BenchResult, BenchSettings, RuntimeBenchmark
from embedstore.resources import available_cores
from embedstore.sources.local_files import read_file
from embedstore.sources.open import open_source
from embedstore.space import Preprocess, Recipe
from embedstore.storage.layout import Layout
from embedstore.temporary import temporary_folder
from embedstore.types import ImageRef

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone

MAX_SCANNED_FILES = 20_000  # files of a folder from which the sample is drawn
GENERATED_IMAGES = 64  # images, if no folder is given
GENERATED_SIZE = (500, 375)  # pixels of a generated image, width and height
MAX_SAMPLE_BYTES = 256 << 20  # bytes of files in memory at once
MIN_PARTS = 4  # batches that a runtime embeds between two looks at the clock
WRITE_TEST_VECTORS = 20_000

ProgressFunction = Callable[[str], None]


@dataclass(frozen=True)
class Sample:
    """The images that are measured.

    Attributes:
        refs: the files.
        data: the bytes of those that can be read.
        pixels: those that can be decoded, prepared, uint8 ``(B, 3, H, W)``.
        mean_pixels: the mean number of pixels in a file.
        read_rate: files read per second.
    """

    refs: list[ImageRef]
    data: list[bytes]
    pixels: NDArray[np.uint8]
    mean_pixels: int
    read_rate: float


@dataclass(frozen=True)
class WholeRun:
    """An embedding run from files to a committed store.

    Attributes:
        decoder: the decoder that it used.
        rate: images per second.
        bottleneck: what limited it.
    """

    decoder: Decoder
    rate: float
    bottleneck: str


def run(
    folder: str | Path | None,
    settings: BenchSettings = BenchSettings(),
    progress: ProgressFunction = lambda _: None,
) -> BenchResult:
    """Measure every stage on a sample of a folder, or on generated images; only the sample is held in memory.

    Args:
        folder: the images; None generates some.
        settings: what is measured.
        progress: called with the name of each stage before it is measured.

    Raises:
        SourceNotFound: when there is no such folder.
        NoImages: when no file can be decoded, or the backbone does not accept images.
        UnknownBackbone: when there is no such architecture.
        BadBackbone: when the backbone does not accept an argument, the device or the precision.
    """
    with temporary_folder() as home:
        progress("looking for images")
        refs = draw_sample(folder or generate_photos(home / "photos"), settings.max_images)
        recipe = Recipe(
            resolve_name(settings.backbone),
            args=settings.backbone_args,
            preprocess=settings.preprocess,
            random_init=True,
        )
        backbone = load(recipe, device=settings.device, precision=settings.precision, allow_code={recipe.backbone})
        return _measure(home, refs, require_images(backbone, recipe.backbone), settings, progress)


def _measure(
    home: Path, refs: list[ImageRef], backbone: Backbone, settings: BenchSettings, progress: ProgressFunction
) -> BenchResult:
    """Measure all stages, one after the other."""
    progress("reading")
    sample = _read_sample(refs, backbone, settings.thread_count)
    decode_rates = _measure_decoders(sample, backbone, settings, progress)
    runtimes = _measure_runtimes(home, sample, backbone, settings, progress)
    fastest = max(runtimes, key=lambda r: r.images_per_second)
    progress("batch sizes")
    backbone.set_precision(fastest.precision)
    largest = MAX_BATCH_SIZE if backbone.device != "cpu" else affordable_batch(sample.pixels.shape[-2:])
    rates = backbone.runner.tune(backbone.encode_images, sample.pixels, smallest=1, largest=largest)
    backbone.set_precision("fp32")
    progress("writing")
    write_rate = _measure_writing(home / "vectors.store", backbone.space.dim)
    progress(f"end to end, {fastest.runtime}")
    fastest_decoder = max(decode_rates, key=decode_rates.__getitem__)
    whole = _measure_whole_run(home, sample, settings, fastest.runtime, fastest_decoder)
    stages = (decode_rates[whole.decoder], fastest.images_per_second)
    return BenchResult(
        backbone=settings.backbone,
        device=backbone.device,
        precision=fastest.precision,
        threads=settings.thread_count,
        cores=available_cores(),
        images=len(sample.pixels),
        mean_pixels=sample.mean_pixels,
        failed=len(refs) - len(sample.pixels),
        read_rate=sample.read_rate,
        decode_rate=decode_rates[whole.decoder],
        decoder=whole.decoder.value,
        decode_rates={decoder.value: rate for decoder, rate in decode_rates.items()},
        runtimes=runtimes,
        rate_by_batch_size=rates,
        batch_size=backbone.batch_size,
        write_rate=write_rate,
        runtime=fastest.runtime,
        end_to_end_rate=whole.rate,
        expected_rate=1 / sum(1 / rate for rate in stages) if backbone.device == "cpu" else min(stages),
        bottleneck=whole.bottleneck,
    )


def draw_sample(source: str | Path, count: int) -> list[ImageRef]:
    """Return files evenly spread over the first ones of a source, of bounded total size.

    Raises:
        NoImages: when the source has no files.
    """
    scan = islice(open_source(str(source), label_rule=None).scan(), MAX_SCANNED_FILES)
    refs = [r for r in scan if isinstance(r, ImageRef)]
    if not refs:
        raise NoImages(f"{source} has no files; name a folder of images")
    step = max(1.0, len(refs) / count)
    spread = [refs[int(i * step)] for i in range(min(count, len(refs)))]
    fits = np.cumsum([r.size for r in spread]) <= MAX_SAMPLE_BYTES
    return spread[: max(1, int(fits.sum()))]


def _read_sample(refs: list[ImageRef], backbone: Backbone, threads: int) -> Sample:
    """Read and prepare the sample.

    Raises:
        NoImages: when no file can be decoded, or the backbone does not accept images.
    """
    p = _image_preprocess(backbone)
    with ThreadPoolExecutor(threads) as pool:
        begin = time.perf_counter()
        data = [d for d in pool.map(lambda r: _or_none(read_file, r.path), refs) if d is not None]
        read_rate = len(refs) / (time.perf_counter() - begin)
        prepared = [x for x in pool.map(lambda d: _or_none(preprocess.prepare, d, p), data) if x is not None]
    if not prepared:
        raise NoImages(f"none of {len(refs)} files can be decoded, e.g. {refs[0].uri}")
    mean_pixels = int(np.mean([info.width * info.height for _, info in prepared]))
    return Sample(refs, data, np.stack([pixels for pixels, _ in prepared]), mean_pixels, read_rate)


def _image_preprocess(backbone: Backbone) -> Preprocess:
    """Return the preprocessing of a backbone.

    Raises:
        NoImages: when the backbone does not accept images.
    """
    if backbone.space.preprocess is None:
        raise NoImages(f"{backbone.space.architecture} does not accept images")
    return backbone.space.preprocess


def _or_none(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result for a file, or None if the file cannot be read or decoded."""
    try:
        return function(*arguments)
    except ImageError:
        return None


def _measure_decoders(
    sample: Sample, backbone: Backbone, settings: BenchSettings, progress: ProgressFunction
) -> dict[Decoder, float]:
    """Return images decoded and resized per second, by decoder."""
    p, rates = _image_preprocess(backbone), {}
    for method in (PILLOW_METHOD, EXACT_METHOD, *fast_decoders(backbone.device).values()):
        progress(f"decoding, {method.decoder}")
        rates[method.decoder] = _measure_decoder(sample.data, method, p, settings)
    return rates


def _prepare_task(method: DecodeMethod, files: Sequence[bytes], p: Preprocess) -> list[Any]:
    """Return the pixels of those files of a task that can be decoded, as a run decodes them."""
    together = method.prepare_together(files, p)
    each = (together.get(n) or _or_none(method.prepare, data, p) for n, data in enumerate(files))
    return [prepared[0] for prepared in each if prepared is not None]


def _measure_decoder(data: Sequence[bytes], method: DecodeMethod, p: Preprocess, settings: BenchSettings) -> float:
    """Return images decoded and resized per second by one decoder, including the work of a device."""
    size = max(1, min(TASK_FILES, len(data) // settings.thread_count))
    tasks = [data[first : first + size] for first in range(0, len(data), size)]
    with (
        preserve_torch_threads(),
        ThreadPoolExecutor(settings.thread_count, initializer=use_one_torch_thread) as pool,
    ):
        begin, rounds = time.perf_counter(), 0
        while not rounds or (time.perf_counter() - begin) * (rounds + 1) / rounds < settings.seconds_per_stage:
            prepared = [x for task in pool.map(lambda files: _prepare_task(method, files, p), tasks) for x in task]
            if not isinstance(prepared[-1], np.ndarray):
                prepared[-1].cpu()  # waits for the device
            rounds += 1
        return rounds * len(data) / (time.perf_counter() - begin)


def _measure_runtimes(
    home: Path, sample: Sample, backbone: Backbone, settings: BenchSettings, progress: ProgressFunction
) -> list[RuntimeBenchmark]:
    """Measure eager and the other runtimes of the settings."""
    runtimes = [Runtime.EAGER]
    if settings.runtime is not Runtime.AUTO:
        runtimes.append(settings.runtime)
    elif backbone.device == "cpu" and has_onnx_export():
        runtimes.append(Runtime.ONNX)
    results = []
    for runtime in dict.fromkeys(runtimes):
        progress(f"the network, {runtime}")
        try:
            encoder = _open_encoder(home, sample, backbone, runtime)
            with closing(encoder):  # the next runtime is compared with fp32 again
                rate = _measure_encoder(encoder, sample.pixels, settings.seconds_per_stage)
        except (EmbedstoreError, OSError) as e:
            results.append(RuntimeBenchmark(runtime.value, 0.0, error=one_line(e)))
            continue
        agreement = encoder.choice.agreement
        cosine = agreement.min_cosine if agreement else None
        results.append(RuntimeBenchmark(runtime.value, rate, cosine, precision=encoder.precision))
    if not any(result.images_per_second for result in results):
        raise BadBackbone(f"{settings.backbone} cannot be measured: {results[0].error}")
    return results


def _open_encoder(home: Path, sample: Sample, backbone: Backbone, runtime: Runtime) -> AdaptiveEncoder | TowerEncoder:
    """Return what a run with this runtime would embed with; the exported tower is kept for the whole run."""
    if runtime is Runtime.ONNX and backbone.device == "cpu" and not backbone.half_precisions:
        return TowerPlace(backbone.space, home / "towers").export(backbone, sample.pixels[:TOWER_IMAGES])
    return AdaptiveEncoder([backbone], runtime, expected_images=len(sample.pixels))


def _measure_encoder(encoder: AdaptiveEncoder | TowerEncoder, pixels: NDArray[np.uint8], seconds: float) -> float:
    """Return images embedded per second, in batches and on threads as a run would use them."""
    encoder.encode_images(pixels[: encoder.batch_size])  # settles the choices
    size = encoder.batch_size
    parts = [pixels[i : i + size] for i in range(0, len(pixels), size)][: max(encoder.concurrency, MIN_PARTS)]
    with ThreadPoolExecutor(encoder.concurrency) as pool:
        count, begin = 0, time.perf_counter()
        while time.perf_counter() - begin < seconds:
            count += sum(len(vectors) for vectors in pool.map(encoder.encode_images, parts))
        return count / (time.perf_counter() - begin)


def _measure_writing(path: Path, dim: int) -> float:
    """Return vectors committed per second."""
    store = es.create(path)
    vectors = np.random.default_rng(0).normal(size=(WRITE_TEST_VECTORS, dim)).astype(np.float32)
    begin = time.perf_counter()
    store.add_vectors(vectors)
    return WRITE_TEST_VECTORS / (time.perf_counter() - begin)


def _measure_whole_run(home: Path, sample: Sample, settings: BenchSettings, runtime: str, decoder: Decoder) -> WholeRun:
    """Measure a whole run; the network is loaded and exported before."""
    path = home / "whole.store"
    store = es.create(
        path,
        settings.backbone,
        device=settings.device,
        precision=settings.precision,
        backbone_args=settings.backbone_args,
        preprocess=settings.preprocess,
        random_init=True,
    )
    if runtime == Runtime.ONNX:
        (home / "towers").rename(Layout(path).towers_folder(store.spaces[0].key))
    try:
        report = _embed(path, sample, settings, runtime, decoder)
    except RuntimeMismatch:  # random weights separate images less than trained ones: a fast decoder may be too coarse
        report = _embed(path, sample, settings, runtime, Decoder.PILLOW)
    seconds = report.stage_times.get("seconds", report.seconds) or report.seconds
    return WholeRun(Decoder(report.decoder), len(sample.pixels) / seconds, report.bottleneck)


def _embed(path: Path, sample: Sample, settings: BenchSettings, runtime: str, decoder: Decoder) -> Any:
    """Embed the sample's files into a store and return the report."""
    store = es.open(
        path,
        device=settings.device,
        precision=settings.precision,
        decoder=decoder.value,
        allow_code={settings.backbone},
    )
    return store.embed([r.path for r in sample.refs], threads=settings.threads, runtime=runtime, progress=False)


def generate_photos(folder: Path, count: int = GENERATED_IMAGES) -> Path:
    """Write JPEG files of 500 x 375 pixels with the detail of photos: smooth shapes and fine noise."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    width, height = GENERATED_SIZE
    for n in range(count):
        shapes = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.int16)
        noisy = np.clip(smooth + rng.normal(0, 12, (height, width, 1)), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / f"{n:05d}.jpg", quality=90)
    return folder
