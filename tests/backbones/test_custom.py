"""A user's own network: allowed by name, imported from the current folder, loaded strictly."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from embedstore.backbones import load
from embedstore.errors import BadBackbone, CodeNotAllowed, UnknownBackbone, WeightsMismatch, WeightsNotFound
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Family, Recipe, ResizeMode
from tests.contracts.backbone import BackboneContract
from tests.helpers.networks import resnet20

CIFAR = {"size": 32, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
HERE = "tests.helpers.networks"


class TestCustom(BackboneContract):
    allow = (f"{HERE}:resnet20",)

    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls):
        return Recipe(f"{HERE}:resnet20", random_init=True, preprocess=CIFAR)


def custom(factory, allow=True, **options):
    name = f"{HERE}:{factory}"
    return load(Recipe(name, **options), device="cpu", allow_code=[name] if allow else [])


def test_code_runs_only_if_its_user_has_named_it(tmp_path, monkeypatch):
    """The module is not imported; the error names the option that allows it."""
    monkeypatch.chdir(tmp_path)
    Path("evil_net.py").write_text("open('was-run', 'w')\ndef net(): ...\n")
    with pytest.raises(CodeNotAllowed, match="--allow-code evil_net:net"):
        load(Recipe("evil_net:net"), device="cpu", allow_code=["evil_net:other"])
    assert not Path("was-run").exists()
    assert "evil_net" not in sys.modules


def test_the_current_folder_is_searched_without_changing_the_path(tmp_path, monkeypatch):
    """A network in a file of the current folder is found; `sys.path` is the same afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    Path("my_net_beside_me.py").write_text("from torch import nn\ndef net(): return nn.Flatten()\n")
    before = list(sys.path)
    recipe = Recipe("my_net_beside_me:net", preprocess={"size": "2x4", "mean": 0, "std": 1})
    space = load(recipe, device="cpu", allow_code=["my_net_beside_me:net"]).space
    assert (space.dim, space.family) == (24, Family.CUSTOM)
    assert sys.path == before


def test_a_networks_own_preprocessing_is_used():
    """`pretrained_cfg` in timm's scheme defines the preprocessing; arguments reach the factory."""
    backbone = custom("colors", args={"bins": 2})
    p = backbone.space.preprocess
    assert (p.size, p.resize, p.mode, p.mean, p.std) == ((24, 32), (24, 32), ResizeMode.SQUASH, (0.5,) * 3, (0.25,) * 3)
    pixels = np.zeros((1, 3, 24, 32), np.uint8)
    pixels[0, 0] = 255
    assert np.allclose(backbone.encode_images(pixels), [[2.0] * 4 + [-2.0] * 8])


def test_the_recipe_completes_the_networks_preprocessing(tmp_path, monkeypatch):
    """The size of the network with the mean and std of the recipe are one preprocessing."""
    monkeypatch.chdir(tmp_path)
    lines = ["from torch import nn", "def net():", "    n = nn.Flatten()"]
    lines += ["    n.pretrained_cfg = {'input_size': (3, 6, 8)}", "    return n"]
    Path("sized_net.py").write_text("\n".join(lines))
    recipe = Recipe("sized_net:net", preprocess={"mean": 0.1, "std": 0.2})
    p = load(recipe, device="cpu", allow_code=["sized_net:net"]).space.preprocess
    assert (p.size, p.mean, p.std) == ((6, 8), (0.1,) * 3, (0.2,) * 3)
    with pytest.raises(BadBackbone, match=r"\(mean, std\)"):
        load(Recipe("sized_net:net"), device="cpu", allow_code="sized_net:net")
    with pytest.raises(CodeNotAllowed):
        load(recipe, device="cpu", allow_code="my_sized_net:net")  # a plain string is one name


@pytest.mark.parametrize("preprocess", [{}, {"size": 32}, {"size": 32, "mean": 0.5}])
def test_preprocessing_is_never_guessed(preprocess):
    """A network that does not declare its size, mean and std is refused until they are given."""
    lacking = ", ".join(n for n in ("size", "mean", "std") if n not in preprocess)
    with pytest.raises(BadBackbone, match=rf"\({lacking}\); give --preprocess size="):
        custom("resnet20", random_init=True, preprocess=preprocess)


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("nothing", UnknownBackbone, "has no callable 'nothing'"),
        ("text", BadBackbone, "must return a torch.nn.Module, not str"),
        ("maps", BadBackbone, r"must return one vector per image, \(B, D\), but returned shape \(1, 4, 32, 32\)"),
    ],
)
def test_a_factory_without_an_embedding_is_an_error(factory, error, message):
    """A missing factory, a result that is no network, and outputs that are no vectors are three errors."""
    with pytest.raises(error, match=message):
        custom(factory, preprocess=CIFAR, random_init=True)


def test_failing_code_is_a_one_line_error(tmp_path, monkeypatch):
    """A missing module, a module that fails, and an unknown argument are reported on one line."""
    monkeypatch.chdir(tmp_path)
    Path("fails_at_import.py").write_text("raise RuntimeError('first\\nsecond')\n")
    for name, error, message in (
        ("not_there_at_all:net", UnknownBackbone, "no module 'not_there_at_all'"),
        ("fails_at_import:net", BadBackbone, "importing fails_at_import failed: first second"),
    ):
        with pytest.raises(error, match=message):
            load(Recipe(name), device="cpu", allow_code=[name])
    with pytest.raises(BadBackbone, match="unexpected keyword argument 'depth'"):
        custom("resnet20", args={"depth": 3}, preprocess=CIFAR, random_init=True)
    with pytest.raises(BadBackbone, match="--layer and --pool are for timm and open_clip"):
        custom("resnet20", layer="2", preprocess=CIFAR, random_init=True)


def test_random_weights_of_a_factory_must_be_requested():
    """A factory whose weights differ from call to call is refused without `--random-init`, and recorded with it."""
    with pytest.raises(WeightsNotFound, match=r"returns random weights.*--random-init"):
        custom("resnet20", preprocess=CIFAR)
    assert custom("resnet20", preprocess=CIFAR, random_init=True).space.has_random_weights
    assert not custom("colors").space.has_random_weights


def test_weights_of_a_file_must_fit_exactly(tmp_path):
    """A file of another depth is refused; the matching one is loaded."""
    state = resnet20().state_dict()
    save_file(state, tmp_path / "w.safetensors")
    right = custom("resnet20", weights=str(tmp_path / "w.safetensors"), preprocess=CIFAR)
    assert torch.equal(right.module.conv1.weight, state["conv1.weight"])
    with pytest.raises(WeightsMismatch, match=r"lacks \d+ parameters of tests\.helpers\.networks:resnet56: layer1\.3"):
        custom("resnet56", weights=str(tmp_path / "w.safetensors"), preprocess=CIFAR)


def test_changed_code_is_another_space_and_changed_comments_are_not(tmp_path, monkeypatch):
    """The forward determines the vectors: editing it changes the key of the space, a comment does not."""
    monkeypatch.chdir(tmp_path)
    body = "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x): return x.mean((2, 3)){}\nnet = Net\n"
    keys = []
    for change in ("", "  # mean color", " * 2"):
        Path("net_that_changes.py").write_text(body.format(change))
        sys.modules.pop("net_that_changes", None)
        importlib.invalidate_caches()
        recipe = Recipe("net_that_changes:net", preprocess={"size": 8, "mean": 0, "std": 1})
        keys.append(load(recipe, device="cpu", allow_code=[recipe.backbone]).space.key)
    assert keys[0] == keys[1] != keys[2]


def test_a_trained_custom_network_classifies_cifar(shared_data, unpacked):
    """The linear head of ResNet-20, applied to our vectors, is right for about 0.81 of CIFAR-10's test images."""
    path = shared_data / "weights" / "cifar10_resnet20.safetensors"
    backbone = custom("resnet20", weights=str(path), preprocess=CIFAR)
    files = sorted((unpacked("cifar10") / "test").rglob("*.jpg"))
    classes = sorted({f.parent.name for f in files})
    pixels = np.stack([resize_and_crop(Image.open(f), backbone.space.preprocess) for f in files])
    vectors = np.concatenate([backbone.encode_images(pixels[i : i + 100]) for i in range(0, len(pixels), 100)])
    state = load_file(path)
    predicted = (vectors @ state["linear.weight"].numpy().T + state["linear.bias"].numpy()).argmax(1)
    right = np.mean([classes[p] == f.parent.name for p, f in zip(predicted, files, strict=True)])
    assert vectors.shape == (len(files), 64)
    assert right == pytest.approx(0.81, abs=0.03)
