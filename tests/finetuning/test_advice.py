"""Advice before tuning, and the table from scratch / frozen / last / all."""

import io
import json

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.cli import main
from embedstore.finetuning.advice import STRATEGY_TABLE, DataSize, DomainDifference, TransferStrategy, advise
from embedstore.finetuning.domain_shift import measure_domain_shift
from embedstore.finetuning.jpeg_quality import has_visible_artifacts, jpeg_quality
from embedstore.space import Preprocess
from tests.helpers.clusters import clusters, store_of
from tests.helpers.finetune_store import store_of as textures_in
from tests.helpers.finetune_store import textures


def numbers(tmp_path, n, noise):
    """Features of two classes, a fifth of them held out by hash."""
    X, y = clusters(n, 2, noise=noise)
    return store_of(tmp_path / "s", X, label=y).features("label")


NEAR, FOREIGN = DomainDifference("batchnorm", 0.1, 256), DomainDifference("batchnorm", 0.9, 256)


@pytest.mark.parametrize(
    ("n", "domain", "expected"),
    [
        (100, NEAR, TransferStrategy.FROZEN),
        (100, FOREIGN, TransferStrategy.NEW_HEAD),
        (400, NEAR, TransferStrategy.LAST_LAYERS),
        (400, FOREIGN, TransferStrategy.ALL_LAYERS),
    ],
)
def test_the_table_is_read_by_size_and_domain(tmp_path, n, domain, expected):
    """40 or 160 labels a class, near or far; a gain is a share of the probe's error."""
    found = advise(numbers(tmp_path, n, 4.0), "label", domain)
    assert found.strategy is found.table_strategy is expected
    assert found.labels_per_class[1] == pytest.approx(0.4 * n, abs=1)
    assert 0 <= found.expected_gain[0] <= found.expected_gain[1] <= 1 - found.accuracy[0]
    assert len(found.reasons) >= 3


def test_what_is_nearly_right_is_left_alone(tmp_path):
    """No error is left: frozen features, whatever the table says, and the reason is given."""
    found = advise(numbers(tmp_path, 400, 0.1), "label", FOREIGN)
    assert (found.table_strategy, found.strategy) == (TransferStrategy.ALL_LAYERS, TransferStrategy.FROZEN)
    assert found.expected_gain == (0.0, 0.0)
    assert any("not worth the time" in r for r in found.reasons)


def test_damage_counts_as_another_domain(tmp_path):
    """Half of the images are poor JPEGs: all layers by the table, and the command begins next to the pixels."""
    found = advise(
        numbers(tmp_path, 400, 4.0), "label", DomainDifference("batchnorm", 0.1, 256, low_quality_fraction=0.5)
    )
    assert found.strategy is TransferStrategy.ALL_LAYERS
    assert "--layers first-4" in found.command
    assert any("50% are JPEGs of low quality" in r for r in found.reasons)
    assert any("next to the image" in r for r in found.reasons)
    far = advise(numbers(tmp_path / "far", 400, 4.0), "label", FOREIGN)
    assert "--layers all" in far.command
    assert not any("next to the image" in r for r in far.reasons)


@pytest.mark.parametrize(("quality", "side", "expected"), [(75, 32, True), (95, 32, False), (75, 33, False)])
def test_damage_is_poor_jpeg_that_nothing_averages(quality, side, expected):
    """Quality 75 at the network's 32 pixels, and neither quality 95 nor a larger image; a PNG never."""
    p = Preprocess((32, 32), (32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    file, plain = io.BytesIO(), io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    image.save(plain, "PNG")
    assert jpeg_quality(file.getvalue()) == pytest.approx(quality, abs=1)
    assert has_visible_artifacts(file.getvalue(), image.size, p) is expected
    assert not has_visible_artifacts(plain.getvalue(), image.size, p)


def test_the_table_has_every_case():
    """Three sizes, two domains, four strategies."""
    assert set(STRATEGY_TABLE) == {(s, far) for s in DataSize for far in (False, True)}
    assert set(STRATEGY_TABLE.values()) == set(TransferStrategy)


def test_the_shift_is_the_distance_from_the_running_statistics():
    """A network of one BatchNorm whose inputs have mean 1 and deviation 2, where 0 and 1 are remembered: sqrt(2)."""
    import torch
    from torch import nn

    from embedstore.backbones.base import Backbone, LoadedNetwork
    from embedstore.space import Family, Preprocess, Space

    module = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    p = Preprocess((4, 4), (4, 4), (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    loaded = LoadedNetwork(Family.CUSTOM, "one", "sha256:0", module, module, p, "", "")
    space = Space(Family.CUSTOM, "one", "sha256:0", p, 3, unit=False)
    network = Backbone(loaded, space, device="cpu", precision="fp32")
    module[0].running_mean.fill_(-1.0)
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    pixels[1] = 4  # mean 2, deviation 2: 3 and 1 away in units of 1
    found = measure_domain_shift(network, pixels)
    assert found.distance == pytest.approx(np.sqrt(9 + 1), rel=1e-3)
    assert (found.layers, found.images) == (1, 2)
    assert torch.equal(module[0].running_mean, torch.full((3,), -1.0))


def test_random_weights_remember_nothing(tmp_path):
    """Nothing measures the domain there, and it says so."""
    store = textures_in(tmp_path / "s", textures(tmp_path / "photos", 10))
    found = store.advise("label")
    assert found.domain.measure == "unknown"
    assert any("nothing measures the difference" in r for r in found.reasons)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_lore_is_a_table_and_a_plot(tmp_path, capsys):
    """The command gives four ways for two and for all labels, on the same held-out items, and draws them."""
    store, png = textures_in(tmp_path / "s", textures(tmp_path / "photos", 5)), tmp_path / "lore.png"
    command = ["lore", str(store.path), "label", "--budgets", "2", "--epochs", "1", "--set", "wise_alpha=0.5"]
    with pytest.raises(SystemExit) as done:
        main([*command, "--png", str(png), "--json"])
    assert done.value.code == 0
    d = json.loads(capsys.readouterr().out)
    assert [(c["way"], c["labels"]) for c in d["cells"]] == [
        (way, n) for n in (2, None) for way in ("from scratch", "frozen probe", "last layers", "all layers")
    ]
    assert {c["train"] for c in d["cells"]} == {6, 12}
    assert d["held_out"] == 3
    with Image.open(png) as image:
        assert min(image.size) > 400
    assert [s.space.parent for s in es.open(store.path).spaces] == [None]
