"""The throughput of usual networks, from files to committed rows, next to the network alone and decoding alone.

Weights do not affect the speed, so they are random. Random weights tell images apart too little for the comparison of
precisions, which is therefore taken as passed here, and nowhere else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import numpy as np

import embedstore as es
from embedstore.backbones import load
from embedstore.backbones.runtimes.device_pool import DevicePool
from embedstore.backbones.runtimes.runtime import Agreement
from embedstore.pipeline.decode_method import fast_decoders, use_one_torch_thread
from embedstore.pipeline.decoder import Decoder
from embedstore.resources import available_cores
from embedstore.space import Recipe
from tools.gpu_check.results import Throughput
from tools.gpu_check.setup import Setup

NETWORKS = ("timm/resnet50", "open_clip/ViT-B-32", "open_clip/ViT-B-16", "open_clip/ViT-L-14")
SAMPLE = 512  # images of the two parts that are measured alone


def measure(setup: Setup, network: str, *, seconds: float = 10.0) -> Throughput:
    """Measure one network.

    Args:
        setup: where.
        network: its name; random weights are drawn.
        seconds: how long each part is measured alone.
    """
    is_gpu = setup.device.startswith("cuda")
    precision, decoder = ("fp16", Decoder.GPU_RESIZE) if is_gpu else ("fp32", Decoder.FAST)
    network_alone, decode_alone = rates_alone(setup, network, precision, decoder, seconds)
    path = setup.folder / f"{network.replace('/', '-')}.store"
    with patch.object(Agreement, "is_close", True):
        es.create(path, network, random_init=True, device=setup.device, precision=precision)
        store = es.open(path, device=setup.device, precision=precision, decoder=decoder.value)
        report = store.embed(setup.photos, progress=False)
    whole = report.embedded / (report.stage_times.get("seconds") or report.seconds)
    return Throughput(network, report.precision, whole, network_alone, decode_alone, report.bottleneck)


def rates_alone(setup: Setup, network: str, precision: str, decoder: Decoder, seconds: float) -> tuple[float, float]:
    """Return images per second of the network alone, and of decoding and resizing alone on all threads."""
    backbone = load(Recipe(network, random_init=True), device=setup.device, precision=precision)
    prepare, preprocess = fast_decoders(backbone.device)[decoder].prepare, backbone.space.preprocess
    data = [path.read_bytes() for path in setup.photos[:SAMPLE]]
    pool = DevicePool([backbone])
    pool.set_precision(precision)
    count = min(len(data), pool.batch_size)
    batch = np.random.default_rng(0).integers(0, 256, (count, 3, *preprocess.size), dtype=np.uint8)
    batches = rate_of(lambda _: pool.encode_images(batch), pool.concurrency, seconds)
    decoded = rate_of(lambda n: prepare(data[n % len(data)], preprocess), available_cores(), seconds)
    return count * batches, decoded


def rate_of(call: Callable[[int], object], threads: int, seconds: float) -> float:
    """Return calls per second on some threads, after one call on each; the last result is waited for."""
    with ThreadPoolExecutor(threads, initializer=use_one_torch_thread) as pool:
        list(pool.map(call, range(threads)))
        begin, done = time.perf_counter(), 0
        while time.perf_counter() - begin < seconds:
            results = list(pool.map(call, range(done, done + 4 * threads)))
            if hasattr(results[-1], "cpu"):
                results[-1].cpu()
            done += len(results)
        return done / (time.perf_counter() - begin)
