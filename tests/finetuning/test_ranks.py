"""Fine-tuning in several real processes: they never wait for each other, and give the weights of one."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from tests.conftest import ROOT

PLENTY = 100


def run_ranks(folder, capacities):
    """Train with one process per capacity; return what each wrote, or their errors."""
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.helpers.one_rank", str(folder), *map(str, capacities)]
    names = {"WORLD_SIZE": len(capacities), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    common = (
        os.environ | {"PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"} | {k: str(v) for k, v in names.items()}
    )
    processes = [
        subprocess.Popen(
            command, env=common | {"RANK": str(n), "LOCAL_RANK": str(n)}, stderr=subprocess.PIPE, text=True
        )
        for n in range(len(capacities))
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    if any(process.returncode for process in processes):
        return errors
    return [torch.load(folder / f"{n}.pt", weights_only=True) for n in range(len(capacities))]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The training by one process with plenty of memory."""
    return run_ranks(tmp_path_factory.mktemp("alone") / "1", [PLENTY])[0]


def is_close(a, b) -> bool:
    """Return whether two trainings have the same losses and weights."""
    same_weights = all(torch.allclose(a["state"][name], b["state"][name], atol=2e-5) for name in a["state"])
    return same_weights and a["losses"] == pytest.approx(b["losses"], rel=1e-5)


@pytest.mark.parametrize("capacities", [(PLENTY, PLENTY), (PLENTY, 1)], ids=["uneven shares", "one lacks memory"])
def test_two_processes_end_and_give_the_weights_of_one(tmp_path, alone, capacities):
    """Batches of 7 and 5 on two processes: each image counts once, and a process that runs out of memory makes more,
    smaller backward passes without the other waiting for ever.
    """
    first, second = run_ranks(tmp_path / "2", capacities)
    assert is_close(first, alone)
    assert is_close(second, alone)
    assert first["micro"] == second["micro"]
    assert (first["micro"] == 1) == (1 in capacities)


def test_an_image_that_does_not_fit_into_one_process_ends_all_of_them(tmp_path):
    """Both report it; neither hangs."""
    errors = run_ranks(tmp_path / "2", (PLENTY, 0))
    assert all("not even one image fits into the memory of cpu" in error for error in errors)
