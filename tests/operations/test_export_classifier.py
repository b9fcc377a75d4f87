"""A classifier as one file gives the probabilities of the store, without the store."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.cli import main
from embedstore.errors import BadBackbone, BadHead, OutputError, RuntimeMismatch
from embedstore.operations import export_classifier
from tests.conftest import ROOT, picture
from tests.helpers.clusters import clusters, store_of

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
EXAMPLE = ROOT / "examples" / "onnx-classifier" / "classify.py"
BLOCKED = "import runpy, sys; sys.modules.update(embedstore=None, torch=None); sys.argv = sys.argv[1:]; "
MOBILENET = {"pad_type": "same", "bn_eps": 1e-3}


def run_example(model, photos):
    """The lines of the example in a fresh process that can import neither embedstore nor PyTorch."""
    command = [sys.executable, "-I", "-c", BLOCKED + "runpy.run_path(sys.argv[0])", EXAMPLE, model, *photos]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([os.fspath(c) for c in command], env=environment, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of colored pictures in many sizes with heads of each kind."""
    folder = tmp_path_factory.mktemp("export")
    for n in range(24):
        path = folder / "photos" / ("cat" if n % 2 else "dog") / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n, (20 + 9 * n, 200 - 7 * n)).save(path)
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "photos")
    for head in ("logistic", "prototype", "knn"):
        store.probe("label", head=head, save_as=head)
    store.probe("label", calibrate="isotonic", save_as="isotonic")
    store.probe("label", calibrate="temperature", abstain_precision=0.9, save_as="strict")
    store.probe("label", conformal_alpha=0.2, save_as="sets")
    return store


@pytest.mark.parametrize("head", ["logistic", "prototype", "isotonic", "strict", "sets"])
def test_the_file_gives_the_probabilities_of_the_store(world, tmp_path, head):
    """Pictures that are no items, of any shape: probabilities to 1e-4, label or set as `classify` says."""
    result = world.export_classifier(head, tmp_path / "c.onnx")
    assert result.max_difference < 1e-5
    assert (result.images, result.classes, result.bytes) == (16, 2, (tmp_path / "c.onnx").stat().st_size)
    session = runtime.InferenceSession(result.path, providers=["CPUExecutionProvider"])
    for seed, size in enumerate([(31, 77), (300, 40), (8, 8), (64, 64), (500, 375)], 100):
        image = picture(seed, size)
        outputs = session.run(None, {"images": np.asarray(image)[None]})
        expected = world.classify([image], head)[0]
        found = dict(zip(["cat", "dog"], outputs[0][0].tolist(), strict=True))
        assert found == pytest.approx(dict(expected.probabilities), abs=1e-4)
        if head == "sets":
            assert [c for c, member in zip(["cat", "dog"], outputs[1][0], strict=True) if member] == [*expected.labels]
        else:
            assert outputs[1][0] == (expected.labels[0] if expected.labels else "none of these")


def test_images_of_one_size_go_in_one_batch_and_the_metadata_say_what_it_is(world, tmp_path):
    """Three images at once; classes, label, preprocessing and the form of the input are in the model."""
    world.export_classifier("logistic", tmp_path / "c.onnx")
    session = runtime.InferenceSession(tmp_path / "c.onnx", providers=["CPUExecutionProvider"])
    images = np.stack([np.asarray(picture(n, (50, 30))) for n in range(3)])
    together = session.run(["probabilities"], {"images": images})[0]
    alone = [session.run(["probabilities"], {"images": image[None]})[0][0] for image in images]
    assert together == pytest.approx(np.stack(alone), abs=1e-6)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["cat", "dog"]
    assert json.loads(facts["preprocess"])["interpolation"] == world.spaces[0].space.preprocess.interpolation
    assert facts["label"] == "label"
    assert facts["head"] == "logistic (logistic)"
    assert "uint8" in facts["input"]


def test_the_example_runs_without_embedstore_and_pytorch(world, tmp_path, capsys):
    """A fresh process: a turned JPEG, a transparent PNG and gray pictures of 8 and 16 bits; the store says the same."""
    with pytest.raises(SystemExit, match="0"):
        main(["export-classifier", str(world.path), "logistic", str(tmp_path / "c.onnx")])
    assert "2 classes; probabilities of 16 images differ by at most" in capsys.readouterr().out
    exif = Image.Exif()
    exif[274] = 6
    photos = [tmp_path / name for name in ("turned.jpg", "clear.png", "gray.png", "sixteen.png")]
    picture(1, (90, 40)).save(photos[0], exif=exif)
    clear = picture(2, (33, 60)).convert("RGBA")
    clear.putalpha(picture(3, (33, 60)).convert("L"))
    clear.save(photos[1])
    picture(4, (70, 70)).convert("L").save(photos[2])
    levels = np.asarray(picture(5, (40, 60)).convert("L"), np.uint16)
    Image.fromarray(levels * 256 + 77).save(photos[3])
    lines = run_example(tmp_path / "c.onnx", photos)
    for line, expected in zip(lines, world.classify([str(p) for p in photos], "logistic"), strict=True):
        assert line[0] == expected.labels[0]
        assert float(line[1]) == pytest.approx(expected.score, abs=1e-4)


@pytest.mark.parametrize(
    ("head", "name", "error", "match"),
    [
        ("knn", "c.onnx", BadHead, "training rows"),
        ("logistic", "c.npz", BadHead, r"exported to \.onnx"),
        ("logistic", "c.onnx/below.onnx", OutputError, "cannot write"),
    ],
)
def test_what_cannot_be_exported_is_refused(world, tmp_path, head, name, error, match):
    """A head of training rows, another suffix, and a file as a folder; nothing is left behind."""
    if "/" in name:
        (tmp_path / "c.onnx").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=match):
        world.export_classifier(head, tmp_path / name)
    assert sorted(tmp_path.iterdir()) == before


def test_numbers_are_refused_and_precomputed_vectors_name_the_other_command(world, tmp_path):
    """A head of numbers has no classes; a space of vectors has no network, and its head can leave alone."""
    world.edit({"warmth": "item / 10.0"}, "true", create_columns=True)
    world.probe("warmth", save_as="warmth")
    with pytest.raises(BadHead, match="predicts numbers"):
        world.export_classifier("warmth", tmp_path / "c.onnx")
    X, y = clusters(60)
    vectors = store_of(tmp_path / "v", X, label=y)
    vectors.probe("label", save_as="far")
    with pytest.raises(BadBackbone, match=r"`embedstore export-head STORE far FILE\.onnx`"):
        vectors.export_classifier("far", tmp_path / "c.onnx")
    vectors.export_head("far", tmp_path / "far.onnx")


def test_a_model_that_gives_other_probabilities_is_not_written(world, tmp_path, monkeypatch):
    """The comparison with the store decides: here nothing is close enough."""
    monkeypatch.setattr(export_classifier, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeMismatch, match="nothing was written"):
        world.export_classifier("logistic", tmp_path / "c.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_store_whose_files_are_gone_is_compared_on_generated_images(tmp_path, photos):
    """The head leaves with its backbone also where no photo can be read."""
    store = es.create(tmp_path / "s", "tiny")
    store.embed(photos)
    store.probe("label", save_as="h")
    for path in photos.rglob("*.png"):
        path.unlink()
    result = store.export_classifier("h", tmp_path / "c.onnx")
    assert result.images == 3
    assert result.max_difference < 1e-4


def test_photos_of_ants_and_bees(tmp_path, unpacked, shared_data):
    """MobileNetV2 on photos that did not train, in a fresh process: the store's probabilities to 1e-4."""
    folder = unpacked("hymenoptera")
    weights = shared_data / "weights" / "mobilenetv2_035_imagenet.safetensors"
    store = es.create(tmp_path / "s", "timm/mobilenetv2_035", weights=weights, backbone_args=MOBILENET)
    for label in ("ants", "bees"):
        (tmp_path / "some" / label).mkdir(parents=True)
        for path in sorted((folder / "train" / label).glob("*.jpg"))[:20]:
            shutil.copy(path, tmp_path / "some" / label)
    store.embed(tmp_path / "some")
    store.probe("label", calibrate="temperature", save_as="insects")
    result = store.export_classifier("insects", tmp_path / "c.onnx")
    assert result.max_difference < 1e-4
    photos = [p for label in ("ants", "bees") for p in sorted((folder / "val" / label).glob("*.jpg"))[:8]]
    lines = run_example(tmp_path / "c.onnx", photos)
    for line, expected in zip(lines, store.classify([str(p) for p in photos], "insects"), strict=True):
        assert line[0] == expected.labels[0]
        assert float(line[1]) == pytest.approx(expected.score, abs=1e-4)
