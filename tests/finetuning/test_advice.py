"""Advice before fine-tuning, and the measured comparison of training strategies."""

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


def features(tmp_path, n, noise):
    """Return features of two classes, a fifth of them held out by hash."""
    X, y = clusters(n, 2, noise=noise)
    return store_of(tmp_path / "s", X, label=y).features("label")


SIMILAR, DIFFERENT = DomainDifference("batchnorm", 0.1, 256), DomainDifference("batchnorm", 0.9, 256)


@pytest.mark.parametrize(
    ("n", "domain", "expected"),
    [
        (100, SIMILAR, TransferStrategy.FROZEN),
        (100, DIFFERENT, TransferStrategy.NEW_HEAD),
        (400, SIMILAR, TransferStrategy.LAST_LAYERS),
        (400, DIFFERENT, TransferStrategy.ALL_LAYERS),
    ],
)
def test_the_strategy_follows_the_table_of_size_and_domain(tmp_path, n, domain, expected):
    """40 or 160 labels per class, similar or different domain; the expected gain is a fraction of the probe's error."""
    advice = advise(features(tmp_path, n, 4.0), "label", domain)
    assert advice.strategy is advice.table_strategy is expected
    assert advice.labels_per_class[1] == pytest.approx(0.4 * n, abs=0.05 * n)
    assert 0 <= advice.expected_gain[0] <= advice.expected_gain[1] <= 1 - advice.accuracy[0]
    assert len(advice.reasons) >= 3


def test_frozen_features_are_recommended_where_the_probe_makes_no_errors(tmp_path):
    """Nothing can be gained: the advice is frozen features, whatever the table says, with the reason."""
    advice = advise(features(tmp_path, 400, 0.1), "label", DIFFERENT)
    assert (advice.table_strategy, advice.strategy) == (TransferStrategy.ALL_LAYERS, TransferStrategy.FROZEN)
    assert advice.expected_gain == (0.0, 0.0)
    assert any("not worth the time" in r for r in advice.reasons)


def test_near_copies_across_the_split_come_before_the_advice(tmp_path, capsys):
    """Of 100 held-out items 40 are copies of training items: the first line of the text says so, and the JSON."""
    X, y = clusters(300, 2, noise=4.0)
    X[200:240], y[200:240] = X[:40] + 0.01, y[:40]
    store = store_of(tmp_path / "s", X, label=y, split=["train"] * 200 + ["test"] * 100)
    advice = store.advise("label")
    assert (advice.leak.n_near, advice.leak.n_other) == (40, 60)
    with pytest.raises(SystemExit, match="0"):
        main(["advise", str(store.path)])
    assert capsys.readouterr().out.startswith("40 of 100 held-out items have a near copy in training")
    with pytest.raises(SystemExit, match="0"):
        main(["advise", str(store.path), "--json"])
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert figures["leak"]["accuracy_near"] == advice.leak.score_near
    assert advise(features(tmp_path / "none", 100, 4.0), "label", SIMILAR).leak is None


def test_damaged_images_count_as_a_different_domain(tmp_path):
    """Half of the images are low-quality JPEGs: the table says all layers, and the command tunes the first blocks."""
    advice = advise(
        features(tmp_path, 400, 4.0), "label", DomainDifference("batchnorm", 0.1, 256, low_quality_fraction=0.5)
    )
    assert advice.strategy is TransferStrategy.ALL_LAYERS
    assert "--layers first-4" in advice.command
    assert any("50% are JPEGs of low quality" in r for r in advice.reasons)
    assert any("next to the image" in r for r in advice.reasons)
    different = advise(features(tmp_path / "far", 400, 4.0), "label", DIFFERENT)
    assert "--layers all" in different.command
    assert not any("next to the image" in r for r in different.reasons)


@pytest.mark.parametrize(("quality", "side", "expected"), [(75, 32, True), (95, 32, False), (75, 33, False)])
def test_artifacts_are_visible_in_low_quality_jpegs_that_are_not_downscaled(quality, side, expected):
    """Quality 75 at the network's 32 pixels has them; quality 95, a larger image and a PNG do not."""
    p = Preprocess((32, 32), (32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8))
    file, plain = io.BytesIO(), io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    image.save(plain, "PNG")
    assert jpeg_quality(file.getvalue()) == pytest.approx(quality, abs=1)
    assert has_visible_artifacts(file.getvalue(), image.size, p) is expected
    assert not has_visible_artifacts(plain.getvalue(), image.size, p)


def test_the_table_covers_every_size_and_domain():
    """The table has three sizes, two domains and four strategies."""
    assert set(STRATEGY_TABLE) == {(size, different) for size in DataSize for different in (False, True)}
    assert set(STRATEGY_TABLE.values()) == set(TransferStrategy)


def test_domain_shift_is_the_distance_from_the_running_statistics():
    """Inputs of mean 2 and deviation 2, where BatchNorm stores mean -1 and deviation 1: sqrt(3**2 + 1**2)."""
    import torch
    from torch import nn

    from embedstore.backbones.base import Backbone, LoadedNetwork
    from embedstore.space import Family, Preprocess, Space

    module = nn.Sequential(nn.BatchNorm2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    p = Preprocess((4, 4), (4, 4), (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
    loaded = LoadedNetwork(Family.CUSTOM, "one", "sha256:0", module, module, p, "", "")
    space = Space(Family.CUSTOM, "one", "sha256:0", p, 3, unit=False)
    network = Backbone(loaded, space, device="cpu")
    module[0].running_mean.fill_(-1.0)
    pixels = np.zeros((2, 3, 4, 4), np.uint8)
    pixels[1] = 4  # mean 2 and deviation 2: 3 and 1 away in units of the running deviation
    shift = measure_domain_shift(network, pixels)
    assert shift.distance == pytest.approx(np.sqrt(9 + 1), rel=1e-3)
    assert (shift.layers, shift.images) == (1, 2)
    assert torch.equal(module[0].running_mean, torch.full((3,), -1.0))


def test_the_domain_is_unknown_for_random_weights(tmp_path):
    """A network with random weights has no training domain, and the advice says so."""
    store = textures_in(tmp_path / "s", textures(tmp_path / "photos", 10))
    advice = store.advise("label")
    assert advice.domain.measure == "unknown"
    assert any("nothing measures the difference" in r for r in advice.reasons)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_strategies_are_compared_in_a_table_and_a_plot(tmp_path, capsys):
    """The command trains four regimes on two and on all labels, judges them on the same items, and draws the result."""
    store, png = textures_in(tmp_path / "s", textures(tmp_path / "photos", 5)), tmp_path / "strategies.png"
    command = ["compare-strategies", str(store.path), "label", "--labels-per-class", "2", "--epochs", "1"]
    command += ["--set", "wise_alpha=0.5"]
    with pytest.raises(SystemExit) as done:
        main([*command, "-o", str(png), "--json"])
    assert done.value.code == 0
    d = json.loads(capsys.readouterr().out)
    assert [(c["way"], c["labels"]) for c in d["cells"]] == [
        (regime, n) for n in (2, None) for regime in ("from scratch", "frozen probe", "last layers", "all layers")
    ]
    few, every = sorted({c["train"] for c in d["cells"]})
    assert few == 6
    assert every + d["held_out"] == 15
    assert 3 <= d["held_out"] <= 6, "of each class of five one or two"
    with Image.open(png) as image:
        assert min(image.size) > 400
    assert [s.space.parent for s in es.open(store.path).spaces] == [None]
