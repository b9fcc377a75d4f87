"""Embedding through kept towers: no PyTorch, the same vectors in every process, PyTorch where there is no tower."""

import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import pytest

import embedstore as es
from embedstore import versions
from embedstore.backbones import loading
from embedstore.backbones.runtimes import tower_encoder
from embedstore.backbones.runtimes.runtime import Tower, compare_vectors
from embedstore.devices import may_have_gpu
from embedstore.errors import BadBackbone, BadOption
from tests.conftest import ROOT, TINY, picture

EMBED = """
import sys
import embedstore as es
from embedstore import versions
store = es.open(sys.argv[1], device="cpu")
report = store.embed(sys.argv[2], progress=False)
print(report.runtime, report.decoder, report.embedded, [m for m in ("torch", "timm", "open_clip") if m in sys.modules])
"""


def run(code, *arguments):
    """Run Python in a process of its own and return what it printed."""
    out = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT,
                         check=False)  # fmt: skip
    assert out.returncode == 0, out.stderr
    return out.stdout.strip()


def vectors(path):
    """The vectors by uri."""
    features = es.open(path, device="cpu").features("uri")
    return dict(zip(features.y, features.X, strict=True))


@pytest.fixture
def jpegs(tmp_path):
    """Eleven JPEG files: no multiple of the batch size."""
    folder = tmp_path / "jpegs"
    folder.mkdir()
    for n in range(11):
        picture(n, (90 + n, 70)).save(folder / f"{n}.jpg")
    return folder


@pytest.fixture
def empty(tmp_path):
    """A store without items."""
    es.create(tmp_path / "empty", TINY, random_init=True, device="cpu", dtype="float32")
    return tmp_path / "empty"


def test_a_space_is_embedded_without_torch_once_it_was_used(empty, jpegs):
    """The first run exports the tower; a later process embeds more files and imports neither torch nor timm."""
    assert run(EMBED, empty, jpegs).startswith("onnx exact 11 ['torch', 'timm'")
    picture(50, (90, 70)).save(jpegs / "50.jpg")
    assert run(EMBED, empty, jpegs) == "onnx exact 1 []"
    assert len(vectors(empty)) == 12


def test_the_same_command_gives_the_same_vectors_to_the_bit(empty, jpegs, tmp_path):
    """In fresh processes: one run in a new store, and two runs in another, of which the second has no PyTorch."""
    whole, parts = (shutil.copytree(empty, tmp_path / name) for name in ("whole", "parts"))
    run(EMBED, whole, jpegs)
    run(EMBED, parts, jpegs / "3.jpg")
    assert run(EMBED, parts, jpegs) == "onnx exact 10 []"
    wanted, found = vectors(whole), vectors(parts)
    assert len(wanted) == 11
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[uri], wanted[uri]) for uri in wanted)


def test_the_tower_gives_the_vectors_of_torch(empty, jpegs, tmp_path):
    """An eager run of the same files agrees to 0.9999, plain and centered; it exports nothing."""
    eager = shutil.copytree(empty, tmp_path / "eager")
    assert es.open(eager, device="cpu").embed(jpegs, runtime="eager").runtime == "eager"
    assert not list(eager.glob("spaces/*/towers"))
    es.open(empty, device="cpu").embed(jpegs)
    by_tower, by_torch = vectors(empty), vectors(eager)
    assert compare_vectors(np.stack(list(by_torch.values())), np.stack([by_tower[u] for u in by_torch])).is_close


def test_memory_changes_how_many_passes_run_and_no_vector(empty, jpegs, tmp_path, monkeypatch):
    """A pass has the same threads wherever memory is short: sums depend on them."""
    plenty, short = (shutil.copytree(empty, tmp_path / name) for name in ("plenty", "short"))
    es.open(plenty, device="cpu").embed(jpegs)
    monkeypatch.setattr(tower_encoder, "memory_slots", lambda most, bytes_each: 1)
    es.open(short, device="cpu").embed(jpegs, batch_size=3)
    wanted, found = vectors(plenty), vectors(short)
    assert all(np.array_equal(found[uri], wanted[uri]) for uri in wanted)


def test_what_is_not_the_cpu_in_fp32_stays_with_torch(empty, jpegs):
    """Half precision has no tower: auto embeds with torch, and a requested onnx is refused with a cure that works."""
    half = es.open(empty, device="cpu", precision="bf16", runtime="onnx")
    with pytest.raises(BadBackbone, match="add --device cpu --precision fp32"):
        half.embed(jpegs)
    assert es.open(empty, device="cpu", precision="fp32", runtime="onnx").embed(jpegs).runtime == "onnx"


def test_a_tower_that_cannot_be_written_costs_speed_only(empty, jpegs):
    """The run goes on with torch and says why; a damaged tower is exported again."""
    (towers,) = [p / "towers" for p in (empty / "spaces").iterdir()] or [None]
    towers.write_text("in the way")
    report = es.open(empty, device="cpu").embed(jpegs / "0.jpg")
    assert report.runtime == "eager"
    assert report.notices[0].startswith(f"runtime eager: the image tower cannot be written to {towers}")
    towers.unlink()
    assert es.open(empty, device="cpu").embed(jpegs / "1.jpg").runtime == "onnx"
    weights = towers / Tower.IMAGE.value / "weights.bin"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert es.open(empty, device="cpu").embed(jpegs).runtime == "onnx"
    rows = vectors(empty)
    assert all(np.isfinite(v).all() and np.abs(v).sum() for v in rows.values())


@pytest.mark.skipif(sys.platform != "linux", reason="device files are known on Linux only")
@pytest.mark.parametrize(
    ("files", "found"),
    [([], False), (["nvidiactl", "null"], False), (["nvidia0"], True), (["kfd"], True), (["dxg"], True)],
)
def test_torch_is_asked_only_where_there_may_be_a_gpu(tmp_path, monkeypatch, files, found):
    """The files of drivers decide; where torch is imported already it is asked in any case."""
    for name in files:
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    assert may_have_gpu(tmp_path) is found
    monkeypatch.undo()
    import torch  # noqa: F401

    assert may_have_gpu(tmp_path)


NAMED = """
import sys
from embedstore.cli import main
try:
    main(sys.argv[1:])
finally:
    print([m for m in ("torch", "timm", "open_clip") if m in sys.modules])
"""


def embed_named(store, source, weights, *more):
    """Embed by a command that names the backbone and its weights; return the heavy modules that it imported."""
    named = ["--backbone", "timm/resnet18", "--weights", weights, "--preprocess", "size=32", "--device", "cpu"]
    return run(NAMED, "embed", store, source, *named, *more).splitlines()[-1]


def write_weights(path, seed):
    """Write weights of a ResNet-18."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(seed)
    save_file(timm.create_model("resnet18", num_classes=0).state_dict(), path)


def test_a_backbone_that_is_named_again_is_not_loaded(tmp_path, jpegs):
    """The same recipe is the same space without PyTorch; other weights in the same file are another space."""
    weights = tmp_path / "w.safetensors"
    write_weights(weights, 0)
    es.create(tmp_path / "s")
    assert "torch" in embed_named(tmp_path / "s", jpegs / "0.jpg", weights)
    assert embed_named(tmp_path / "s", jpegs / "1.jpg", weights) == "[]"
    os.utime(weights)
    assert embed_named(tmp_path / "s", jpegs / "2.jpg", weights) == "[]"
    assert len(es.open(tmp_path / "s").spaces) == 1
    write_weights(weights, 1)
    assert "torch" in embed_named(tmp_path / "s", jpegs / "3.jpg", weights)
    assert [len(es.open(tmp_path / "s").features("uri", space=r.name).y) for r in es.open(tmp_path / "s").spaces] == [
        3,
        1,
    ]


@pytest.mark.parametrize(
    "more",
    [
        ["--runtime", "eager"],
        pytest.param(["--preprocess", "mean=0.5"], marks=pytest.mark.slow),
        pytest.param(["--precision", "bf16"], marks=pytest.mark.slow),
    ],
)
def test_a_backbone_is_loaded_where_the_tower_cannot_take_its_place(tmp_path, jpegs, more):
    """Another runtime, another preprocessing and half precision load the network as before."""
    write_weights(tmp_path / "w.safetensors", 0)
    es.create(tmp_path / "s")
    embed_named(tmp_path / "s", jpegs / "0.jpg", tmp_path / "w.safetensors")
    assert "torch" in embed_named(tmp_path / "s", jpegs / "1.jpg", tmp_path / "w.safetensors", *more)


def test_the_device_and_precision_decide_where_a_network_computes():
    """Half precision and several devices have no tower, and an unknown device is refused."""
    assert loading.computes_on_cpu("cpu", "auto")
    assert loading.computes_on_cpu("cpu", "fp32")
    assert not loading.computes_on_cpu("cpu", "fp16")
    assert not loading.computes_on_cpu("cpu,cpu", "auto")
    with pytest.raises(BadOption, match="no device 'tpu'"):
        loading.computes_on_cpu("tpu", "auto")


def test_a_clip_has_both_towers_after_its_first_command(tmp_path, jpegs):
    """``embed`` exports the image tower, and at its end the text tower: the first search in words needs no torch."""
    from tests.helpers.networks import local_clip

    es.create(tmp_path / "s", local_clip(tmp_path / "clip"), device="cpu")
    command = "from embedstore.cli import main; main(sys.argv[1:])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    embed = subprocess.run([sys.executable, "-m", "embedstore", "embed", str(tmp_path / "s"), str(jpegs)],
                           capture_output=True, text=True, check=True, env=environment)  # fmt: skip
    assert "exported the text tower" in embed.stderr
    hits = run(f"import sys; sys.modules['torch'] = None; {command}", "search", tmp_path / "s", "a dog", "--uris")
    assert len(hits.splitlines()) == 10


def test_a_build_of_onnxruntime_under_another_name_is_used(empty, jpegs, monkeypatch):
    """``onnxruntime-gpu`` has the module and no package of its name: its towers are written and opened all the same."""

    def other_name(name):
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(versions, "version", other_name)
    report = es.open(empty, device="cpu").embed(jpegs, progress=False)
    assert (report.runtime, report.embedded) == ("onnx", 11)
    picture(12, (90, 70)).save(jpegs / "new.jpg")
    report = es.open(empty, device="cpu").embed(jpegs, progress=False)
    assert (report.runtime, report.embedded) == ("onnx", 1)
