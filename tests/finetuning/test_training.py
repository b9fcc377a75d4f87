"""The parts of training: rates by layer, class weights, early stopping, precision, processes, how images are varied."""

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
    """Thirty textures, of class c two thirds of the training images missing: 6, 6 and 2 of them learn."""
    folder = tmp_path_factory.mktemp("training")
    photos = textures(folder / "photos", 10)
    for n in (1, 2, 5, 6):
        (photos / "train" / "c" / f"{n}.png").unlink()
    return store_of(folder / "s", photos)


def labels_of(store):
    """Class numbers of the training rows."""
    data = store.features("label")
    return np.searchsorted(["a", "b", "c"], data.y[task.split_rows(data).train].astype(str))


def network_of(store, **options):
    """A network of the store before its first step."""
    data = store.features("label")
    settings = parse_settings(QUICK | options)
    backbone = backbones.load(store.spaces[0].recipe, device="cpu")
    head = task.initial_head(data, task.split_rows(data).train, ["a", "b", "c"], settings, backbone)
    return FinetuneModel(backbone, head, settings)


def test_rare_classes_count_in_inverse_proportion(store):
    """Of 14 images 6, 6 and 2: an error on the last weighs three times as much; the mean weight of an image is 1."""
    assert class_weights(labels_of(store), 3).tolist() == pytest.approx([14 / 18, 14 / 18, 14 / 6])


def test_an_error_is_weighed_by_its_class():
    """Uninformative logits cost ln 3 an image, times the weight of its class."""
    weights, targets = torch.tensor([14 / 18, 14 / 18, 14 / 6]), torch.eye(3)[[0, 2]]
    expected = np.log(3) * (14 / 18 + 14 / 6) / 2
    assert float(weighted_loss(torch.zeros(2, 3), targets, weights, 0.0)) == pytest.approx(expected, rel=1e-5)


def test_earlier_blocks_learn_more_slowly(store):
    """Head and last block at the rate given, the one before at half of it, and so on; vectors do not fade."""
    tuned = network_of(store, lr=0.01, layer_decay=0.5)
    rate = {n: g["lr"] for g in tuned.parameter_groups() for n in g["names"]}
    fade = {n: g["weight_decay"] for g in tuned.parameter_groups() for n in g["names"]}
    assert rate["head.weight"] == 0.01
    for depth, block in enumerate(reversed(tuned.blocks)):
        assert {rate[f"module.{n}"] for n in block.parameters} == {0.01 * 0.5**depth}
    flat = {n: p.dim() == 1 for n, p in tuned.trainable_parameters().items()}
    assert fade == {n: 0.0 if flat[n] else 0.01 for n in fade}


def test_first_blocks_are_those_next_to_the_image(store):
    """first-1 is the stem and the head, nothing else."""
    assert {n.split(".")[1] for n in network_of(store, layers="first-1").trainable_parameters()} == {
        "conv1",
        "bn1",
        "weight",
        "bias",
    }


def test_it_stops_when_validation_gets_no_better(store):
    """A rate that changes nothing: epoch 1 stays the best, and after two more it stops and says so."""
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
def test_a_loss_diverges_when_it_stays_far_above_guessing(losses, diverged):
    """Five steps above three times ln 3 on average, or no number; one bad step is none."""
    assert has_diverged(losses, losses[0], 3) is diverged


def test_mixed_precision_really_runs_on_the_cpu(store):
    """Under bf16 the convolutions give bfloat16, and the weights come out near those of float32 and not the same."""
    seen = set()
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda m, _, out: seen.add(out.dtype) if isinstance(m, torch.nn.Conv2d) and m.training else None
    )
    try:
        mixed = store.finetune("label", **{**QUICK, "epochs": 1}, precision="bf16", embed=False)
    finally:
        hook.remove()
    assert seen == {torch.bfloat16}
    plain = store.finetune("label", **{**QUICK, "epochs": 1}, precision="fp32", embed=False)
    a, b = (load_file(r.checkpoint_folder / "weights.safetensors") for r in (mixed, plain))
    apart = max(float((a[n].float() - b[n].float()).abs().max()) for n in a)
    assert 0 < apart < 0.01


def test_a_network_is_trained_once_more_on_everything(store):
    """refit: validation chooses as without it; then its images are learned from too."""
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
def test_two_processes_train_together(store, tmp_path):
    """accelerate launch: one space, and weights as those of one process, since gradients are averaged over both."""
    import shutil

    alone, both = (shutil.copytree(store.path, tmp_path / n) for n in ("alone", "both"))
    how = ["--epochs", "2", "--average", "none", "--set", "batch_size=8", "--set", "label_smoothing=0.05"]
    command = ["-m", "embedstore", "finetune", "STORE", "label", *how, "--json"]
    launch = [sys.executable, "-m", LAUNCH, "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    results = []
    for start, path in (([sys.executable], alone), (launch, both)):
        said = [str(path) if word == "STORE" else word for word in command]
        done = subprocess.run([*start, *said], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads(done.stdout[done.stdout.index("{") :]))
        assert len(es.open(path).spaces) == 2
    a, b = (load_file(f"{r['folder']}/weights.safetensors") for r in results)
    assert max(float((a[n].float() - b[n].float()).abs().max()) for n in a) < 1e-4
    assert results[0]["history"]["epochs"][2]["loss"] == pytest.approx(results[1]["history"]["epochs"][2]["loss"], 1e-3)


# ---- how images are varied

P = Preprocess((32, 32), (32, 32), (0.5, 0.25, 0.0), (0.25, 0.25, 0.25))


def test_recompression_is_jpeg():
    """At quality 95 noise changes little, at 5 a lot; the same random state gives the same pixels: Pillow's."""
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8))

    def apart(lowest):
        torch.manual_seed(0)
        pictures = [recompress_jpeg(noise, min_quality=lowest) for _ in range(16)]
        return float(np.mean([(p.float() - noise.float()).abs().mean() for p in pictures]))

    assert 0 < 1.2 * apart(95) < apart(5)
    assert apart(20) == apart(20)
    torch.manual_seed(0)
    quality, halved = int(torch.randint(20, 96, ())), bool(torch.rand(()) < 0.5)
    file = io.BytesIO()
    Image.fromarray(noise.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality, subsampling=2 * halved)
    torch.manual_seed(0)
    assert np.array_equal(np.array(Image.open(file)), recompress_jpeg(noise, min_quality=20).permute(1, 2, 0).numpy())


def test_what_is_erased_is_a_square_of_the_mean_colour():
    """Half of the side: at most 256 pixels become (128, 64, 0), the others stay."""
    white = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    torch.manual_seed(1)
    out = cutout(white, fraction=0.5, fill=P.mean)
    gone = (out != white).any(0)
    assert 0 < int(gone.sum()) <= 256
    assert {tuple(c) for c in out[:, gone].T.tolist()} == {(128, 64, 0)}
    assert int((out == 255).all(0).sum()) == 1024 - int(gone.sum())


def test_both_take_part_when_asked():
    """The transform of the settings gives other pixels with them, from the same seed."""
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
def test_variations_out_of_range_are_refused(name, value):
    """One line that names the range."""
    with pytest.raises(FinetuneError, match=f"{name} must be from 0"):
        parse_settings({name: value})


def test_every_setting_can_be_said_from_python():
    """The options of the verb are the fields of the settings."""
    fields = {*FinetuneSettings.__dataclass_fields__, *AugmentationSettings.__dataclass_fields__} - {"augment"}
    assert set(FinetuneOptions.__annotations__) == fields


@pytest.mark.parametrize(
    ("name", "value", "said"),
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
def test_a_value_of_another_kind_is_refused(name, value, said):
    """As the command line may give it; one line that names what it is."""
    with pytest.raises(FinetuneError, match=f"{name} .*{said}"):
        parse_settings({name: value})


def test_values_are_taken_in_the_kind_of_their_setting():
    """0 is false, numpy's numbers are numbers, nothing is nothing where that means something."""
    made = parse_settings(
        {
            "update_batchnorm": 1,
            "flip": 0,
            "lr": np.float32(0.5),
            "batch_size": np.int64(4),
            "wise_alpha": None,
            "min_crop_scale": 1,
        }
    )
    assert (made.update_batchnorm, made.augment.flip, made.lr, made.batch_size, made.wise_alpha) == (
        True,
        False,
        0.5,
        4,
        None,
    )
    assert type(made.batch_size) is int
    assert type(made.augment.min_crop_scale) is float


def test_one_and_one_point_nought_are_one_setting():
    """So the same run from the command line and from Python is recognised."""
    assert repr(parse_settings({"layer_decay": 1, "color_jitter": 0, "epochs": 3})) == repr(
        parse_settings({"layer_decay": 1.0, "color_jitter": 0.0, "epochs": 3})
    )


def test_validation_rows_never_learn(store):
    """Training, validation and held-out rows are disjoint, and together all that is labelled."""
    data = store.features("label")
    parts = task.split_rows(data)
    every = np.concatenate([parts.train, parts.val, parts.held_out])
    assert sorted(every.tolist()) == list(range(len(data)))
