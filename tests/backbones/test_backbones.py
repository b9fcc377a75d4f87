"""Every family passes the contract and equals its library's own transform and network."""

import numpy as np
import open_clip
import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config

from embedstore.backbones import load
from embedstore.errors import BadBackbone, BadOption
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Interpolation, Recipe, ResizeMode
from tests.conftest import TINY, picture
from tests.contracts.backbone import PHOTO_SIZES, BackboneContract, centered, cosines, prepared
from tests.helpers.networks import RESNET, TIMM, VIT, local_clip

CLIP = "open_clip/ViT-B-32:laion2b_s34b_b79k"


class TestTimm(BackboneContract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls):
        return Recipe(TINY, random_init=True)


class TestTimmLayer(BackboneContract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls):
        return Recipe("timm/test_vit.r160_in1k", random_init=True, layer="2", pool="token", seed=3)


class TestClip(BackboneContract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls, tmp_path_factory):
        return Recipe(local_clip(tmp_path_factory.mktemp("clip")))


class TestClipBeforeProjection(BackboneContract):
    @pytest.fixture(scope="class")
    @classmethod
    def recipe(cls, tmp_path_factory):
        return Recipe(local_clip(tmp_path_factory.mktemp("clip"), RESNET), layer="before-projection")


FAMILIES = [  # the smallest well-known member of each, and its dimension
    ("timm/vgg11", 4096),
    ("timm/resnet10t", 512),
    ("timm/mobilenetv2_035", 1280),
    ("timm/inception_v3", 2048),
    ("timm/efficientnet_b0", 1280),
    ("timm/vit_tiny_patch16_224", 192),
    ("open_clip/RN50", 1024),
    ("open_clip/ViT-B-32", 512),
]
BIG = [
    *[(f"timm/vgg{n}", 4096) for n in (16, 19)],
    *[(f"timm/resnet{n}", 2048) for n in (50, 101, 152)],
    ("timm/mobilenetv2_100", 1280),
    *[(f"timm/efficientnet_b{n}", d) for n, d in enumerate([1280, 1280, 1408, 1536, 1792, 2048, 2304, 2560])],
    ("timm/vit_base_patch16_224", 768),
    ("timm/vit_large_patch16_224", 1024),
    ("open_clip/ViT-B-16", 512),
    ("open_clip/ViT-L-14", 768),
]


@pytest.mark.parametrize(("name", "dim"), [*FAMILIES, *(pytest.param(*f, marks=pytest.mark.slow) for f in BIG)])
def test_a_family_embeds_images(name, dim):
    """With random weights each family gives finite vectors of its dimension, and the space records that."""
    backbone = load(Recipe(name, random_init=True), device="cpu")
    images = np.stack([resize_and_crop(picture(n, (300, 200)), backbone.space.preprocess) for n in range(2)])
    vectors = backbone.encode_images(images)
    assert vectors.shape == (2, dim)
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors, axis=1).min() > 0
    assert backbone.space.has_random_weights
    assert backbone.space.dim == dim


PARITY = [
    "test_vit.r160_in1k",
    "test_efficientnet.r160_in1k",
    "vit_small_patch32_224.augreg_in21k",
    "resnet10t.c3_in1k",
]


@pytest.mark.parametrize("name", PARITY)
def test_timm_vectors_equal_timms_own_transform_and_network(name):
    """For images of five shapes, cosine and centered cosine to timm's own vectors are 1."""
    backbone = load(Recipe(f"timm/{name}", random_init=True, seed=7), device="cpu")
    torch.manual_seed(7)
    own = timm.create_model(name, num_classes=0).eval()
    transform = create_transform(**resolve_model_data_config(own), is_training=False)
    batch = torch.stack([transform(picture(n, size)) for n, size in enumerate(PHOTO_SIZES)])
    with torch.inference_mode():
        expected = own(batch).numpy()
    vectors = backbone.encode_images(prepared(backbone.space))
    assert cosines(vectors, expected).min() >= 0.99999
    assert centered(vectors, expected).min() >= 0.99999


@pytest.mark.parametrize(
    "name", ["ViT-B-32:laion2b_s34b_b79k", pytest.param("MobileCLIP-S1:datacompdr", marks=pytest.mark.slow)]
)
def test_open_clip_vectors_equal_open_clips_own_transform_and_network(name):
    """The cosine to open_clip's own vectors is 1 for images and texts, and for images the centered cosine too."""
    backbone = load(Recipe(f"open_clip/{name}", random_init=True, seed=5), device="cpu")
    architecture, _, tag = name.partition(":")
    torch.manual_seed(5)
    config = open_clip.get_pretrained_cfg(architecture, tag)
    own, _, transform = open_clip.create_model_and_transforms(
        architecture,
        load_weights=False,
        image_mean=config.get("mean"),
        image_std=config.get("std"),
        image_interpolation=config.get("interpolation"),
        image_resize_mode=config.get("resize_mode"),
    )
    own.eval()
    batch = torch.stack([transform(picture(n, size)) for n, size in enumerate(PHOTO_SIZES)])
    texts = ["a dog on a beach", "two cats"]
    with torch.inference_mode():
        expected = own.encode_image(batch, normalize=True).numpy()
        expected_texts = own.encode_text(open_clip.get_tokenizer(architecture)(texts), normalize=True).numpy()
    vectors = backbone.encode_images(prepared(backbone.space))
    assert cosines(vectors, expected).min() >= 0.99999
    assert centered(vectors, expected).min() >= 0.99999
    assert cosines(backbone.encode_texts(texts), expected_texts).min() >= 0.99999
    assert backbone.logit_scale == pytest.approx(float(own.logit_scale.detach().exp()))


@pytest.mark.parametrize(
    ("tag", "mean", "mode", "filter_"),
    [
        pytest.param(
            "ViT-B-16-SigLIP:webli", (0.5, 0.5, 0.5), ResizeMode.SQUASH, Interpolation.BICUBIC, marks=pytest.mark.slow
        ),
        ("MobileCLIP-S1:datacompdr", (0.0, 0.0, 0.0), ResizeMode.SHORTEST, Interpolation.BILINEAR),
    ],
)
def test_a_local_file_keeps_the_preprocessing_of_its_tag(tag, mean, mode, filter_, tmp_path):
    """SigLIP and MobileCLIP from a file have their own mean and filter, although open_clip itself uses OpenAI's."""
    torch.manual_seed(0)
    own = open_clip.create_model(tag.partition(":")[0], load_weights=False)
    file = tmp_path / "weights.pth"
    torch.save(own.state_dict(), file)
    del own
    space = load(Recipe(f"open_clip/{tag}", weights=str(file)), device="cpu").space
    assert (space.preprocess.mean, space.preprocess.mode, space.preprocess.interpolation) == (mean, mode, filter_)
    assert not space.has_random_weights


@pytest.mark.parametrize("name", [TINY, pytest.param("timm/swin_tiny_patch4_window7_224", marks=pytest.mark.slow)])
def test_the_final_layer_averaged_equals_the_pooled_layer(name):
    """`--layer final --pool avg` equals what ResNet and Swin (channels last) pool, and is another space."""
    pooled = load(Recipe(name, random_init=True), device="cpu")
    final = load(Recipe(name, random_init=True, layer="final", pool="avg"), device="cpu")
    assert (
        cosines(pooled.encode_images(prepared(pooled.space)), final.encode_images(prepared(final.space))).min()
        > 0.99999
    )
    assert pooled.space.key != final.space.key
    assert (pooled.space.layer, pooled.space.pool) == ("pooled", "")
    assert (final.space.layer, final.space.pool) == ("final", "avg")


def test_tokens_are_pooled_without_the_class_token():
    """`avg` and `max` pool the patches, `token` is the class token, after the network's last normalization."""
    name = "timm/test_vit.r160_in1k"
    by_pool = {p: load(Recipe(name, random_init=True, pool=p), device="cpu") for p in ("avg", "max", "token")}
    first = by_pool["avg"]
    pixels = prepared(first.space)
    with torch.inference_mode():
        tokens = first.module.forward_features(first.normalize(torch.from_numpy(pixels))).numpy()
    assert first.module.num_prefix_tokens == 1
    assert np.allclose(by_pool["avg"].encode_images(pixels), tokens[:, 1:].mean(1), atol=1e-5)
    assert np.allclose(by_pool["max"].encode_images(pixels), tokens[:, 1:].max(1), atol=1e-5)
    assert np.allclose(by_pool["token"].encode_images(pixels), tokens[:, 0], atol=1e-5)


def test_a_numbered_layer_is_the_output_of_that_stage():
    """Layer 1 of a ResNet is the average of its second intermediate map; -1 is recorded as the last one's number."""
    backbone = load(Recipe(TINY, random_init=True, layer="1"), device="cpu")
    pixels = prepared(backbone.space)
    with torch.inference_mode():
        maps = backbone.module.forward_intermediates(
            backbone.normalize(torch.from_numpy(pixels)), intermediates_only=True
        )
    assert np.allclose(backbone.encode_images(pixels), maps[1].mean((2, 3)).numpy(), atol=1e-5)
    assert load(Recipe(TINY, random_init=True, layer="-1"), device="cpu").space.layer == str(len(maps) - 1)


PROJECTIONS = [
    (VIT, lambda visual, features: features @ visual.proj),
    (RESNET, lambda visual, features: visual.attnpool.c_proj(features)),
    (TIMM, lambda visual, features: visual.head.proj(features)),
    pytest.param(
        open_clip.get_model_config("MobileCLIP-S1")["vision_cfg"],
        lambda visual, features: visual.trunk.head.fc(features),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("tower", "project"), PROJECTIONS, ids=["vit", "resnet", "timm", "mobileclip"])
def test_features_before_the_projection_project_to_the_vectors(tower, project, tmp_path):
    """The raw features, multiplied by the projection that was removed, are the usual vectors."""
    name = local_clip(tmp_path / "clip", tower)
    projected = load(Recipe(name), device="cpu")
    raw = load(Recipe(name, layer="before-projection"), device="cpu")
    features = torch.from_numpy(raw.encode_images(prepared(raw.space)))
    with torch.inference_mode():
        expected = project(projected.module.visual, features).numpy()
    assert cosines(expected, projected.encode_images(prepared(projected.space))).min() >= 0.99999
    assert (raw.space.unit, raw.space.text, raw.logit_scale) == (False, False, None)
    assert raw.space.weights == projected.space.weights
    assert raw.space.key != projected.space.key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer": "penultimate"}, "unknown layer 'penultimate'; use pooled, final or a number"),
        ({"layer": "99"}, r"has the layers 0 to \d"),
        ({"pool": "sum"}, "unknown pool 'sum'; use one of avg, max, token"),
        ({"pool": "token"}, "no class token"),
        ({"layer": "pooled", "pool": "max"}, "--layer final --pool max"),
        ({"preprocess": {"siez": 3}}, "unknown preprocessing siez"),
        ({"preprocess": {"mean": "a"}}, "--preprocess"),
        ({"args": {"frobnicate": 1}}, "cannot be built with frobnicate=1"),
        ({"args": {"num_classes": 5}}, "num_classes is set by embedstore"),
        ({"weights": "x.safetensors"}, "exclude each other"),
    ],
)
def test_an_option_that_the_network_lacks_is_a_one_line_error(changes, message):
    """The error names the option and the possible values."""
    with pytest.raises(BadBackbone, match=message) as raised:
        load(Recipe(TINY, random_init=True, **changes), device="cpu")
    assert "\n" not in str(raised.value)


def test_an_unknown_open_clip_layer_is_an_error_with_the_possible_layers():
    """The layers are the two sides of the projection."""
    with pytest.raises(BadBackbone, match="projection and before-projection"):
        load(Recipe(CLIP, random_init=True, layer="final"), device="cpu")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x"])
def test_an_absent_device_is_an_error_with_the_available_devices(device):
    """The error names the device and what to use instead."""
    with pytest.raises(BadOption, match=rf"no device '{device}' on this machine; use --device auto or one of: cpu"):
        load(Recipe(TINY, random_init=True), device=device)


def test_precision_is_full_until_a_run_chooses_another():
    """Every backbone begins in fp32, also one that may be run in bf16; an unknown precision is refused."""
    full = load(Recipe(TINY, random_init=True), device="cpu")
    half = load(Recipe(TINY, random_init=True), device="cpu", precision="bf16")
    pixels = prepared(full.space)
    np.testing.assert_array_equal(full.encode_images(pixels), half.encode_images(pixels))
    half.set_precision("bf16")
    assert cosines(full.encode_images(pixels), half.encode_images(pixels)).min() > 0.999
    assert not np.array_equal(full.encode_images(pixels), half.encode_images(pixels))
    assert full.space.key == half.space.key
    with pytest.raises(BadOption, match="unknown precision 'int8'"):
        load(Recipe(TINY, random_init=True), device="cpu", precision="int8")


@pytest.mark.gpu
def test_a_gpu_gives_the_vectors_of_the_cpu():
    """On cuda fp32 agrees to rounding and fp16 closely, and auto chooses cuda."""
    if not torch.cuda.is_available():
        pytest.skip("no cuda device")
    recipe = Recipe("timm/resnet10t", random_init=True)
    cpu = load(recipe, device="cpu")
    expected = cpu.encode_images(prepared(cpu.space))
    exact, auto = load(recipe, device="cuda", precision="fp32"), load(recipe)
    assert auto.device == "cuda"
    assert auto.half_precisions[0] == "fp16"
    auto.set_precision("fp16")
    assert exact.space.key == auto.space.key == cpu.space.key
    assert cosines(exact.encode_images(prepared(cpu.space)), expected).min() > 0.9999
    assert cosines(auto.encode_images(prepared(cpu.space)), expected).min() > 0.999


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224.augreg_in21k", "open_clip/RN50", "local"])
def test_a_network_of_fixed_size_is_built_for_the_requested_size(name, tmp_path):
    """`--preprocess size=96` builds the network for 96 pixels."""
    name = local_clip(tmp_path / "clip") if name == "local" else name
    backbone = load(
        Recipe(name, random_init=name.startswith(("timm", "open_clip")), preprocess={"size": 96}), device="cpu"
    )
    assert backbone.space.preprocess.size == (96, 96)
    assert np.isfinite(backbone.encode_images(prepared(backbone.space))).all()


def test_a_read_only_batch_is_embedded_without_a_warning(recwarn):
    """A batch from a memory map is not changed."""
    backbone = load(Recipe(TINY, random_init=True), device="cpu")
    pixels = prepared(backbone.space)
    read_only = pixels.copy()
    read_only.flags.writeable = False
    assert np.array_equal(backbone.encode_images(read_only), backbone.encode_images(pixels))
    assert not [w for w in recwarn if "writable" in str(w.message)]


def test_a_seed_determines_random_weights():
    """The same seed is the same space, another seed is another one, and the caller's own generator does not change."""
    torch.manual_seed(11)
    before = torch.random.get_rng_state()
    one, same, other = (load(Recipe(TINY, random_init=True, seed=s), device="cpu") for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert one.space.key == same.space.key != other.space.key
    assert one.space.weights.startswith("random:sha256:")


def test_preprocessing_overrides_are_recorded_in_another_space():
    """Another mean is another space and gives other vectors."""
    own = load(Recipe(TINY, random_init=True), device="cpu")
    changed = load(Recipe(TINY, random_init=True, preprocess={"mean": 0.5, "std": "0.5,0.5,0.25"}), device="cpu")
    assert changed.space.preprocess.mean == (0.5, 0.5, 0.5)
    assert changed.space.preprocess.std == (0.5, 0.5, 0.25)
    assert changed.space.key != own.space.key
    pixels = prepared(own.space)
    assert not np.allclose(own.encode_images(pixels), changed.encode_images(pixels), atol=1e-3)
