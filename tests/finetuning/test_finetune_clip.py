"""Fine-tuning of transformers and of CLIP's image encoder; adapters, mixtures of weights, blocks of any network."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import embedstore as es
from embedstore.backbones import load
from embedstore.errors import FinetuneError
from embedstore.finetuning.layers import select_blocks
from embedstore.finetuning.model import backbone_blocks
from embedstore.space import Recipe
from tests.helpers.finetune_store import QUICK, store_of, textures, vectors
from tests.helpers.networks import local_clip

VIT = "timm/test_vit.r160_in1k"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return textures(tmp_path_factory.mktemp("towers") / "photos", 10)


@pytest.fixture(scope="module")
def clip(tmp_path_factory, photos):
    """A store of a tiny CLIP, and the result of tuning its last block."""
    folder = tmp_path_factory.mktemp("clip")
    store = es.create(folder / "s", local_clip(folder / "clip"), dtype="float32")
    store.embed(photos)
    return store, store.finetune("label", **QUICK, layers="last-1", lr=1e-3)


def blocks(backbone, **options):
    """Return the blocks of a network with random weights."""
    recipe = Recipe(backbone, random_init=True, **options)
    return backbone_blocks(load(recipe, device="cpu", allow_code={backbone}))


def test_blocks_of_a_residual_network():
    """The stem comes first, then every residual block in order; the unused classifier is left out."""
    found = blocks("tests.helpers.networks:resnet20", preprocess={"size": 32, "resize": 32, "mean": 0.5, "std": 0.25})
    assert [b.name for b in found] == ["stem", *(f"layer{s}.{n}" for s in (1, 2, 3) for n in range(3))]
    assert found[0].parameters == ("conv1.weight", "bn1.weight", "bn1.bias") or set(found[0].parameters) == {
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
    }
    assert [b.name for b in select_blocks(found, "last-2")] == ["layer3.1", "layer3.2"]
    assert select_blocks(found, "head") == []
    with pytest.raises(FinetuneError, match="10 blocks"):
        select_blocks(found, "last-11")


def test_blocks_of_a_vision_transformer():
    """The embedding comes first, then the blocks in order; the last norm belongs to the last block."""
    found = blocks(VIT)
    assert [b.name for b in found][1:] == [f"blocks.{n}" for n in range(len(found) - 1)]
    assert {"cls_token", "pos_embed"} <= set(found[0].parameters)
    assert any(n.startswith(("norm", "fc_norm")) for n in found[-1].parameters)


@pytest.mark.slow
def test_blocks_inside_nested_stages_are_found():
    """MobileNetV2 has seventeen inverted residuals, the last with the layers behind it."""
    found = blocks("timm/mobilenetv2_100")
    assert len(found) == 1 + 17
    assert any(n.startswith("conv_head") for n in found[-1].parameters)


def test_the_text_encoder_is_not_trained(clip):
    """Only parameters of the image encoder change; texts have the same vectors in both spaces."""
    store, result = clip
    now = load_file(result.checkpoint_folder / "weights.safetensors")
    before = store.backbone(store.spaces[0].key).module.state_dict()
    changed = {n for n in now if not torch.equal(now[n], before[n])}
    assert changed
    assert all(n.startswith("visual.") for n in changed)
    texts = ["a photo of a cat", "stripes"]
    old, new = (store.backbone(key).encode_texts(texts) for key in (result.parent.key, result.key))
    assert np.array_equal(old, new)


def test_zero_shot_in_two_spaces_prints_no_warning_about_weights(clip):
    """Both text encoders are loaded in one new process without a warning about random weights."""
    store, result = clip
    script = f"import embedstore as es; s = es.open({str(store.path)!r})\n" + "".join(
        f"s.zero_shot(['stripes', 'dots'], space={name!r})\n" for name in (store.spaces[0].name, result.space)
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "weights" not in done.stderr


def test_text_queries_work_in_the_tuned_space(clip):
    """They work in a reopened store, and the comparison includes zero-shot."""
    store, result = clip
    assert len(es.open(store.path).search("stripes", k=5, space=result.space)) == 5
    assert "zero-shot" in [p.name for p in result.comparison.evaluations]


def test_a_text_head_starts_at_zero_shot_accuracy(clip):
    """With head_init=text the validation accuracy before any epoch is that of zero-shot."""
    store, _ = clip
    result = store.finetune("label", epochs=0, head_init="text", embed=False)
    first = result.training.history.epochs[0].val_score.accuracy
    zero_shot = store.zero_shot(list(result.training.classes)).evaluate("label", where="split = 'val'")
    assert first == pytest.approx(zero_shot.accuracy)


def test_adapters_are_merged_into_a_transformer(tmp_path, photos):
    """The saved network has its own parameter names, only linear weights of blocks changed, and it embeds."""
    store = store_of(tmp_path / "s", photos, VIT)
    result = store.finetune("label", **QUICK, layers="lora", lr=1e-2)
    now = load_file(result.checkpoint_folder / "weights.safetensors")
    before = store.backbone(store.spaces[0].key).module.state_dict()
    assert set(now) == set(before)
    changed = {n for n in now if not torch.equal(now[n], before[n])}
    assert changed
    assert all(n.startswith("blocks.") and n.endswith("weight") for n in changed)
    assert result.training.trainable_parameters < sum(t.numel() for t in before.values()) / 4
    assert len(vectors(store, result.key)) == 30


@pytest.mark.slow
def test_adapters_fit_the_attention_of_open_clip(clip):
    """A run with layers=lora changes the vectors."""
    store, _ = clip
    result = store.finetune("label", **QUICK, layers="lora", lr=1e-2, embed=False)
    assert not result.has_same_vectors


@pytest.mark.slow
def test_wise_weights_are_interpolated_linearly(tmp_path, photos):
    """WiSE tries eleven mixtures; the kept weights are exactly between old and new by the selected alpha."""
    store = store_of(tmp_path / "s", photos, VIT)
    wise = store.finetune("label", **{**QUICK, "weight_average": "wise"}, embed=False)
    plain = store.finetune("label", **QUICK, embed=False)
    alpha = wise.training.wise_alpha
    assert [a for a, _ in wise.training.mixtures] == [round(i / 10, 1) for i in range(11)]
    before = store.backbone(store.spaces[0].key).module.state_dict()
    new, mixed = (load_file(r.checkpoint_folder / "weights.safetensors") for r in (plain, wise))
    for name, old in before.items():
        assert torch.allclose(mixed[name], torch.lerp(old, new[name], alpha), atol=1e-6)


def test_wise_alpha_fixes_the_mixture(tmp_path, photos):
    """Network, head and BatchNorm statistics are mixed by wise_alpha, and only this mixture is scored."""
    store = store_of(tmp_path / "s", photos)
    plain, mixed = (
        store.finetune("label", **QUICK, update_batchnorm=True, embed=False, wise_alpha=a) for a in (None, 0.25)
    )
    assert (plain.training.wise_alpha, mixed.training.wise_alpha) == (None, 0.25)
    assert mixed.training.mixtures == ((0.25, mixed.training.val_score),)
    before = store.backbone(store.spaces[0].key).module.state_dict()
    new, between = (load_file(r.checkpoint_folder / "weights.safetensors") for r in (plain, mixed))
    assert any(not torch.equal(new[n], before[n]) for n in new if "running" in n)
    for name, value in new.items():
        if value.is_floating_point():
            assert torch.allclose(between[name], torch.lerp(before[name], value, 0.25), atol=1e-6)
    heads = [load_file(r.checkpoint_folder / "head.safetensors")["weight"] for r in (plain, mixed)]
    first = store.finetune("label", epochs=0, embed=False)
    start = load_file(first.checkpoint_folder / "head.safetensors")["weight"]
    assert torch.allclose(heads[1], torch.lerp(start, heads[0], 0.25), atol=1e-5)


@pytest.mark.slow
def test_gradients_accumulate_over_micro_batches(tmp_path, photos):
    """Two images in memory at once give the weights of eight at once."""
    store = store_of(tmp_path / "s", photos)
    options = {**QUICK, "epochs": 1, "embed": False}
    whole, parts = (store.finetune("label", **options, micro_batch_size=m) for m in (None, 2))
    a, b = (load_file(r.checkpoint_folder / "weights.safetensors") for r in (whole, parts))
    assert max(float((a[n].float() - b[n].float()).abs().max()) for n in a) < 2e-5
    assert any("accumulated" in n for n in parts.notes)


def test_the_head_starts_as_the_probe(tmp_path, photos):
    """Before the first epoch validation equals the logistic regression on the cached features."""
    store = store_of(tmp_path / "s", photos)
    first = store.finetune("label", epochs=0, embed=False).training.history.epochs[0].val_score
    data = store.features("label")
    from embedstore.classify.heads import make_head

    train, val = (data.take(np.flatnonzero(data.splits == s)) for s in ("train", "val"))
    probe = make_head("logistic", cv=5).fit(train.X, train.y, groups=train.groups)
    assert first.accuracy == pytest.approx((probe.predict(val.X) == val.y).mean())
    proba = probe.predict_proba(val.X)[np.arange(len(val)), np.searchsorted(probe.classes_, val.y.astype(str))]
    assert first.loss == pytest.approx(float(-np.log(proba).mean()), abs=1e-3)
