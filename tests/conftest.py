"""Fixtures that many tests share: real data where it is present, and small real backbones."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers side by side would wait for each other's threads

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from tests.helpers.archives import unpack_tar
from tests.helpers.traced_once import traced_once

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test touches the network
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")  # it speaks gRPC, which the emulator does not

settings.register_profile("same", derandomize=True, deadline=None)  # the suite tries the same examples in every run
settings.register_profile("random", deadline=None)
settings.load_profile(os.environ.get("EMBEDSTORE_EXAMPLES", "same"))

ROOT = Path(__file__).resolve().parent.parent
TINY = "timm/test_resnet.r160_in1k"  # timm's own test network: 0.5 M parameters, a real ResNet


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and weights; the test is skipped where it is absent."""
    folder = Path(os.environ.get("EMBEDSTORE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "README.md").exists():
        pytest.skip(f"real data are not here: {folder} (set EMBEDSTORE_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def unpacked(shared_data, tmp_path_factory):
    """Unpack one of the shared tars once a session: ``unpacked("hymenoptera")`` is its folder."""
    done: dict[str, Path] = {}

    def unpack(name: str) -> Path:
        if name not in done:
            folder = tmp_path_factory.mktemp(name)
            unpack_tar(shared_data / f"{name}.tar", folder)
            done[name] = folder / name
        return done[name]

    return unpack


@pytest.fixture(autouse=True)
def _traced_once(request) -> Iterator[None]:
    """Each network is traced to ONNX once per process, except in the tests of backbones, which trace it each time."""
    if "backbones" in request.path.parts:
        yield
        return
    with traced_once():
        yield


@pytest.fixture
def ordinary() -> Iterator[Path]:
    """A folder in which the test is an ordinary user, whom permissions bind, also where the suite runs as root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    with tempfile.TemporaryDirectory() as name:
        before = os.geteuid()
        if before == 0:
            nobody = 65534
            os.chown(name, nobody, nobody)
            os.seteuid(nobody)
        try:
            yield Path(name)
        finally:
            os.seteuid(before)


@dataclass(frozen=True)
class Quickstart:
    """What ``embedstore quickstart --json`` said, and where it wrote."""

    folder: Path
    steps: list[dict]

    @property
    def store(self) -> Path:
        return self.folder / "quickstart.store"


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> Quickstart:
    """The README's first command, run once a session by a real process; treat its store as read-only, or copy it."""
    folder = tmp_path_factory.mktemp("first") / "quickstart"
    command = [sys.executable, "-m", "embedstore", "quickstart", "-o", str(folder), "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    out = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent, env=environment, check=False)
    assert out.returncode == 0, out.stderr
    return Quickstart(folder, json.loads(out.stdout))


def picture(seed: int, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """A picture of smooth random colours, different for every seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve pictures: ``train|val/<cat|dog>/N.png``."""
    folder = tmp_path / "photos"
    for n in range(12):
        path = folder / ("val" if n % 3 == 2 else "train") / ("cat" if n < 6 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    return folder
