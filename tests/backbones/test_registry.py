"""The shipped registry: true to the libraries, found by any reasonable spelling, and light."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import open_clip
import pytest
import timm
import torch

from embedstore.backbones import list_backbones, load, registry, resolve_name
from embedstore.backbones.registry import ALIASES, load_table
from embedstore.errors import UnknownBackbone
from embedstore.space import Recipe
from tests.conftest import ROOT

WELL_KNOWN = [  # the rest is marked slow
    "timm/vgg16.tv_in1k",
    "timm/resnet50.a1_in1k",
    "timm/mobilenetv2_100.ra_in1k",
    "timm/mobilenetv2_035",
    "timm/inception_v3.tv_in1k",
    "timm/efficientnet_b0.ra_in1k",
    "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
    "timm/vit_small_patch14_dinov2.lvd142m",
    "timm/swin_tiny_patch4_window7_224.ms_in1k",
    "open_clip/RN50:openai",
    "open_clip/ViT-B-32:laion2b_s34b_b79k",
    "open_clip/ViT-L-14-quickgelu:openai",
]
FAMILIES = [
    *["vgg16", "vgg19", "resnet50", "resnet101", "resnet152", "mobilenetv2_100", "inception_v3"],
    *[f"efficientnet_b{n}" for n in range(8)],
    *["vit_base_patch16_224", "vit_large_patch16_224"],
]
same_versions = pytest.mark.skipif(
    any(version(p) != v for p, v in load_table().versions.items()),
    reason="the table was written from other versions; run python tools/backbone_facts.py",
)


@pytest.fixture(scope="module")
def tool():
    """The script that writes the table."""
    spec = importlib.util.spec_from_file_location("backbone_facts", ROOT / "tools" / "backbone_facts.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def measure(tool, name):
    """One row, measured again by the library."""
    library, _, body = name.partition("/")
    architecture, _, tag = body.partition(":")
    row = tool.timm_row(body) if library == "timm" else tool.open_clip_row(architecture, tag)
    return registry.read_row(row)


@same_versions
@pytest.mark.parametrize("name", WELL_KNOWN)
def test_a_row_equals_what_the_library_reports(tool, name):
    """Parameters, dimension, input size and license are measured again."""
    (info,) = (b for b in list_backbones() if b.name == name)
    assert measure(tool, name) == info


@pytest.mark.slow
@same_versions
def test_every_twentieth_row_equals_what_the_library_reports(tool):
    """The same over the whole table; the bundled network has no row."""
    wrong = [b.name for b in libraries()[1::20] if measure(tool, b.name) != b]
    assert wrong == []


@same_versions
def test_the_table_is_complete(tool):
    """Every pre-trained tag, every architecture without one and the bundled network occur once."""
    tagged = timm.list_pretrained()
    bare = set(timm.list_models()) - {n.partition(".")[0] for n in tagged}
    pairs = open_clip.list_pretrained()
    untagged = set(open_clip.list_models()) - {a for a, _ in pairs}
    timm_names = [n for n in [*tagged, *bare] if n.partition(".")[0] not in tool.NO_VECTOR]
    expected = {f"timm/{n}" for n in timm_names} | {f"open_clip/{a}:{t}" for a, t in pairs}
    assert len({b.name for b in list_backbones()}) == len(list_backbones())
    names = [b.name for b in libraries()]
    assert set(names) == expected | {f"open_clip/{a}" for a in untagged} | {"embedstore/tiny"}


def test_published_numbers_are_in_the_table():
    """Parameters and dimensions are those of the papers."""
    by_name = {b.name: b for b in list_backbones()}
    resnet = by_name["timm/resnet50.a1_in1k"]
    assert (resnet.parameters, resnet.dim, resnet.input_size, resnet.licence) == (
        23_508_032,
        2048,
        "224x224",
        "apache-2.0",
    )
    assert by_name["timm/vgg16.tv_in1k"].dim == 4096  # timm's own num_features says 512
    clip = by_name["open_clip/ViT-B-32:laion2b_s34b_b79k"]
    assert (clip.parameters, clip.dim, clip.supports_text, clip.family) == (151_277_313, 512, True, "clip")


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_resolves_to_its_default_tag(name):
    """A bare timm name becomes the tag that timm itself loads; EfficientNet-B6 and B7 have none (tf_… have)."""
    tag = f".{timm.get_pretrained_cfg(name).tag}" if timm.is_model_pretrained(name) else ""
    assert resolve_name(name) == f"timm/{name}{tag}"


@same_versions
def test_every_architecture_has_one_default():
    """Every bare timm name of the table resolves to one row."""
    names = {b.name for b in list_backbones()}
    for architecture in {b.name.partition(".")[0] for b in list_backbones() if b.name.startswith("timm/")}:
        assert resolve_name(architecture) in names


@pytest.mark.parametrize(
    ("name", "full_name"),
    [
        ("clip", "open_clip/ViT-B-32:laion2b_s34b_b79k"),
        ("resnet50", "timm/resnet50.a1_in1k"),
        ("timm/resnet50", "timm/resnet50.a1_in1k"),
        ("timm/resnet50.tv_in1k", "timm/resnet50.tv_in1k"),
        ("resnet50.tv_in1k", "timm/resnet50.tv_in1k"),
        ("ResNet50", "timm/resnet50.a1_in1k"),
        ("timm/mobilenetv2_035", "timm/mobilenetv2_035"),
        ("ViT-B-32:openai", "open_clip/ViT-B-32:openai"),
        ("open_clip/ViT-B/32:laion2b-s34b-b79k", "open_clip/ViT-B-32:laion2b_s34b_b79k"),
        ("open_clip/vit-l-14:OPENAI", "open_clip/ViT-L-14:openai"),
        ("open_clip/RN50", "open_clip/RN50"),
        ("RN50:openai", "open_clip/RN50:openai"),
        ("open_clip/local-dir:/a/b c", "open_clip/local-dir:/a/b c"),
        ("my.package:net", "my.package:net"),
        ("open_clip/local-dir:clip", f"open_clip/local-dir:{Path.cwd() / 'clip'}"),
        (" clip ", "open_clip/ViT-B-32:laion2b_s34b_b79k"),
    ],
)
def test_any_spelling_resolves_to_the_full_name(name, full_name):
    """Aliases, bare names, another case, open_clip's own spellings and code resolve, and full names to themselves."""
    assert resolve_name(name) == full_name
    assert resolve_name(full_name) == full_name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet5", "resnet50"),
        ("mobilenet_v2_100", "mobilenetv2_100"),
        ("timm/vit_base_patch16_225", "vit_base_patch16_224"),
        ("ViT-B32", "ViT-B-32"),
        ("resnet50.imagenet", "a1_in1k"),
        ("timm/resnet50.a9_in1k", "a1_in1k"),
        ("open_clip/ViT-B-32:laion5b", "laion2b_s34b_b79k|laion2b_e16"),
        ("", "embedstore backbones"),
        ("hf-hub:some/repo", "embedstore backbones"),
    ],
)
@same_versions
def test_an_unknown_name_lists_near_ones(name, hint):
    """The error is one line with near names or the architecture's tags."""
    with pytest.raises(UnknownBackbone, match=hint) as raised:
        resolve_name(name)
    assert "\n" not in str(raised.value)


def test_the_library_decides_about_names_of_another_version(monkeypatch):
    """The table decides only if the installed timm is the one it was written from."""
    monkeypatch.setattr(registry, "load_table", lambda table=load_table(): replace(table, versions={"timm": "0.0"}))
    assert resolve_name("timm/brand_new_net.tag") == "timm/brand_new_net.tag"
    with pytest.raises(UnknownBackbone, match="timm has no architecture 'brand_new_net'"):
        load(Recipe("timm/brand_new_net.tag"), device="cpu")


def test_aliases_are_backbones_of_the_table():
    """Every alias stands for a row."""
    assert set(ALIASES.values()) <= {b.name for b in list_backbones()}


def test_a_filter_matches_words_in_name_and_family():
    """All words must occur, in any case and order."""
    assert (
        {b.name for b in list_backbones("VGG16 bn")}
        == {b.name for b in list_backbones() if "vgg16_bn" in b.name}
        != set()
    )
    assert [b.name for b in list_backbones("laion2b s34b b79k vit-b-32")] == ["open_clip/ViT-B-32:laion2b_s34b_b79k"]
    assert all(b.family == "mobilenetv3" or "mobilenetv3" in b.name for b in list_backbones("mobilenetv3"))
    assert list_backbones("no such backbone") == []
    assert len(list_backbones()) > 2000


def test_names_are_listed_and_resolved_without_torch():
    """Listing, resolving, and even importing `load` import no heavy package."""
    code = (
        "import sys; from embedstore.backbones import list_backbones, load, resolve_name\n"
        "resolve_name('clip'); list_backbones('resnet')\n"
        "try: resolve_name('resnet5')\n"
        "except LookupError: pass\n"
        "print(sorted({'torch', 'timm', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def libraries():
    """The rows of timm, open_clip and the bundled network."""
    return [b for b in list_backbones() if not b.name.startswith("hf/")]


def test_rows_of_the_hub_have_the_parameters_of_their_architectures():
    """Built without memory from the configurations that the library documents for these names, the counts are equal."""
    tf = pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    roberta = tf.RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)
    mini = tf.BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)
    t5 = tf.T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12)
    tiny = tf.WhisperConfig(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)
    built = {
        "all-MiniLM-L6-v2": lambda: tf.BertModel(mini, add_pooling_layer=False),
        "bert-base-uncased": lambda: tf.BertModel(tf.BertConfig(), add_pooling_layer=False),
        "distilbert-base-uncased": lambda: tf.DistilBertModel(tf.DistilBertConfig()),
        "roberta-base": lambda: tf.RobertaModel(roberta, add_pooling_layer=False),
        "gpt2": lambda: tf.GPT2Model(tf.GPT2Config()),
        "xlnet-base-cased": lambda: tf.XLNetModel(tf.XLNetConfig(d_model=768, n_layer=12, n_head=12, d_inner=3072)),
        "t5-base": lambda: tf.T5EncoderModel(t5),
        "whisper-tiny": lambda: WhisperEncoder(tiny),
        "wav2vec2-base": lambda: tf.Wav2Vec2Model(tf.Wav2Vec2Config()),
        "hubert-base-ls960": lambda: tf.HubertModel(tf.HubertConfig()),
        "clap-htsat-unfused": lambda: tf.ClapModel(tf.ClapConfig()),
    }
    rows = {b.name.rpartition("/")[2]: b.parameters for b in list_backbones() if b.name.startswith("hf/")}
    with torch.device("meta"):
        counted = {name: sum(p.numel() for p in build().parameters()) for name, build in built.items()}
    assert rows == counted
