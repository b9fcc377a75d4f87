"""Heads through the store on real photos and vectors, pinned to ``golden/probes.json``.

After a change that is meant to move a figure: ``EMBEDSTORE_UPDATE_GOLDEN=1 pytest tests/classify/test_probes_real.py -m "slow or not slow"``.
"""  # noqa: E501

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import embedstore as es

GOLDEN = Path(__file__).parent.parent / "golden" / "probes.json"
UPDATE = "EMBEDSTORE_UPDATE_GOLDEN"
COMMAND = f'{UPDATE}=1 pytest tests/classify/test_probes_real.py -m "slow or not slow"'
TOLERANCE = 0.02  # another BLAS or decoder may turn a row or two of a hundred
ARGS = {"pad_type": "same", "bn_eps": 1e-3}
HALF = {"mean": 0.5, "std": 0.5}


def pinned(name, found):
    """Figures near the golden ones."""
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get(UPDATE):
        GOLDEN.write_text(json.dumps({**golden, name: found}, indent=2, sort_keys=True) + "\n")
        return
    assert found == pytest.approx(golden[name], abs=TOLERANCE), f"if the change is meant: {COMMAND}"


def judged(store, heads, **how):
    return {head: round(store.probe("label", head=head, **how).accuracy, 4) for head in heads}


@pytest.fixture(scope="module")
def photos(unpacked, shared_data, tmp_path_factory):
    """Ants and bees in the space of an ImageNet MobileNetV2."""
    weights = shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors"
    path = tmp_path_factory.mktemp("probes") / "s"
    store = es.create(path, "timm/mobilenetv2_100", weights=weights, backbone_args=ARGS, preprocess=HALF)
    store.embed(unpacked("hymenoptera"))
    return store


@pytest.mark.slow
def test_ants_and_bees(photos):
    """Every head on the val split at its figure; logistic regression and 5-NN at .93 at least."""
    found = judged(photos, ["logistic", "knn", "prototype", "svm", "ridge", "lda"])
    assert min(found["logistic"], found["knn"]) >= 0.93
    pinned("hymenoptera val", found)


@pytest.mark.slow
def test_a_saved_copy_across_the_split_is_caught(photos, unpacked, tmp_path):
    """Six val photos saved again as JPEG stand in train: each is named, with its original, by content's likeness."""
    folder = tmp_path / "photos"
    originals = sorted((unpacked("hymenoptera") / "val" / "bees").glob("*.jpg"))
    for n, path in enumerate(originals[:20]):
        target = folder / "val" / "bees" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        if n < 6:
            copy = folder / "train" / "ants" / f"copy-{path.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(copy, quality=90)
    for path in originals[20:30]:
        target = folder / "train" / "bees" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    store = es.create(
        tmp_path / "s",
        "timm/mobilenetv2_100",
        weights=photos.spaces[0].recipe.weights,
        backbone_args=ARGS,
        preprocess=HALF,
    )
    store.embed(folder)
    e = store.probe("label", head="knn", near_duplicate_threshold=0.9)
    assert e.n_leaks == 0, "other bytes: the contents differ"
    uris = store.item_uris([i for p in e.near_duplicates.pairs for i in (p.train_item, p.held_out_item)])
    found = {(Path(uris[p.train_item]).name, Path(uris[p.held_out_item]).name) for p in e.near_duplicates.pairs}
    assert found == {(f"copy-{p.name}", p.name) for p in originals[:6]}


@pytest.mark.slow
def test_flipped_photo_labels_are_found(photos):
    """12 of 240 labels flipped: of the first 12 suspects at least 7 are among them (chance: 0.6)."""
    from dataclasses import replace

    from embedstore.classify.evaluation.label_errors import label_errors

    data = photos.features("label")
    rows = np.random.default_rng(0).choice(len(data), 12, replace=False)
    y = data.y.copy()
    y[rows] = np.where(y[rows] == "ants", "bees", "ants")
    found = label_errors(replace(data, y=y))
    first = [s.item for s in found.issues[:12]]
    hits = len(set(first) & set(data.ids[rows].tolist()))
    assert hits / len(first) >= 7 / 12


@pytest.mark.slow
def test_few_labels_go_far(photos):
    """Eight labels a class are within 6 points of all of them, and far above one (Kornblith's lesson on 120 photos)."""
    curve = photos.learning_curve("label", head="prototype", labels_per_class=(1, 8))
    one, eight, every = (p.mean for p in curve.points)
    assert every - eight < 0.06
    assert eight - one > 0.05


def test_clip_vectors_of_cifar(shared_data, tmp_path):
    """500 real CLIP vectors in 5 folds: the 95% intervals hold 0.920 (logistic regression) and 0.874 (5-NN), which
    were measured when the vectors were made, on other folds."""
    folder = shared_data / "clip_vectors"
    store = es.create(tmp_path / "s")
    labels = [str(n) for n in np.load(folder / "cifar500_labels.npy")]
    store.add_vectors(folder / "cifar500_image_vectors.npy", {"label": labels})
    for head, measured in {"logistic": 0.920, "knn": 0.874}.items():
        score = store.probe("label", head=head, folds=5).scores["accuracy"]
        assert score.low <= measured <= score.high
    pinned("clip cifar500 5 folds", judged(store, ["logistic", "knn", "prototype"], folds=5))


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("layers", "measured"), [(20, 0.8103), (56, 0.8320)])
def test_cifar_photos_in_the_space_of_a_resnet(unpacked, shared_data, tmp_path, layers, measured):
    """3,000 + 1,000 JPEGs through the 64 features of a ResNet-20 and a ResNet-56: every head, taught by a sixteenth of
    what trained the network, is as good as its classifier was on 10,000 test images."""
    weights = shared_data / "weights" / f"cifar10_resnet{layers}.safetensors"
    options = {"size": 32, "resize": 32, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
    store = es.create(tmp_path / "s", f"tests.helpers.networks:resnet{layers}", weights=weights, preprocess=options)
    store.embed(unpacked("cifar10"))
    found = judged(store, ["logistic", "knn", "prototype", "lda", "svm", "ridge", "mlp"])
    pinned(f"cifar10 resnet{layers} test", found)
    assert min(found.values()) >= measured
