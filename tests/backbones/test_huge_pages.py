"""Large activations use huge memory pages."""

import subprocess
import sys
from pathlib import Path

import pytest

ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
CODE = """
import re, torch
import embedstore as es
from embedstore.backbones import load
from embedstore.space import Recipe
load(Recipe("timm/test_resnet", random_init=True), device="cpu")
tensor = torch.ones(64 << 20)
print(sum(int(n) for n in re.findall(r"AnonHugePages: +([0-9]+)", open("/proc/self/smaps").read())))
"""


@pytest.mark.skipif(
    not ENABLED.exists() or "[never]" in ENABLED.read_text(), reason="this system has no transparent huge pages"
)
def test_large_tensors_use_huge_pages():
    """After a network is loaded, a tensor of 256 MiB uses huge pages."""
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    assert int(run.stdout) > 128 << 10  # most of it: a machine whose memory is in pieces gives less
