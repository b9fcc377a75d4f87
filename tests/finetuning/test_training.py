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
from embedstore.errors import FinetuneError
from embedstore.finetuning import parse_settings, run, task
from embedstore.finetuning.accelerator import create_accelerator
from embedstore.finetuning.augment import build_transform, cutout, recompress_jpeg
from embedstore.operations import finetune
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


def trainer(store, **options):
    """A run of a store before its first step."""
    row, said = store.spaces[0], parse_settings(QUICK | options)
    job = store._job(row, store.features("label"), "label", None, said)
    network = store.backbone(row.key)
    made = run.job_dataset(job, network)
    rows = job.split.train, job.split.val
    return run._prepared(
        job, store._load(row.recipe), made, rows, create_accelerator("cpu", "fp32"), None, lambda _: None
    )[0]


def test_rare_classes_count_in_inverse_proportion(store):
    """Of 14 images 6, 6 and 2: an error on the last weighs three times as much; the mean weight of an image is 1."""
    weights = trainer(store, class_weights=True).class_weights
    assert weights.tolist() == pytest.approx([14 / 18, 14 / 18, 14 / 6])
    assert trainer(store).class_weights.tolist() == [1, 1, 1]


def test_an_error_is_weighed_by_its_class(store):
    """Logits that say nothing cost ln 3 an image, times the weight of its class."""
    made = trainer(store, class_weights=True, smoothing=0.0)
    shares = torch.eye(3)[[0, 2]]
    expected = np.log(3) * (14 / 18 + 14 / 6) / 2
    assert float(made._loss(torch.zeros(2, 3), shares)) == pytest.approx(expected, rel=1e-5)


def test_earlier_blocks_learn_more_slowly(store):
    """Head and last block at the rate given, the one before at half of it, and so on; vectors do not fade."""
    tuned = trainer(store, lr=0.01, decay=0.5).finetune_model
    rate = {n: g["lr"] for g in tuned.groups() for n in g["names"]}
    fade = {n: g["weight_decay"] for g in tuned.groups() for n in g["names"]}
    assert rate["head.weight"] == 0.01
    for depth, block in enumerate(reversed(tuned.blocks)):
        assert {rate[f"module.{n}"] for n in block.parameters} == {0.01 * 0.5**depth}
    flat = {n: p.dim() == 1 for n, p in tuned.trainable_parameters().items()}
    assert fade == {n: 0.0 if flat[n] else 0.01 for n in fade}


def test_first_blocks_are_those_next_to_the_image(store):
    """first-1 is the stem and the head, nothing else."""
    assert {n.split(".")[1] for n in trainer(store, layers="first-1").finetune_model.trainable_parameters()} == {
        "conv1",
        "bn1",
        "weight",
        "bias",
    }


def test_it_stops_when_validation_gets_no_better(store):
    """A rate that changes nothing: epoch 1 stays the best, and after two more it stops and says so."""
    made = trainer(store, epochs=9, patience=2, lr=1e-30)
    history = made.run()
    assert (history.best, [e.number for e in history.epochs]) == (1, [0, 1, 2, 3])
    assert history.stopped == "no better figure in 2 epochs"


@pytest.mark.parametrize(
    ("losses", "diverged"),
    [
        ([1.1, 1.2, 1.3, 1.2, 1.1], False),
        ([1.1, 9.0, 1.0, 1.0, 1.0, 1.0], False),
        ([1.1, 4.0, 4.0, 4.0, 4.0, 4.0], True),
        ([1.1, float("nan")], True),
    ],
)
def test_a_loss_diverges_when_it_stays_far_above_guessing(store, losses, diverged):
    """Five steps above three times ln 3 on average, or no number; one bad step is none."""
    made = trainer(store)
    assert [made._diverged(losses[: n + 1]) for n in range(len(losses))][-1] is diverged


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
    a, b = (load_file(r.folder / "weights.safetensors") for r in (mixed, plain))
    apart = max(float((a[n].float() - b[n].float()).abs().max()) for n in a)
    assert 0 < apart < 0.01


def test_a_network_is_trained_once_more_on_everything(store):
    """refit: validation chooses as without it; then its images are learned from too."""
    result = store.finetune("label", **QUICK, refit=True, embed=False)
    again = store.finetune("label", **QUICK, embed=False)
    assert (result.facts["refitted"], again.facts["refitted"]) == (20, 0)
    assert result.facts["history"]["epochs"][-1]["val"] == again.facts["history"]["epochs"][-1]["val"]
    assert result.facts["val_score"] == again.facts["val_score"]
    assert any("once more on all 20 images" in n for n in result.notes)
    assert result.key != again.key


LAUNCH = "accelerate.commands.launch"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_together(store, tmp_path):
    """accelerate launch: one space, and weights as those of one process, since gradients are averaged over both."""
    import shutil

    alone, both = (shutil.copytree(store.path, tmp_path / n) for n in ("alone", "both"))
    how = ["--epochs", "2", "--weight-average", "none", "--set", "batch=8", "--set", "smoothing=0.05"]
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
    out = cutout(white, share=0.5, fill=P.mean)
    gone = (out != white).any(0)
    assert 0 < int(gone.sum()) <= 256
    assert {tuple(c) for c in out[:, gone].T.tolist()} == {(128, 64, 0)}
    assert int((out == 255).all(0).sum()) == 1024 - int(gone.sum())


def test_both_take_part_when_asked():
    """The transform of the settings gives other pixels with them, from the same seed."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    plain = {"crop": 1.0, "flip": False, "colour": 0.0}
    base, jpeg, erase = (
        build_transform(parse_settings(plain | more).augment, P) for more in ({}, {"jpeg": 30}, {"erase": 0.5})
    )
    assert any(not torch.equal(base(picture, s), jpeg(picture, s)) for s in range(8))
    assert any(torch.equal(base(picture, s), jpeg(picture, s)) for s in range(8))
    assert not torch.equal(base(picture, 3), erase(picture, 3))
    assert torch.equal(erase(picture, 3), erase(picture, 3))


@pytest.mark.parametrize(("name", "value"), [("jpeg", 96), ("jpeg", -1), ("erase", 1.0)])
def test_variations_out_of_range_are_refused(name, value):
    """One line that names the range."""
    with pytest.raises(FinetuneError, match=f"{name} must be from 0"):
        parse_settings({name: value})


def test_every_setting_can_be_said_from_python():
    """The options of the verb are the fields of the settings."""
    from embedstore.finetuning.settings import AugmentationSettings, FinetuneSettings

    fields = {*FinetuneSettings.__dataclass_fields__, *AugmentationSettings.__dataclass_fields__} - {"augment"}
    assert set(finetune.TuneOptions.__annotations__) == fields


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("batch", "abc", "a whole number"),
        ("batch", 2.5, "a whole number"),
        ("batch", None, "a whole number"),
        ("bn", "maybe", "true or false"),
        ("alpha", "half", "a number"),
        ("crop", True, "a number"),
        ("layers", 5, "a word"),
        ("micro", 0, "must be from 1"),
    ],
)
def test_a_value_of_another_kind_is_refused(name, value, said):
    """As the command line may give it; one line that names what it is."""
    with pytest.raises(FinetuneError, match=f"{name} .*{said}"):
        parse_settings({name: value})


def test_values_are_taken_in_the_kind_of_their_setting():
    """0 is false, numpy's numbers are numbers, nothing is nothing where that means something."""
    made = parse_settings({"bn": 1, "flip": 0, "lr": np.float32(0.5), "batch": np.int64(4), "alpha": None, "crop": 1})
    assert (made.bn, made.augment.flip, made.lr, made.batch, made.alpha) == (True, False, 0.5, 4, None)
    assert type(made.batch) is int
    assert type(made.augment.crop) is float


def test_one_and_one_point_nought_are_one_setting():
    """So the same run from the command line and from Python is recognised."""
    assert repr(parse_settings({"decay": 1, "colour": 0, "epochs": 3})) == repr(
        parse_settings({"decay": 1.0, "colour": 0.0, "epochs": 3})
    )


def test_validation_rows_never_learn(store):
    """Training, validation and held-out rows are disjoint, and together all that is labelled."""
    data = store.features("label")
    parts = task.split_rows(data)
    every = np.concatenate([parts.train, parts.val, parts.held_out])
    assert sorted(every.tolist()) == list(range(len(data)))
