"""Check embedstore on the GPU of this machine and measure its throughput; nothing is downloaded.

It writes ``gpu_check.md`` and ``gpu_check.json``, and ends with status 1 if a step fails or there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from embedstore.temporary import temporary_folder
from tools.gpu_check.results import Report
from tools.gpu_check.setup import Setup
from tools.gpu_check.steps import STEPS, run_step
from tools.gpu_check.throughput import NETWORKS, measure


def main(arguments: list[str] | None = None) -> int:
    """Run every step and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check", description=__doc__)
    parser.add_argument("--device", default="cuda", help="the device, e.g. cuda:1 (cuda)")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG files; without it, photos are generated")
    parser.add_argument("--images", type=int, default=20_000, help="photos for the throughput (20000)")
    parser.add_argument("--networks", nargs="*", default=NETWORKS, help="networks whose throughput is measured")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("gpu_check"), help="folder of the results (gpu_check)"
    )
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("gpu_check: torch sees no CUDA device on this machine; run it on one that has a GPU", file=sys.stderr)
        return 1
    with temporary_folder() as folder:
        setup = Setup(options.device, folder, options.images, given_photos=options.photos)
        report = check(setup, options.networks)
    report.write(options.output)
    print(report.markdown())
    return int(report.has_failed)


def check(setup: Setup, networks: list[str], *, seconds: float = 10.0) -> Report:
    """Run the steps, then measure the networks; what is being done is told on stderr."""
    steps = []
    for name in STEPS:
        print(f"{name} …", file=sys.stderr)
        steps.append(run_step(name, setup))
    throughput = []
    for network in networks:
        print(f"throughput of {network} …", file=sys.stderr)
        throughput.append(measure(setup, network, seconds=seconds))
    return Report(device_description(setup.device), steps, throughput)


def device_description(device: str) -> str:
    """Return the name of the card and the versions that it runs with."""
    card = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return f"{card}, torch {torch.__version__}, CUDA {torch.version.cuda}"


if __name__ == "__main__":
    sys.exit(main())
