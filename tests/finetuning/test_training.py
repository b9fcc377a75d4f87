"""The parts of training: rates, class weights, early stopping, precision, processes, augmentation, settings."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import embedstore as es
from embedstore import backbones
from embedstore.errors import FinetuneError
from embedstore.finetuning import task
from embedstore.finetuning.augment import build_transform, cutout, recompress_jpeg
from embedstore.finetuning.model import FinetuneModel
from embedstore.finetuning.optimization import class_weights, has_diverged, weighted_loss
from embedstore.finetuning.settings import AugmentationSettings, FinetuneOptions, FinetuneSettings, parse_settings
from embedstore.space import Preprocess
from tests.conftest import ROOT
from tests.helpers.finetune_store import QUICK, store_of, textures


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Thirty textures; most training images of class c are missing: 6, 6 and 2 are left."""
    folder = tmp_path_factory.mktemp("training")
    photos = textures(folder / "photos", 10)
    for n in (1, 2, 5, 6):
        (photos / "train" / "c" / f"{n}.png").unlink()
    return store_of(folder / "s", photos)


def train_labels(store):
    """Return the class numbers of the training rows."""
    data = store.features("label")
    return np.searchsorted(["a", "b", "c"], data.y[task.split_rows(data).train].astype(str))


def network_of(store, **options):
    """Return a network of the store before its first step."""
    data = store.features("label")
    settings = parse_settings(QUICK | options)
    backbone = backbones.load(store.spaces[0].recipe, device="cpu")
    head = task.initial_head(data, task.split_rows(data).train, ["a", "b", "c"], settings, backbone)
    return FinetuneModel(backbone, head, settings)


def test_class_weights_are_inverse_to_class_frequency(store):
    """A class of 2 images weighs three times as much as each class of 6, and the mean weight of an image is 1."""
    assert class_weights(train_labels(store), 3).tolist() == pytest.approx([14 / 18, 14 / 18, 14 / 6])


def test_the_loss_is_weighted_by_class():
    """Uninformative logits cost ln 3 per image, times the weight of its class."""
    weights, targets = torch.tensor([14 / 18, 14 / 18, 14 / 6]), torch.eye(3)[[0, 2]]
    expected = np.log(3) * (14 / 18 + 14 / 6) / 2
    assert float(weighted_loss(torch.zeros(2, 3), targets, weights, 0.0)) == pytest.approx(expected, rel=1e-5)


def test_earlier_blocks_have_lower_learning_rates(store):
    """Head and last block have the given rate, the block before half of it, and so on; vectors do not decay."""
    network = network_of(store, lr=0.01, layer_decay=0.5)
    rate = {n: g["lr"] for g in network.parameter_groups() for n in g["names"]}
    decay = {n: g["weight_decay"] for g in network.parameter_groups() for n in g["names"]}
    assert rate["head.weight"] == 0.01
    for depth, block in enumerate(reversed(network.blocks)):
        assert {rate[f"module.{n}"] for n in block.parameters} == {0.01 * 0.5**depth}
    flat = {n: p.dim() == 1 for n, p in network.trainable_parameters().items()}
    assert decay == {n: 0.0 if flat[n] else 0.01 for n in decay}


def test_first_blocks_are_next_to_the_image(store):
    """first-1 trains the stem and the head only."""
    assert {n.split(".")[1] for n in network_of(store, layers="first-1").trainable_parameters()} == {
        "conv1",
        "bn1",
        "weight",
        "bias",
    }


def test_training_stops_when_validation_does_not_improve(store):
    """A rate that changes nothing: epoch 1 stays the best, and after two more the run stops with a reason."""
    history = store.finetune("label", **QUICK | {"epochs": 9}, patience=2, lr=1e-30, embed=False).training.history
    assert (history.best_epoch, [e.number for e in history.epochs]) == (1, [0, 1, 2, 3])
    assert history.stop_reason == "no better validation score in 2 epochs"


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([1.1, 1.2, 1.3, 1.2, 1.1], False),
        ([1.1, 9.0, 1.0, 1.0, 1.0, 1.0], False),
        ([1.1, 4.0, 4.0, 4.0, 4.0, 4.0], True),
        ([1.1, float("nan")], True),
    ],
)
def test_a_loss_has_diverged_when_it_stays_far_above_guessing(losses, diverged):
    """Five steps above three times ln 3 on average, or no finite number; one bad step is not divergence."""
    assert has_diverged(losses, losses[0], 3) is diverged


def test_bf16_runs_on_the_cpu(store):
    """Under bf16 convolutions give bfloat16, and the weights are near those of float32 but not equal."""
    dtypes = set()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda m, _, out: dtypes.add(out.dtype) if isinstance(m, torch.nn.Conv2d) and m.training else None
    )
    try:
        mixed = store.finetune("label", **{**QUICK, "epochs": 1}, precision="bf16", embed=False)
    finally:
        hook.remove()
    assert dtypes == {torch.bfloat16}
    plain = store.finetune("label", **{**QUICK, "epochs": 1}, precision="fp32", embed=False)
    a, b = (load_file(r.checkpoint_folder / "weights.safetensors") for r in (mixed, plain))
    difference = max(float((a[n].float() - b[n].float()).abs().max()) for n in a)
    assert 0 < difference < 0.01


def test_refit_trains_again_on_training_and_validation_images(store):
    """Validation selects the same epoch as without refit; then its images are trained on too."""
    result = store.finetune("label", **QUICK, refit=True, embed=False)
    again = store.finetune("label", **QUICK, embed=False)
    assert (result.training.refit_rows, again.training.refit_rows) == (20, 0)
    assert result.training.history.epochs[-1].val_score == again.training.history.epochs[-1].val_score
    assert result.training.val_score == again.training.val_score
    assert any("once more on all 20 images" in n for n in result.notes)
    assert result.key != again.key


LAUNCH = "accelerate.commands.launch"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_give_the_weights_of_one(store, tmp_path):
    """accelerate launch adds one space, with the weights of a single process, because gradients are averaged."""
    import shutil

    alone, both = (shutil.copytree(store.path, tmp_path / n) for n in ("alone", "both"))
    how = ["--epochs", "2", "--weight-average", "none", "--set", "batch_size=8", "--set", "label_smoothing=0.05"]
    command = ["-m", "embedstore", "finetune", "STORE", "label", *how, "--json"]
    launch = [sys.executable, "-m", LAUNCH, "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    results = []
    for start, path in (([sys.executable], alone), (launch, both)):
        arguments = [str(path) if word == "STORE" else word for word in command]
        done = subprocess.run([*start, *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads(done.stdout[done.stdout.index("{") :]))
        assert len(es.open(path).spaces) == 2
    a, b = (load_file(f"{r['folder']}/weights.safetensors") for r in results)
    assert max(float((a[n].float() - b[n].float()).abs().max()) for n in a) < 1e-4
    assert results[0]["history"]["epochs"][2]["loss"] == pytest.approx(results[1]["history"]["epochs"][2]["loss"], 1e-3)


# ---- augmentation

P = Preprocess((32, 32), (32, 32), (0.5, 0.25, 0.0), (0.25, 0.25, 0.25))


def test_recompression_gives_pillows_jpeg_pixels():
    """Quality 95 changes noise little and 5 a lot; the same random state gives the same pixels as Pillow."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8))

    def mean_change(lowest):
        torch.manual_seed(0)
        pictures = [recompress_jpeg(noise, min_quality=lowest) for _ in range(16)]
        return float(np.mean([(p.float() - noise.float()).abs().mean() for p in pictures]))

    assert 0 < 1.2 * mean_change(95) < mean_change(5)
    assert mean_change(20) == mean_change(20)
    torch.manual_seed(0)
    quality, halved = int(torch.randint(20, 96, ())), bool(torch.rand(()) < 0.5)
    file = io.BytesIO()
    Image.fromarray(noise.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=2 * halved)
    torch.manual_seed(0)
    assert np.array_equal(np.array(Image.open(file)), recompress_jpeg(noise, min_quality=20).permute(1, 2, 0).numpy())


def test_cutout_paints_a_square_of_the_mean_color():
    """Half of the side: at most 256 pixels become (128, 64, 0), and the others stay."""
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    torch.manual_seed(1)
    out = cutout(white, fraction=0.5, fill=P.mean)
    gone = (out != white).any(0)
    assert 0 < int(gone.sum()) <= 256
    assert {tuple(c) for c in out[:, gone].T.tolist()} == {(128, 64, 0)}
    assert int((out == 255).all(0).sum()) == 1024 - int(gone.sum())


def test_jpeg_and_cutout_are_part_of_the_transform():
    """The transform gives other pixels with them from the same seed."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    plain = {"min_crop_scale": 1.0, "flip": False, "color_jitter": 0.0}
    base, jpeg, erase = (
        build_transform(parse_settings(plain | more).augment, P)
        for more in ({}, {"min_jpeg_quality": 30}, {"cutout": 0.5})
    )
    assert any(not torch.equal(base(picture, s), jpeg(picture, s)) for s in range(8))
    assert any(torch.equal(base(picture, s), jpeg(picture, s)) for s in range(8))
    assert not torch.equal(base(picture, 3), erase(picture, 3))
    assert torch.equal(erase(picture, 3), erase(picture, 3))


@pytest.mark.parametrize(("name", "value"), [("min_jpeg_quality", 96), ("min_jpeg_quality", -1), ("cutout", 1.0)])
def test_augmentation_out_of_range_is_refused(name, value):
    """The error names the range."""
    with pytest.raises(FinetuneError, match=f"{name} must be from 0"):
        parse_settings({name: value})


def test_every_setting_is_a_typed_keyword():
    """The keyword arguments of finetune are the fields of the settings."""
    fields = {*FinetuneSettings.__dataclass_fields__, *AugmentationSettings.__dataclass_fields__} - {"augment"}
    assert set(FinetuneOptions.__annotations__) == fields


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("batch_size", "abc", "a whole number"),
        ("batch_size", 2.5, "a whole number"),
        ("batch_size", None, "a whole number"),
        ("update_batchnorm", "maybe", "true or false"),
        ("wise_alpha", "half", "a number"),
        ("min_crop_scale", True, "a number"),
        ("layers", 5, "a word"),
        ("micro_batch_size", 0, "must be from 1"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name, value, message):
    """The error names the setting and its type; such values come from the command line."""
    with pytest.raises(FinetuneError, match=f"{name} .*{message}"):
        parse_settings({name: value})


def test_values_are_converted_to_the_type_of_their_setting():
    """0 is false, NumPy numbers are numbers, and None stays None where it is allowed."""
    settings = parse_settings(
        {
            "update_batchnorm": 1,
            "flip": 0,
            "lr": np.float32(0.5),
            "batch_size": np.int64(4),
            "wise_alpha": None,
            "min_crop_scale": 1,
        }
    )
    assert (
        settings.update_batchnorm,
        settings.augment.flip,
        settings.lr,
        settings.batch_size,
        settings.wise_alpha,
    ) == (
        True,
        False,
        0.5,
        4,
        None,
    )
    assert type(settings.batch_size) is int
    assert type(settings.augment.min_crop_scale) is float


def test_equal_integers_and_floats_are_the_same_setting():
    """The same run is recognized from the command line and from Python."""
    assert repr(parse_settings({"layer_decay": 1, "color_jitter": 0, "epochs": 3})) == repr(
        parse_settings({"layer_decay": 1.0, "color_jitter": 0.0, "epochs": 3})
    )


def test_training_validation_and_held_out_rows_are_disjoint(store):
    """Together they are all labeled rows."""
    data = store.features("label")
    split = task.split_rows(data)
    every = np.concatenate([split.train, split.val, split.held_out])
    assert sorted(every.tolist()) == list(range(len(data)))
