"""The steps: each compares what a device gives with what must come out, and returns one sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from embedstore.backbones import load
from embedstore.backbones.registry import BUNDLED_INFO
from embedstore.backbones.runtimes.runtime import compare_vectors
from embedstore.media.image.hardware_jpeg import HardwareJpegs, torchvision_jpeg_decoder
from embedstore.media.image.plain_jpeg import read_jpeg_header
from embedstore.media.image.preprocess import prepare
from embedstore.space import Recipe
from tools.gpu_check.results import StepResult
from tools.gpu_check.setup import Setup

ROOT = Path(__file__).resolve().parents[2]
FEW = 48  # photos of a comparison
ROUNDS = 4  # over the photos, to corrupt memory if it can be
LOAD, LOAD_KERNELS = 1024, 40  # size and number of the products that are queued before the sums
RANK_TIMEOUT = 600  # seconds until two processes that hang are ended

Step = Callable[[Setup], tuple[bool, str]]


class Skipped(Exception):
    """A step cannot run here."""


def parity(setup: Setup) -> tuple[bool, str]:
    """Compare the bundled network's real weights on the device, in every precision, with fp32 on the CPU."""
    on_cpu, on_device = (load(Recipe(BUNDLED_INFO.name), device=d) for d in ("cpu", setup.device))
    pixels = np.stack([prepare(p.read_bytes(), on_cpu.space.preprocess)[0] for p in setup.photos[:FEW]])
    expected, agreements = on_cpu.encode_images(pixels), {}
    for precision in ("fp32", "fp16", "bf16"):
        on_device.set_precision(precision)
        agreements[precision] = compare_vectors(expected, on_device.encode_images(pixels))
    on_device.set_precision("fp32")
    figures = ", ".join(f"{name} {a.centered_cosine:.6f}" for name, a in agreements.items())
    return agreements["fp32"].is_close, f"least centered cosine to the CPU's fp32: {figures}"


def hardware_decoder(setup: Setup) -> tuple[bool, str]:
    """Decode by the device while queued kernels read memory that is free again: as a run does, and the decoder alone.

    The decoder alone may write into that memory (torchcodec pull request 1634); that is reported. In a run nothing may
    change.
    """
    decode = torchvision_jpeg_decoder(setup.device)
    if decode is None:
        raise Skipped("torchvision is not installed")
    files = [p.read_bytes() for p in setup.photos[:FEW]]
    preprocess = load(Recipe(BUNDLED_INFO.name), device="cpu").space.preprocess
    jpegs = HardwareJpegs(setup.device, decode)
    if not jpegs.prepare_together(files, preprocess):
        raise Skipped("the decoder refuses every file")
    in_a_run = changed_sums(setup.device, files, lambda: jpegs.prepare_together(files, preprocess))
    data = [torch.frombuffer(bytearray(d), dtype=torch.uint8) for d in files]
    alone = changed_sums(setup.device, files, lambda: decode(data))
    count = ROUNDS * len(files)
    return in_a_run == 0, f"{in_a_run} of {count} sums changed as a run decodes, {alone} with the decoder alone"


def changed_sums(device: str, files: list[bytes], decode: Callable[[], object]) -> int:
    """Return how many sums are wrong of tensors that are freed, their sums still queued, before files are decoded."""
    sizes = [(3, header.height, header.width) for d in files if (header := read_jpeg_header(d))]
    load_of_work, wrong = torch.ones((LOAD, LOAD), device=device), 0
    for _ in range(ROUNDS):
        tensors = [torch.ones(size, dtype=torch.uint8, device=device) for size in sizes]
        for _ in range(LOAD_KERNELS):
            load_of_work = (load_of_work @ load_of_work).clamp_(max=1.0)
        sums = [tensor.long().sum() for tensor in tensors]
        del tensors
        decode()
        wrong += sum(int(s) != np.prod(size) for s, size in zip(sums, sizes, strict=True))
    return wrong


def decode_beside_forwards(setup: Setup) -> tuple[bool, str]:
    """Resize on the device on many threads beside forward passes; every vector is that of a run one by one."""
    files = setup.photos[: 4 * FEW]
    decoder = "device" if setup.device.startswith("cuda") else "quick"
    _, serial = setup.embed("serial", files, decoder=decoder, threads=1, batch_size=1)
    _, beside = setup.embed("beside", files, decoder=decoder, batch_size=8)
    agreement = compare_vectors(serial, beside)
    return agreement.min_cosine > 0.99999, f"{len(files)} files, {agreement}"


def large_image(setup: Setup) -> tuple[bool, str]:
    """Embed a JPEG of 60 megapixels among others, with the vectors of the CPU."""
    files = [*setup.photos[:7], setup.large_photo]
    report, vectors = setup.embed("large", files)
    _, expected = setup.embed("large on the CPU", files, device="cpu")
    agreement = compare_vectors(expected, vectors)
    size = setup.large_side**2 * 2 // 3 / 1e6
    return report.embedded == len(files) and agreement.is_close, f"{size:.0f} megapixels, {agreement}"


def memory_cap(setup: Setup) -> tuple[bool, str]:
    """Embed with a batch that does not fit under a cap; it is halved, and every image has its vector."""
    if not setup.device.startswith("cuda"):
        raise Skipped("only CUDA has a cap")
    files, batch = setup.photos[: 4 * FEW], 4 * FEW
    _, expected = setup.embed("uncapped", files, batch_size=batch)
    backbone = load(Recipe(BUNDLED_INFO.name), device=setup.device)
    pixels = np.zeros((batch // 4, 3, *backbone.space.preprocess.size), np.uint8)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(setup.device)
    backbone.encode_images(pixels)
    cap = torch.cuda.max_memory_allocated(setup.device) * 1.5
    del backbone
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.mem_get_info(setup.device)[1], setup.device)
    try:
        report, vectors = setup.embed("capped", files, batch_size=batch)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, setup.device)
    agreement = compare_vectors(expected, vectors)
    finding = f"{cap / 1e6:.0f} MB for batches of {batch}: {agreement}"
    return report.embedded == len(files) and agreement.is_close, finding


def device_processes(setup: Setup) -> tuple[bool, str]:
    """Embed by two processes that share the device; rows and vectors are those of one process."""
    files = setup.photos[: 4 * FEW]
    _, one = setup.embed("one process", files, batch_size=8)
    report, two = setup.embed("two processes", files, batch_size=8, engine="processes", workers=2)
    agreement = compare_vectors(one, two)
    return report.embedded == len(files) and agreement.is_close, f"on {report.device}, {agreement}"


def compiled(setup: Setup) -> tuple[bool, str]:
    """Compile the network for static batches, on CUDA as graphs; the last batch is padded."""
    files = setup.photos[: 2 * FEW + 1]
    _, eager = setup.embed("eager", files, batch_size=8)
    report, vectors = setup.embed("compiled", files, batch_size=8, runtime="compile")
    agreement = compare_vectors(eager, vectors)
    return report.embedded == len(files) and agreement.is_close, f"{len(files)} files in batches of 8, {agreement}"


def two_ranks(setup: Setup) -> tuple[bool, str]:
    """Train on two processes with unequal shares, one with memory for one image; both end with equal weights."""
    first, second = run_ranks(setup.folder / "ranks", (100, 1))
    return have_equal_weights(first, second), f"on {first['device']}, losses {first['losses']}"


def have_equal_weights(first: dict, second: dict) -> bool:
    """Return whether two processes ended with the same losses and weights, to the bit."""
    equal = all(torch.equal(first["state"][name], second["state"][name]) for name in first["state"])
    return equal and first["losses"] == second["losses"]


def run_ranks(folder: Path, capacities: tuple[int, ...]) -> list[dict]:
    """Train with one process per capacity (images in memory at once); return what each wrote.

    Raises:
        ChildProcessError: if one of them ends with an error, or they hang; with the errors of all.
    """
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tools.gpu_check.one_rank", str(folder), *map(str, capacities)]
    names = {"WORLD_SIZE": len(capacities), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    common = os.environ | {"PYTHONPATH": str(ROOT)} | {name: str(value) for name, value in names.items()}
    processes = [
        subprocess.Popen(
            command, env=common | {"RANK": str(n), "LOCAL_RANK": str(n)}, stderr=subprocess.PIPE, text=True
        )
        for n in range(len(capacities))
    ]
    try:
        errors = [process.communicate(timeout=RANK_TIMEOUT)[1] for process in processes]
    except subprocess.TimeoutExpired:
        raise ChildProcessError(f"{len(capacities)} processes wait for each other") from None
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        raise ChildProcessError("\n--\n".join(errors))
    return [torch.load(folder / f"{n}.pt", weights_only=True) for n in range(len(capacities))]


STEPS: dict[str, Step] = {
    "parity of precisions": parity,
    "JPEG decoder of the device": hardware_decoder,
    "decoding beside forward passes": decode_beside_forwards,
    "a 60-megapixel JPEG": large_image,
    "memory under a cap": memory_cap,
    "one process per device": device_processes,
    "compiled static batches": compiled,
    "two processes train": two_ranks,
}


def run_step(name: str, setup: Setup) -> StepResult:
    """Run one step; an error is its result, so that the others run too."""
    try:
        is_right, finding = STEPS[name](setup)
    except Skipped as reason:
        return StepResult(name, "skipped", str(reason))
    except Exception as error:
        text = " ".join(str(error).split())[:300].replace("|", "/")
        return StepResult(name, "FAILED", f"{type(error).__name__}: {text}")
    return StepResult(name, "ok" if is_right else "FAILED", finding)
