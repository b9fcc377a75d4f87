"""The script for the first GPU, in small: it must not rot before there is one."""

import json
import subprocess
import sys

import pytest
import torch

from embedstore.backbones.runtimes import runtime
from tests.conftest import ROOT
from tests.helpers.pretend_cuda import pretended_gpus
from tools.gpu_check import steps
from tools.gpu_check.__main__ import check, main
from tools.gpu_check.results import Report, StepResult, Throughput
from tools.gpu_check.setup import Setup
from tools.gpu_check.steps import STEPS, run_step

WITH_PROCESSES = ("one process per device", "compiled static batches")  # they start Python or a compiler
ON_DEVICE = [
    name for name in STEPS if name not in ("two processes train", "JPEG decoder of the device", *WITH_PROCESSES)
]


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A few small photos on the CPU."""
    monkeypatch.setattr(steps, "FEW", 2)
    monkeypatch.setattr(steps, "LOAD", 8)
    return Setup("cpu", tmp_path, images=8, large_side=900)


def test_every_step_runs_on_the_cpu(monkeypatch, small):
    """The same steps, and the throughput. Two processes are in ``tests/finetuning/test_ranks.py``."""
    for name in ("two processes train", *WITH_PROCESSES):
        monkeypatch.delitem(STEPS, name)
    report = check(small, ["timm/test_resnet"], seconds=0.1)
    assert {s.name: s.verdict for s in report.steps} == dict.fromkeys(STEPS, "ok") | {"memory under a cap": "skipped"}
    (speed,) = report.throughput
    assert speed.whole > 0
    assert speed.share == pytest.approx(speed.whole / min(speed.network_alone, speed.decode_alone))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WITH_PROCESSES)
def test_a_step_with_processes_or_a_compiler_runs_on_the_cpu(small, name):
    """The same rows and vectors as by one eager process."""
    result = run_step(name, small)
    assert result.verdict == "ok", result.finding


@pytest.mark.parametrize("name", ON_DEVICE)
def test_a_step_runs_on_a_pretended_device(monkeypatch, small, name):
    """What touches CUDA in it is touched."""
    with pretended_gpus(monkeypatch) as machine:
        setup = Setup("cuda:0", small.folder, images=8, large_side=900)
        result = run_step(name, setup)
        assert machine.counts["kernels"]
    assert result.verdict == "ok", result.finding


def test_a_wrong_device_fails_a_step(monkeypatch, small):
    """Vectors that are not those of the CPU are a failure with its figures, and so is an exception."""
    monkeypatch.setattr(runtime, "MIN_COSINE", 1.1)
    assert run_step("parity of precisions", small).verdict == "FAILED"
    monkeypatch.setitem(STEPS, "broken", lambda setup: 1 / 0)
    assert run_step("broken", small) == StepResult("broken", "FAILED", "ZeroDivisionError: division by zero")


def test_the_report_is_one_table_and_json(tmp_path):
    """The share is that of the slower part, worked by hand: 90 of min(100, 300)."""
    speed = Throughput("timm/resnet50", "fp16", 90.0, 300.0, 100.0, "decode-bound: 30% of the device's rate")
    report = Report("H100, torch 2", [StepResult("parity of precisions", "FAILED", "0.9")], [speed])
    report.write(tmp_path)
    text = (tmp_path / "gpu_check.md").read_text()
    assert "| timm/resnet50 | fp16 | 90 | 300 | 100 | 0.90 | decode-bound |" in text
    assert "| parity of precisions | FAILED | 0.9 |" in text
    assert json.loads((tmp_path / "gpu_check.json").read_text())["throughput"][0]["share"] == 0.9
    assert report.has_failed


def test_a_machine_without_a_gpu_is_one_line():
    """Status 1, nothing measured, no traceback."""
    environment = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-m", "tools.gpu_check"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "gpu_check: torch sees no CUDA device on this machine; run it on one that has a GPU"
    ]


@pytest.mark.gpu
@pytest.mark.timeout(3600)
def test_the_real_card_passes(tmp_path):
    """``pytest -m gpu`` on a machine with a card: every step but the throughput."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    assert main(["--networks", "--images", "256", "-o", str(tmp_path)]) == 0
