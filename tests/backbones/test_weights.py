"""Weights: found, read as data only, loaded strictly, identified by their digest, random only on request."""

import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import open_clip
import pytest
import timm
import torch
from huggingface_hub import constants
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from embedstore.backbones import load, weights
from embedstore.errors import BadBackbone, UnknownBackbone, WeightsMismatch, WeightsNotFound
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Recipe
from tests.conftest import TINY, picture
from tests.contracts.backbone import centered, cosines, prepared
from tests.helpers.networks import local_clip

BARE = TINY.removeprefix("timm/")
MOBILENET = {"args": {"pad_type": "same", "bn_eps": 1e-3}, "preprocess": {"mean": 0.5, "std": 0.5}}


@pytest.fixture(scope="module")
def network():
    """Timm's small test network with its classifier, as if it had been trained."""
    torch.manual_seed(42)
    return timm.create_model(BARE)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    """Its weights as safetensors."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save_file(network.state_dict(), path)
    return path


def of(path, name=TINY, **options):
    return load(Recipe(name, weights=str(path), **options), device="cpu")


def one_line(raised):
    text = str(raised.value)
    assert "\n" not in text
    return text


def test_the_classifier_is_dropped_and_everything_else_is_loaded(network, file):
    """The vectors are the pre-logits of the network that was saved."""
    backbone = of(file)
    pixels = prepared(backbone.space)
    with torch.inference_mode():
        x = backbone.normalize(torch.from_numpy(pixels))
        expected = network.eval().forward_head(network.forward_features(x), pre_logits=True).numpy()
    assert np.allclose(backbone.encode_images(pixels), expected, atol=1e-5)
    assert not backbone.space.has_random_weights
    assert backbone.space.weights.startswith("sha256:")
    assert backbone.space.origin == str(file)


def test_the_same_weights_are_the_same_space_in_every_format(network, file, tmp_path, monkeypatch):
    """safetensors, .pth, a nested checkpoint, float16 and the hub's cache have one key."""
    state = {k: v.half().float() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pth.tar")
    save_file({k: v.half() if v.is_floating_point() else v for k, v in state.items()}, tmp_path / "d.safetensors")
    bare = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    torch.save(bare, tmp_path / "e.bin")
    keys = {of(path).space.key for path in sorted(tmp_path.glob("*.*"))}
    assert len(keys) == 1

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / f"models--timm--{BARE}" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0123abc")
    save_file(state, snapshot / "model.safetensors")
    cached = load(Recipe(TINY), device="cpu").space
    assert cached.key in keys
    assert cached.origin == f"hf-hub:timm/{BARE}"
    assert cached.licence == "apache-2.0"
    assert of(file).space.key not in keys


def test_missing_weights_are_a_one_line_error_with_place_and_cure(tmp_path, monkeypatch):
    """Offline, the error comes at once and names the files, where they were looked for and how to supply them."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    with pytest.raises(WeightsNotFound) as raised:
        load(Recipe("timm/resnet50.a1_in1k"), device="cpu")
    text = one_line(raised)
    for part in ("timm/resnet50.a1_in1k", "model.safetensors", str(tmp_path), "HF_HUB_OFFLINE", "--weights FILE"):
        assert part in text
    with pytest.raises(
        WeightsNotFound, match=r"open_clip_model\.safetensors or open_clip_pytorch_model\.bin of laion/"
    ):
        load(Recipe("open_clip/ViT-B-32:laion2b_s34b_b79k"), device="cpu")
    with pytest.raises(WeightsNotFound, match=r"gcvit_base_224.*\.pth.*HF_HUB_OFFLINE"):
        load(Recipe("timm/gcvit_base.in1k"), device="cpu")
    assert time.monotonic() - start < 5


def test_an_unreachable_hub_fails_within_seconds(tmp_path):
    """The hub's own client retries for most of a minute; one short request decides instead."""
    code = (
        "from embedstore.backbones import load; from embedstore.space import Recipe\n"
        "import timm, time; start = time.monotonic()\n"
        "try: load(Recipe('timm/resnet50.a1_in1k'), device='cpu')\n"
        "except FileNotFoundError as e: print(time.monotonic() - start < 20, 'cannot be reached' in str(e))"
    )
    there = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=False, env={**os.environ, **there}, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_an_architecture_without_pretrained_weights_is_an_error():
    """The error offers a weights file or random weights."""
    with pytest.raises(
        WeightsNotFound, match=r"no pre-trained weights; give a file with --weights FILE, or --random-init"
    ):
        load(Recipe("timm/mobilenetv2_035"), device="cpu")
    with pytest.raises(WeightsNotFound, match=r"name a tag .*laion2b_e16.* or use --random-init"):
        load(Recipe("open_clip/ViT-B-32"), device="cpu")


def test_an_absent_file_or_another_kind_of_file_is_an_error(tmp_path):
    """A missing file, a folder and an image are named in the error."""
    with pytest.raises(WeightsNotFound, match=r"no weights file .*gone\.safetensors"):
        of(tmp_path / "gone.safetensors")
    with pytest.raises(WeightsMismatch, match="is not a weights file"):
        of(tmp_path)
    picture(1).save(tmp_path / "photo.png")
    with pytest.raises(WeightsMismatch, match="is not a weights file"):
        of(tmp_path / "photo.png")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "content", [b"", b"no weights at all", b"\x80\x04garbage" * 9], ids=["empty", "text", "garbage"]
)
@pytest.mark.parametrize("name", [TINY, "open_clip/ViT-B-32:laion2b_s34b_b79k"])
def test_a_damaged_file_is_a_one_line_error(suffix, content, name, tmp_path):
    """Bytes that are not weights are refused with either suffix and by both libraries."""
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    if name.startswith("open_clip"):  # the small towers of a local folder: building ViT-B-32 ten times is slow
        name = local_clip(tmp_path / "clip")
    with pytest.raises(WeightsMismatch, match=r"cannot read weights from .*broken") as raised:
        of(path, name)
    one_line(raised)


def test_code_in_a_pickle_is_never_run(tmp_path):
    """A checkpoint that would create a file when unpickled is refused, and the file is not there."""
    mark = tmp_path / "was-run"

    class Evil:
        def __reduce__(self):
            return open, (str(mark), "w")

    torch.save({"state_dict": {"conv1.weight": torch.zeros(1)}, "args": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": Evil()}))
    clip = local_clip(tmp_path / "clip")
    for name in (TINY, clip):
        for path in ("evil.pth", "plain.pth"):
            with pytest.raises(WeightsMismatch, match="cannot read weights"):
                of(tmp_path / path, name)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("layer2.0.conv1.weight"),
            r"lacks 1 parameters of timm/test_resnet.*: layer2\.0\.conv1\.weight",
        ),
        (lambda s: s.update({"layer9.weight": torch.zeros(3)}), r"holds 1 parameters that .* lacks: layer9\.weight"),
        (
            lambda s: s.update({"conv1.0.weight": torch.zeros(3, 3)}),
            r"does not fit .*size mismatch for conv1\.0\.weight",
        ),
        (lambda s: s.pop("bn1.bias"), r"lacks 1 parameters of .*: bn1\.bias"),
    ],
    ids=["missing", "superfluous", "misshaped", "missing-bias"],
)
def test_a_file_of_another_network_is_refused(file, change, message, tmp_path):
    """A missing, unexpected or mis-shaped parameter is an error, although timm loads leniently and only logs."""
    state = load_file(file)
    change(state)
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(WeightsMismatch, match=message) as raised:
        of(tmp_path / "other.safetensors")
    assert "--backbone" in one_line(raised)


def test_a_wrong_argument_is_not_reported_as_wrong_weights(file):
    """The error names the argument that the architecture does not accept, although a file is given."""
    with pytest.raises(BadBackbone, match="cannot be built with frobnicate=1"):
        of(file, args={"frobnicate": 1})


@pytest.mark.parametrize(
    "name", ["timm/resnet_unknown", "timm/resnet18.nope", "open_clip/ViT-X", "open_clip/RN50:nope"]
)
def test_a_name_that_the_library_lacks_is_an_error(name):
    """Unknown architectures and tags are errors in either library."""
    with pytest.raises(UnknownBackbone):
        load(Recipe(name, random_init=True), device="cpu")


@pytest.mark.parametrize(
    ("name", "right"),
    [("ViT-B-32:openai", "ViT-B-32-quickgelu:openai"), ("ViT-L-14:openai", "ViT-L-14-quickgelu:openai")],
)
def test_weights_trained_with_another_activation_are_refused(name, right, tmp_path):
    """OpenAI's weights need QuickGELU: with GELU the vectors would be wrong, and the error names the variant."""
    path = tmp_path / "x.safetensors"
    path.touch()
    for recipe in (Recipe(f"open_clip/{name}"), Recipe(f"open_clip/{name}", weights=str(path))):
        with pytest.raises(BadBackbone, match=f"use open_clip/{right}"):
            load(recipe, device="cpu")


def test_the_preprocessing_of_a_clip_file_without_a_tag_is_not_guessed(tmp_path):
    """The tags of ViT-L-14 differ in their mean: a file alone is refused until the tag or the mean is given."""
    path = tmp_path / "x.safetensors"
    path.touch()
    with pytest.raises(BadBackbone, match=r"differ in mean, std.*open_clip/ViT-L-14:TAG --weights FILE"):
        load(Recipe("open_clip/ViT-L-14", weights=str(path)), device="cpu")


def test_a_local_folder_has_network_preprocessing_and_tokenizer(tmp_path):
    """Vectors of images and texts equal open_clip's own; a moved folder is the same space."""
    name = local_clip(tmp_path / "one")
    backbone = load(Recipe(name), device="cpu")
    own, _, transform = open_clip.create_model_and_transforms(name.removeprefix("open_clip/"), require_pretrained=True)
    own.eval()
    images = [picture(n, (60, 40)) for n in range(6)]
    with torch.inference_mode():
        expected = own.encode_image(torch.stack([transform(i) for i in images]), normalize=True).numpy()
        words = own.encode_text(open_clip.get_tokenizer("ViT-B-32")(["a bee"]), normalize=True).numpy()
    vectors = backbone.encode_images(np.stack([resize_and_crop(i, backbone.space.preprocess) for i in images]))
    assert cosines(vectors, expected).min() >= 0.99999
    assert centered(vectors, expected).min() >= 0.99999
    assert cosines(backbone.encode_texts(["a bee"]), words).min() >= 0.99999
    assert backbone.space.preprocess.mean == (0.5, 0.4, 0.3)
    assert backbone.space.architecture.startswith("model_cfg#")
    (tmp_path / "one").rename(tmp_path / "two")
    moved = load(Recipe(f"open_clip/local-dir:{tmp_path / 'two'}"), device="cpu").space
    assert moved.key == backbone.space.key


def test_a_local_folder_without_its_parts_is_an_error(tmp_path):
    """A missing folder, a missing or broken configuration, and missing weights are errors."""
    with pytest.raises(WeightsNotFound, match=r"open_clip_config\.json"):
        load(Recipe(f"open_clip/local-dir:{tmp_path / 'gone'}"), device="cpu")
    local_clip(tmp_path / "clip")
    (tmp_path / "clip" / "open_clip_model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"no weights \(\.safetensors, \.bin, \.pth\) in "):
        load(Recipe(f"open_clip/local-dir:{tmp_path / 'clip'}"), device="cpu")
    (tmp_path / "clip" / "open_clip_config.json").write_text("{}")
    with pytest.raises(BadBackbone, match="is not an open_clip configuration"):
        load(Recipe(f"open_clip/local-dir:{tmp_path / 'clip'}"), device="cpu")


def test_a_clip_file_of_another_architecture_is_refused(tmp_path):
    """Missing, unexpected and mis-shaped parameters are errors."""
    name = local_clip(tmp_path / "clip")
    state = load_file(tmp_path / "clip" / "open_clip_model.safetensors")
    for change in (
        lambda s: s.pop("visual.proj"),
        lambda s: s.update({"x": torch.zeros(1)}),
        lambda s: s.update({"visual.proj": torch.zeros(2, 2)}),
    ):
        changed = dict(state)
        change(changed)
        save_file(changed, tmp_path / "other.safetensors")
        with pytest.raises(WeightsMismatch, match=r"other\.safetensors does not fit") as raised:
            of(tmp_path / "other.safetensors", name)
        one_line(raised)


def test_loading_is_recorded_for_the_current_thread_only():
    """A network that another thread builds at the same time is not recorded, and no hook remains."""

    def build():
        other.append(torch.nn.Sequential(torch.nn.Linear(2, 2)))
        other[0].load_state_dict({}, strict=False)

    other = []
    with weights.record_loading() as loading:
        thread = threading.Thread(target=build)
        thread.start()
        thread.join()
        mine = torch.nn.Sequential(torch.nn.Linear(2, 2))
        mine.load_state_dict({"0.weight": torch.zeros(2, 2), "1.bias": torch.zeros(1)}, strict=False)
    assert loading.missing_and_unexpected(mine) == (["0.bias"], ["1.bias"])
    assert loading.missing_and_unexpected(other[0]) is None
    assert not mine._load_state_dict_post_hooks


@pytest.fixture(scope="module")
def mobilenets(shared_data):
    """The two real MobileNetV2: with a classifier, and without."""
    folder = shared_data / "weights"
    return folder / "mobilenetv2_100_imagenet.safetensors", folder / "mobilenetv2_035_imagenet.safetensors"


def test_real_weights_classify_real_photos(mobilenets, unpacked):
    """The classifier of MobileNetV2, applied to our vectors, is right for about 0.88 of the ImageNet photos."""
    backbone = of(mobilenets[0], "timm/mobilenetv2_100.ra_in1k", **MOBILENET)
    state = load_file(mobilenets[0])
    names = sorted(unpacked("imagenet250").rglob("*.JPEG"))[::5]
    pixels = np.stack([resize_and_crop(Image.open(n).convert("RGB"), backbone.space.preprocess) for n in names])
    vectors = backbone.encode_images(pixels)
    logits = vectors @ state["classifier.weight"].float().numpy().T + state["classifier.bias"].float().numpy()
    synsets = timm.data.ImageNetInfo().label_names()
    predicted = [synsets[i] for i in logits.argmax(1)]
    right = np.mean([p == n.parent.name.split("_")[0] for p, n in zip(predicted, names, strict=True)])
    assert right >= 0.8


def test_real_weights_give_timms_own_vectors(mobilenets, unpacked):
    """For both MobileNetV2 files, cosine and centered cosine to timm's own vectors are 1 on real photos."""
    args = MOBILENET["args"]
    overlay = {"file": str(mobilenets[0]), "num_classes": 1000}
    full = timm.create_model("mobilenetv2_100", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **args)
    headless = timm.create_model("mobilenetv2_035", checkpoint_path=str(mobilenets[1]), num_classes=0, **args)
    names = sorted(unpacked("imagenet250").rglob("*.JPEG"))[:8]
    images = [Image.open(n).convert("RGB") for n in names]
    for own, path, name in zip(
        (full, headless), mobilenets, ("mobilenetv2_100.ra_in1k", "mobilenetv2_035"), strict=True
    ):
        config = {**resolve_model_data_config(own), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        transform = create_transform(**config, is_training=False)
        with torch.inference_mode():
            expected = own.eval()(torch.stack([transform(i) for i in images])).numpy()
        backbone = of(path, f"timm/{name}", **MOBILENET)
        vectors = backbone.encode_images(np.stack([resize_and_crop(i, backbone.space.preprocess) for i in images]))
        assert cosines(vectors, expected).min() >= 0.99999
        assert centered(vectors, expected).min() >= 0.99999
