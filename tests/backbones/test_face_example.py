"""The example with networks of faces: both work through the store, with a small network and random weights."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

import embedstore as es
from embedstore.errors import CodeNotAllowed
from tests.conftest import ROOT, picture

FACES = ROOT / "examples" / "faces"
SMALL = {
    "vggface": ({"channels": 2, "units": 16}, (224, 224), 16),
    "facenet": ({"name": "test_resnet", "dim": 12}, (160, 160), 12),
}


@pytest.fixture
def faces(monkeypatch):
    """The folder of the example is the current one, as its README says."""
    monkeypatch.chdir(FACES)
    return "face_networks"


@pytest.mark.parametrize("name", SMALL)
def test_a_network_of_the_example_embeds_and_searches(faces, name, tmp_path):
    """Size and pixels are as the factory declares; a store that is opened does not run it by itself."""
    (tmp_path / "crops").mkdir()
    for n in range(4):
        picture(n).resize((200, 240)).save(tmp_path / "crops" / f"{n}.png")
    arguments, size, dim = SMALL[name]
    backbone = f"{faces}:{name}"
    store = es.create(tmp_path / "s.store", backbone, random_init=True, backbone_args=arguments, device="cpu")
    with pytest.raises(CodeNotAllowed, match="--allow-code"):
        es.open(store.path).embed(tmp_path / "crops")
    assert store.embed(tmp_path / "crops").embedded == 4
    space = store.spaces[0].space
    assert (space.preprocess.size, space.dim) == (size, dim)
    assert store.search(tmp_path / "crops" / "2.png", k=1)[0].uri.endswith("2.png")


def test_vggface_reads_what_its_publication_says(faces, monkeypatch):
    """Pixels from 0 to 255, less the published mean, in the order blue, green, red; FaceNet's vectors have length 1."""
    monkeypatch.syspath_prepend(str(FACES))
    import face_networks

    network = face_networks.vggface(channels=2, units=4).eval()
    seen = []
    network.features[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = np.asarray(Image.new("RGB", (224, 224), (10, 20, 30)), np.float32).transpose(2, 0, 1) / 255
    mean, std = (np.array(network.pretrained_cfg[key], np.float32)[:, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        network(torch.from_numpy((pixels - mean) / std)[None])
        vectors = face_networks.facenet("test_resnet", 8).eval()(torch.randn(3, 3, 160, 160))
    expected = [30 - 93.5940, 20 - 104.7624, 10 - 129.1863]
    np.testing.assert_allclose(seen[0][0, :, 5, 5].numpy(), expected, atol=1e-3)
    np.testing.assert_allclose(vectors.norm(dim=1).numpy(), 1, atol=1e-5)


def test_the_paper_s_network_has_its_size(faces, monkeypatch):
    """By default VGGFace is VGG-16: 14.7 million weights of convolutions, and 4,096 units (no memory is taken)."""
    monkeypatch.syspath_prepend(str(FACES))
    import face_networks

    with torch.device("meta"):
        network = face_networks.vggface()
    assert sum(p.numel() for p in network.features.parameters()) == 14_714_688
    assert network.fc7.out_features == 4096


def test_the_readme_names_verbs_that_exist():
    """Every command and option of the README can be typed."""
    from tests.house.test_cures import ALL_OPTIONS, VERBS

    text = (FACES / "README.md").read_text()
    assert set(re.findall(r"embedstore ([a-z][a-z-]+)", text)) - {"brings"} <= set(VERBS)
    assert set(re.findall(r"--[a-z][a-z-]+", text)) - {"--weights"} <= ALL_OPTIONS | {"--backbone", "--allow-code"}
