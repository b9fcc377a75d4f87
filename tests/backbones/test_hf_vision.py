"""Networks of images by `hf/FOLDER`: their processor's preprocessing, their tokens, and both towers of CLIP-likes."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import embedstore as es
from embedstore.backbones import load, resolve_name
from embedstore.backbones.transformers_models.vision import processor_preprocess
from embedstore.errors import BadBackbone, WeightsNotFound
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Recipe
from tests.helpers.text_models import save_tokenizer

tf = pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32}
FAMILIES = (
    "vit",
    "dinov2",
    "registers",
    "dinov3",
    "dinov3-convnext",
    "convnext",
    "swin",
    "ijepa",
    "deit",
    "clip",
    "siglip",
)


def save_vision_model(folder, family):
    """Write configuration, random weights, processor and tokenizer of a small network."""
    torch.manual_seed(0)
    text = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    text |= {"vocab_size": 40, "max_position_embeddings": 16, "eos_token_id": 2, "pad_token_id": 1, "bos_token_id": 0}
    vision = SIZE | {"patch_size": 8}
    squash, crop = (
        {"height": 32, "width": 32},
        {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}},
    )
    match family:
        case "vit":
            module, processor = tf.ViTModel(tf.ViTConfig(**vision)), tf.ViTImageProcessor(size=squash)
        case "dinov2":
            module, processor = tf.Dinov2Model(tf.Dinov2Config(**vision)), tf.BitImageProcessor(**crop)
        case "dinov3":
            config = tf.DINOv3ViTConfig(**vision, num_register_tokens=4)
            module, processor = tf.DINOv3ViTModel(config), tf.DINOv3ViTImageProcessor(size=squash)
        case "registers":
            config = tf.Dinov2WithRegistersConfig(**vision, num_register_tokens=3)
            module, processor = tf.Dinov2WithRegistersModel(config), tf.BitImageProcessor(**crop)
        case "dinov3-convnext":
            config = tf.DINOv3ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], image_size=32)
            module, processor = tf.DINOv3ConvNextModel(config), tf.DINOv3ViTImageProcessor(size=squash)
        case "swin":
            config = tf.SwinConfig(
                image_size=32, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=4
            )
            module, processor = tf.SwinModel(config), tf.ViTImageProcessor(size=squash)
        case "deit":
            module = tf.DeiTModel(tf.DeiTConfig(**vision))
            processor = tf.DeiTImageProcessor(size={"height": 40, "width": 40}, crop_size=squash)
        case "ijepa":
            module, processor = tf.IJepaModel(tf.IJepaConfig(**vision)), tf.ViTImageProcessor(size=squash)
        case "convnext":
            config = tf.ConvNextConfig(hidden_sizes=[8, 16, 16, 32], depths=[1, 1, 1, 1], image_size=32)
            module, processor = tf.ConvNextModel(config), tf.ConvNextImageProcessor(size={"shortest_edge": 32})
        case "clip":
            config = tf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
            module, processor = tf.CLIPModel(config), tf.CLIPImageProcessor(**crop)
        case "siglip":
            config = tf.SiglipConfig(text_config=text, vision_config=vision)
            module, processor = tf.SiglipModel(config), tf.SiglipImageProcessor(size=squash)
    module.save_pretrained(folder)
    processor.save_pretrained(folder)
    if family in ("clip", "siglip"):
        save_tokenizer(folder, "roberta", "right")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("vision")
    return {family: save_vision_model(root / family, family) for family in FAMILIES}


def load_folder(folder, **recipe):
    return load(Recipe(resolve_name(f"hf/{folder}"), **recipe), device="cpu")


def photo():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


def whole_image(family, hidden):
    """The library's vectors of whole images: the class token, or the mean of a network without one."""
    if hidden.dim() == 4:
        return hidden.mean(dim=(2, 3))
    return hidden.mean(dim=1) if family in ("swin", "ijepa") else hidden[:, 0]


@pytest.mark.parametrize("family", FAMILIES)
def test_an_image_has_the_vector_of_the_library(family, folders):
    """Read by our preprocessing, an image has nearly the vector that transformers gives with its own processor."""
    backbone = load_folder(folders[family])
    pixels = resize_and_crop(photo(), backbone.space.preprocess)
    vector = backbone.encode_images(pixels[None])[0]
    processor, model = (
        tf.AutoImageProcessor.from_pretrained(folders[family]),
        tf.AutoModel.from_pretrained(folders[family]),
    )
    inputs = processor(photo(), return_tensors="pt")
    with torch.inference_mode():
        if family in ("clip", "siglip"):
            found = model.eval().get_image_features(**inputs)
            expected = (found if isinstance(found, torch.Tensor) else found.pooler_output)[0].numpy()
        else:
            expected = whole_image(family, model.eval()(**inputs).last_hidden_state)[0].numpy()
    cosine = vector @ expected / np.linalg.norm(vector) / np.linalg.norm(expected)
    assert cosine > 0.99, "torchvision's and Pillow's filters differ a little on noise"


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_clip_likes_have_both_towers(family, folders, tmp_path):
    """Texts and images share a space, the vectors of texts are the library's, and words find images."""
    backbone = load_folder(folders[family])
    tokens = backbone.tokenize(["the dog runs"])
    assert tokens.shape == (1, 16)
    model = tf.AutoModel.from_pretrained(folders[family]).eval()
    with torch.inference_mode():
        found = model.get_text_features(input_ids=torch.from_numpy(tokens))
    expected = (found if isinstance(found, torch.Tensor) else found.pooler_output)[0].numpy()
    vector = backbone.encode_texts(["the dog runs"])[0]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)
    (tmp_path / "photos").mkdir()
    photo().save(tmp_path / "photos" / "a.png")
    store = es.create(tmp_path / "v.store", f"hf/{folders[family]}", device="cpu")
    assert store.embed(tmp_path / "photos").embedded == 1
    assert len(store.search("the dog", k=1).hits) == 1
    assert store.close() is not None, "the text tower stays with PyTorch, without an error"


@pytest.mark.parametrize(("family", "first"), [("dinov3", 5), ("registers", 4), ("deit", 2), ("vit", 1), ("swin", 0)])
def test_the_mean_is_that_of_the_patches(family, first, folders):
    """`--pool mean` leaves out class, register and distillation tokens, and no patch of a network without them."""
    backbone = load_folder(folders[family], pool="mean")
    pixels = resize_and_crop(photo(), backbone.space.preprocess)
    with torch.inference_mode():
        model = tf.AutoModel.from_pretrained(folders[family]).eval()
        hidden = model(pixel_values=backbone.normalize(torch.from_numpy(pixels[None]))).last_hidden_state
    np.testing.assert_allclose(backbone.encode_images(pixels[None]), hidden[:, first:].mean(dim=1).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("config", "extractor", "reason"),
    [
        ("ViTMAEConfig", "ViTImageProcessor", "hides random patches"),
        ("DinatConfig", "ViTImageProcessor", "channels are last"),
        ("ASTConfig", "ASTFeatureExtractor", "gives no vectors here"),
        ("Wav2Vec2BertConfig", "SeamlessM4TFeatureExtractor", "gives no vectors here"),
        ("SiglipVisionConfig", "SiglipImageProcessor", "gives no vectors here"),
    ],
)
def test_a_network_whose_output_is_no_vector_is_refused_as_what_it_is(config, extractor, reason, tmp_path):
    """A network of images or sounds is not taken for one of texts that lacks its tokenizer."""
    getattr(tf, config)().save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": extractor}))
    with pytest.raises(BadBackbone, match=reason):
        load_folder(tmp_path)


def test_what_is_not_supported_is_refused(folders, tmp_path):
    """A processor of any shape, an unknown pool or layer, and a folder without a processor."""
    naflex = {"max_num_patches": 256, "image_mean": (0.5,) * 3, "image_std": (0.5,) * 3}
    for facts in (naflex, naflex | {"do_resize": False}):
        with pytest.raises(BadBackbone, match="not supported"):
            processor_preprocess(facts, "hf/x")
    for family in ("convnext", "swin"):
        with pytest.raises(BadBackbone, match="unknown pool"):
            load_folder(folders[family], pool="cls")
    with pytest.raises(BadBackbone, match="leave out --layer 1"):
        load_folder(folders["vit"], layer="1")
    bare = shutil.copytree(folders["vit"], tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(WeightsNotFound, match=r"no preprocessor_config\.json"):
        load_folder(bare)
