"""The main job on real photos with real weights, end to end. Skipped where the data are absent."""

import csv
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import embedstore as es
from tests.conftest import ROOT, TINY

MOBILENET = "timm/mobilenetv2_100"
ARGS = {"pad_type": "same", "bn_eps": 1e-3}
HALF = {"mean": 0.5, "std": 0.5}


@pytest.fixture(scope="module")
def weights(shared_data):
    return shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors"


@pytest.fixture(scope="module")
def hymenoptera(unpacked, weights, tmp_path_factory):
    """Ants and bees, embedded with ImageNet weights, decoded by Pillow: ``auto`` may take what is right to 0.9999."""
    path = tmp_path_factory.mktemp("spine") / "ants.store"
    es.create(path, MOBILENET, weights=weights, backbone_args=ARGS, preprocess=HALF)
    store = es.open(path, decoder="pillow")
    report = store.embed(unpacked("hymenoptera"))
    assert report.scanned == 241
    assert report.embedded + report.reused + report.failures == 241
    return store


def test_ants_and_bees_are_told_apart_by_frozen_features(hymenoptera):
    """Logistic regression and 5-NN reach 0.93 on the val split (measured: 0.958 and 0.967)."""
    probe = hymenoptera.probe("label")
    knn = hymenoptera.knn("label", k=5)
    assert probe.split == knn.split == "val"
    assert probe.accuracy >= 0.93
    assert knn.accuracy >= 0.93
    assert probe.to_json()["C"] > 0


def test_random_weights_do_not(unpacked, tmp_path):
    """The same network at random init stays at or below 0.70 and says what it is."""
    store = es.create(tmp_path / "s", MOBILENET, random_init=True, backbone_args=ARGS, preprocess=HALF)
    store.embed(unpacked("hymenoptera"))
    assert store.info().spaces[0].random is True
    assert store.probe("label").accuracy <= 0.70
    assert store.knn("label", k=5).accuracy <= 0.70


def test_the_networks_own_preprocessing_is_used_unless_overridden(weights, tmp_path):
    """Without the override the space has timm's mean and std; with it, another key and a record of it."""
    own = es.create(tmp_path / "own", MOBILENET, weights=weights, backbone_args=ARGS).info().spaces[0]
    assert own.preprocess["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert own.overrides == {}
    half = es.create(tmp_path / "half", MOBILENET, weights=weights, backbone_args=ARGS, preprocess=HALF)
    row = half.info().spaces[0]
    assert row.preprocess["mean"] == [0.5, 0.5, 0.5]
    assert row.overrides == HALF
    assert row.key != own.key
    assert row.weights == own.weights


def test_filters_and_images_together(hymenoptera, unpacked):
    """The nearest val images of a val bee are mostly bees, exactly k, itself first."""
    bee = sorted((unpacked("hymenoptera") / "val" / "bees").iterdir())[0]
    hits = hymenoptera.search(image=bee, k=20, where="split = 'val'")
    assert len(hits) == 20
    assert hits[0].uri == str(bee)
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)
    assert {h.split for h in hits} == {"val"}
    assert sum(h.label == "bees" for h in hits) >= 15
    assert len(hymenoptera.search(image=bee, k=300, where="label = 'ants' and split = 'train'")) == 61


def test_vectors_equal_timms_own_after_reload(hymenoptera, unpacked, weights):
    """Stored vectors against timm's transform and model on the same files: cosine at least 0.99999."""
    import timm
    import torch
    from PIL import Image

    overlay = {"file": str(weights), "num_classes": 1000, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    model = timm.create_model("mobilenetv2_100", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **ARGS)
    model.eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    store = es.open(hymenoptera.path)
    files = sorted(unpacked("hymenoptera").rglob("*.jpg"))[::16]
    with torch.inference_mode():
        theirs = model(torch.stack([transform(Image.open(f).convert("RGB")) for f in files])).numpy()
    ours = np.stack([_stored(store, str(f)) for f in files])
    assert cosine(ours, theirs).min() >= 0.99999
    centre = theirs.mean(0)
    assert cosine(ours - centre, theirs - centre).min() >= 0.99999


def test_every_imagenet_photo_finds_itself_first(unpacked, weights, tmp_path):
    """250 of 250 image queries."""
    store = es.create(tmp_path / "s", MOBILENET, weights=weights, backbone_args=ARGS, preprocess=HALF)
    report = store.embed(unpacked("imagenet250"))
    assert report.embedded == 250
    uris = [u for (u,) in store.sql("SELECT uri FROM items ORDER BY item").rows]
    assert [store.search(image=uri, k=1)[0].uri for uri in uris] == uris


def test_every_file_of_the_nasty_corpus_is_embedded_or_has_a_reason(unpacked, tmp_path):
    """The run ends, the counts add up with what was skipped, and a second run decodes nothing."""
    store = es.create(tmp_path / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    files = [p for p in unpacked("nasty").rglob("*") if p.is_file()]
    report = store.embed(unpacked("nasty"))
    assert report.scanned + report.skipped == len(files) == 1538
    assert sum(report.skipped_by_kind.values()) == report.skipped < 30
    assert report.embedded + report.reused + report.failures == report.scanned
    info = store.info()
    assert info.items + info.failures == report.scanned
    assert info.contents == report.embedded
    assert all(reason and detail for _, reason, detail, *_ in store.failures())
    again = store.embed(unpacked("nasty"))
    assert (again.unchanged, again.known_failures) == (report.embedded + report.reused, report.failures)
    assert (again.embedded, again.reused, again.failures) == (0, 0, 0)


def test_flickr_captions_find_their_images(shared_data, tmp_path):
    """Imported CLIP vectors of 100 images: text to image R@1 0.832, R@5 0.990 over 500 captions."""
    folder = shared_data / "clip_vectors"
    images = np.load(folder / "flickr100_image_vectors.npy")
    captions = np.load(folder / "flickr100_text_vectors.npy")
    with (folder / "flickr100_metadata.csv").open() as f:
        names = [row["image_id"] for row in csv.DictReader(f)]
    store = es.create(tmp_path / "s")
    result = store.add_vectors(images[::5], {"uri": names[::5]})
    assert result.to_json() == {"rows": 100, "new_items": 100, "new_vectors": 100, "space": "precomputed", "dim": 512}
    found = [[h.uri for h in store.search(c, k=5)] for c in captions]
    assert np.mean([n == f[0] for n, f in zip(names, found, strict=True)]) == pytest.approx(0.832)
    assert np.mean([n in f for n, f in zip(names, found, strict=True)]) == pytest.approx(0.990)


def test_a_table_without_uri_keeps_every_row_and_column(shared_data, tmp_path):
    """The Flickr table as it lies there: 500 items named by row, 100 contents, captions queryable."""
    folder = shared_data / "clip_vectors"
    store = es.create(tmp_path / "s")
    result = store.add_vectors(folder / "flickr100_image_vectors.npy", folder / "flickr100_metadata.csv")
    assert (result.rows, result.new_items, result.new_vectors) == (500, 500, 100)
    assert store.sql("SELECT count(*) FROM items WHERE caption LIKE '%dog%'").rows[0][0] > 5
    caption = np.load(folder / "flickr100_text_vectors.npy")[0]
    hits = store.search(caption, k=5)
    assert len({h.columns["image_id"] for h in hits}) == 1, "five rows of one image share a content and a score"
    again = store.add_vectors(folder / "flickr100_image_vectors.npy", folder / "flickr100_metadata.csv")
    assert (again.new_items, again.new_vectors) == (0, 0)


def test_cifar_clip_vectors_are_separated_by_a_line(shared_data, tmp_path):
    """Logistic regression on 500 imported vectors: at least 0.91 in 5-fold cross-validation."""
    from embedstore.classify import heads

    folder = shared_data / "clip_vectors"
    labels = np.load(folder / "cifar500_labels.npy")
    store = es.create(tmp_path / "s")
    store.add_vectors(folder / "cifar500_image_vectors.npy", {"class_name": [str(n) for n in labels]})
    f = store.features("class_name")
    assert f.X.shape == (500, 512)
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    accuracies = cross_val_score(heads.make_head("logistic"), f.X, f.y.astype(str), cv=StratifiedKFold(5))
    assert accuracies.mean() >= 0.91  # measured: 0.914, C chosen inside each fold


def _stored(store, uri):
    """The stored vector of a uri."""
    from embedstore.search.execute import item_vector

    item = store.sql("SELECT item FROM items WHERE uri = ?", [uri]).rows[0][0]
    return item_vector(store._session.storage, store.spaces[0], item)


def cosine(a, b):
    """Row by row."""
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


KILLED = """
import sys
import embedstore as es
from embedstore.pipeline.run import EmbedOptions, embed_source
from embedstore.sources.open import open_source
store = es.open(sys.argv[1], allow_code=["tests.helpers.networks:resnet20"])
options = EmbedOptions(commit_rows=256, on_cpu=True)
embed_source(store._session.storage, open_source(sys.argv[2]), store.backbone, store.spaces[0], options=options)
"""


def test_a_run_over_4000_photos_killed_twice_equals_an_uninterrupted_one(shared_data, unpacked, tmp_path):
    """CIFAR-10 through ResNet-20: SIGKILL in the first and in the second half, then resumed; every row is equal."""
    weights = shared_data / "weights" / "cifar10_resnet20.safetensors"
    size = {"size": 32, "resize": 32, "mean": "0.485,0.456,0.406", "std": "0.229,0.224,0.225"}
    photos = unpacked("cifar10")

    def make(name):
        return es.create(tmp_path / name, "tests.helpers.networks:resnet20", weights=weights, preprocess=size)

    straight = make("straight")
    assert straight.embed(photos).scanned == 4000
    make("killed")
    folder = next((tmp_path / "killed" / "spaces").iterdir()) / "shards"
    for commits in (4, 9):
        child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(photos)], cwd=ROOT)
        while len(list(folder.glob("*.vec"))) < commits and child.poll() is None:
            time.sleep(0.01)
        child.kill()
        assert child.wait() == -signal.SIGKILL
    resumed = es.open(tmp_path / "killed", allow_code=["tests.helpers.networks:resnet20"])
    report = resumed.embed(photos)
    assert 0 < report.unchanged < 4000, "killed half way"
    assert report.unchanged + report.embedded + report.reused == 4000
    query = "SELECT item, uri, content, label, split, size, mtime_ns, present FROM items ORDER BY item"
    assert resumed.sql(query).rows == straight.sql(query).rows
    ours, theirs = resumed.features("uri"), straight.features("uri")
    assert np.array_equal(ours.ids, theirs.ids)
    assert np.array_equal(ours.X, theirs.X)
