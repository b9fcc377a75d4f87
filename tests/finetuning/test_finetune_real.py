"""Fine-tuning on real photos: JPEG damage costs less accuracy afterwards, and a good probe does not get worse.

Minutes of training: ``pytest tests/finetuning/test_finetune_real.py -m slow``.
Settings and figures: docs/how-to/fine-tune.md.
"""

import pytest

import embedstore as es

DAMAGE_OPTIONS = {
    "layers": "first-4",
    "epochs": 8,
    "patience": 8,
    "lr": 2e-3,
    "layer_decay": 1.0,
    "update_batchnorm": True,
    "batch_size": 64,
    "label_smoothing": 0.0,
    "color_jitter": 0.0,
    "refit": True,
    "wise_alpha": 0.6,
}  # chosen on other photos with the same damage; docs/how-to/fine-tune.md lists every trial


def finetune_comparison(tmp_path, photos, backbone, weights, preprocess, settings, **options):
    """Fine-tune on real photos, and return the comparison on their held-out split."""
    allowed = {backbone} if ":" in backbone else set()
    store = es.create(tmp_path / "s", backbone, weights=weights, preprocess=preprocess, allow_code=allowed, **options)
    store.embed(photos)
    return store.finetune("label", **settings).comparison


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_tuning_the_first_blocks_reduces_the_cost_of_jpeg_damage(shared_data, unpacked, tmp_path):
    """CIFAR ResNet-20 on JPEG-damaged photos: three classifiers gain beyond their intervals."""
    weights = shared_data / "weights" / "cifar10_resnet20.safetensors"
    pixels = {"size": 32, "resize": 32, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
    comparison = finetune_comparison(
        tmp_path, unpacked("cifar10"), "tests.helpers.networks:resnet20", weights, pixels, DAMAGE_OPTIONS
    )
    assert (comparison.split, comparison.n_held_out) == ("test", 1000)
    assert {p.name: p.accuracy_gain.low > 0 for p in comparison.evaluations} == {
        "logistic": True,
        "knn": True,
        "old probe, own head of the tuned network": True,
    }


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_lp_ft_does_not_make_a_good_probe_worse(shared_data, unpacked, tmp_path):
    """Ants and bees with an ImageNet MobileNetV2: no accuracy falls by more than its interval."""
    weights = shared_data / "weights" / "mobilenetv2_035_imagenet.safetensors"
    pixels, same = {"mean": 0.5, "std": 0.5}, {"pad_type": "same", "bn_eps": 1e-3}
    photos = unpacked("hymenoptera")
    comparison = finetune_comparison(
        tmp_path, photos, "timm/mobilenetv2_035", weights, pixels, {"epochs": 2}, backbone_args=same
    )
    assert len(comparison.evaluations) == 3
    assert all(p.accuracy_gain.high >= 0 for p in comparison.evaluations)
