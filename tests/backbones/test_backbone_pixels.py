"""Our preprocessing gives the pixels of the network's own library, in every mode."""

import dataclasses

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg, list_pretrained

from embedstore.backbones.open_clip_models import open_clip_preprocess as clip_preprocess
from embedstore.backbones.timm_models import timm_preprocess
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import ResizeMode
from tests.conftest import picture


def _timm_configs():
    """One pre-trained name for each different preprocessing in timm."""
    seen = {}
    for name in list_pretrained():
        c = get_pretrained_cfg(name)
        seen.setdefault((c.input_size, c.crop_pct, c.crop_mode, c.interpolation, c.mean), name)
    return list(seen.values())


SOME = [
    "inception_v3.tv_in1k",
    "efficientnet_b3.ra2_in1k",
    "resnet50.a1_in1k",
    "vgg16.tv_in1k",
    "beit_base_patch16_224.in22k_ft_in22k",
]
MODES = {"squash": ResizeMode.SQUASH, "border": ResizeMode.LONGEST, "center": ResizeMode.SHORTEST}


def _same_pixels_as_timm(name):
    module = torch.nn.Identity()
    module.pretrained_cfg = get_pretrained_cfg(name).to_dict()
    config = resolve_data_config(pretrained_cfg=module.pretrained_cfg)
    transform = create_transform(**config, is_training=False, use_prefetcher=True)  # pixels, before mean and std
    ours = timm_preprocess(module)
    for n, size in enumerate([(300, 200), (131, 411)]):
        expected = np.asarray(transform(picture(n, size)))
        assert np.array_equal(resize_and_crop(picture(n, size), ours), expected), name
    assert (ours.mean, ours.std) == (tuple(config["mean"]), tuple(config["std"]))
    assert ours.mode is MODES[config["crop_mode"]]


@pytest.mark.parametrize("name", SOME)
def test_pixels_equal_timms_own(name):
    """Crop fractions and filters of well-known networks agree pixel by pixel."""
    _same_pixels_as_timm(name)


def test_pixels_equal_timms_own_in_every_crop_mode():
    """One network of each crop mode agrees: center, squash and border."""
    by_mode = {
        get_pretrained_cfg(n).crop_mode: n for n in _timm_configs() if max(get_pretrained_cfg(n).input_size) < 600
    }
    assert set(by_mode) == set(MODES)
    for name in by_mode.values():
        _same_pixels_as_timm(name)


@pytest.mark.slow
def test_pixels_equal_timms_own_for_every_configuration():
    """Every different preprocessing of timm's pre-trained networks agrees."""
    for name in _timm_configs():
        _same_pixels_as_timm(name)


@pytest.mark.parametrize("mode", list(ResizeMode))
@pytest.mark.parametrize("filter_", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [64, (48, 80)])
def test_pixels_equal_open_clips_own(mode, filter_, size):
    """Every resize mode, filter and shape of open_clip's scheme agrees pixel by pixel."""
    config = PreprocessCfg(
        size=size,
        resize_mode=mode.value,
        interpolation=filter_,
        fill_color=7,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )
    module = torch.nn.Module()
    module.visual = torch.nn.Module()
    module.visual.preprocess_cfg = dataclasses.asdict(config)
    ours = clip_preprocess(module)
    transform = image_transform_v2(config, is_train=False)
    for n, shape in enumerate([(300, 200), (131, 411)]):
        expected = (transform(picture(n, shape)).numpy() * 255).round().astype(np.uint8)
        assert np.array_equal(resize_and_crop(picture(n, shape), ours), expected)
