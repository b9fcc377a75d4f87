"""Heads on real photos and real CLIP vectors; the accuracies are pinned to ``golden/heads.json``."""

import numpy as np
import pytest
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from embedstore.classify import heads, metrics
from tests.helpers.golden import assert_golden


@pytest.fixture(scope="module")
def photos(shared_data, unpacked):
    """Frozen MobileNetV2 features of the ants and bees: ``(X, y, split)``."""
    timm, torch = pytest.importorskip("timm"), pytest.importorskip("torch")
    from PIL import Image

    overlay = {"file": str(shared_data / "weights" / "mobilenetv2_100_imagenet.safetensors"), "num_classes": 1000}
    net = timm.create_model(
        "mobilenetv2_100", pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, pad_type="same", bn_eps=1e-3
    ).eval()
    config = {**timm.data.resolve_data_config({}, model=net), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    transform = timm.data.create_transform(**config)
    files = sorted(unpacked("hymenoptera").rglob("*.jpg"))
    X = []
    with torch.inference_mode():
        for i in range(0, len(files), 32):
            batch = [transform(Image.open(f).convert("RGB")) for f in files[i : i + 32]]
            X.append(net(torch.stack(batch)).numpy())
    return np.concatenate(X), np.array([f.parent.name for f in files]), np.array([f.parent.parent.name for f in files])


@pytest.fixture(scope="module")
def clip_vectors(shared_data):
    """Real CLIP ViT-B/32 vectors of 500 CIFAR-10 images, and their labels."""
    folder = shared_data / "clip_vectors"
    return np.load(folder / "cifar500_image_vectors.npy"), np.load(folder / "cifar500_labels.npy")


@pytest.mark.slow
def test_every_head_separates_ants_from_bees(photos):
    """Every head, fitted on one split, has its recorded accuracy on the other. On the full set of 153 photos logistic
    regression and 5-NN both had .961; of the 120 photos here that is between 115 and 116."""
    X, y, split = photos
    train = split == "train"
    found = {}
    for name in heads.HEAD_NAMES:
        head = heads.make_head(name).fit(X[train], y[train])
        found[name] = float((head.predict(X[~train]) == y[~train]).mean())
    assert_golden("heads.json", "hymenoptera val accuracy", found)
    assert found["logistic"] >= 115 / 120 - 1e-9
    assert found["knn"] >= 115 / 120 - 1e-9


def test_every_head_on_clip_vectors_in_five_folds(clip_vectors):
    """The out-of-fold accuracies are the recorded ones. Those measured when the vectors were made are reached with one
    C for all folds (10: .920) and with 5 uniform neighbors (.874). With C chosen inside each fold three or four
    images of 500 fewer are correct, because .920 belongs to the best C of these folds."""
    X, y = clip_vectors
    found = {}
    for name in heads.HEAD_NAMES:
        found[name] = float((cross_val_predict(heads.make_head(name), X, y, cv=StratifiedKFold(5)) == y).mean())
    found["logistic, C = 10"] = float(
        (cross_val_predict(heads.LogisticProbe([10.0]), X, y, cv=StratifiedKFold(5)) == y).mean()
    )
    uniform = heads.make_head("knn", weights="uniform")
    found["knn, uniform"] = float((cross_val_predict(uniform, X, y, cv=StratifiedKFold(5)) == y).mean())
    assert_golden("heads.json", "cifar500 clip five-fold accuracy", found)
    assert found["logistic"] >= 0.91
    assert found["logistic, C = 10"] >= 0.92
    assert found["knn, uniform"] >= 0.874
    assert max(found.values()) >= 0.92


def test_shuffled_labels_of_real_vectors_give_chance_accuracy(clip_vectors):
    """With ten classes and random labels the out-of-fold accuracy is near .1."""
    X, y = clip_vectors
    shuffled = np.random.default_rng(0).permutation(y)
    probe = heads.LogisticProbe(keep_out_of_fold=True).fit(X, shuffled)
    assert (probe.out_of_fold_.argmax(1) == shuffled).mean() == pytest.approx(0.1, abs=0.05)


def test_planted_label_errors_have_low_out_of_fold_probabilities(clip_vectors):
    """Among the 5% of rows with the lowest probability there are at least three times as many errors as by chance."""
    X, y = clip_vectors
    rng = np.random.default_rng(0)
    planted = rng.choice(len(y), 25, replace=False)
    wrong = y.copy()
    wrong[planted] = (wrong[planted] + rng.integers(1, 10, 25)) % 10
    probe = heads.LogisticProbe(keep_out_of_fold=True).fit(X, wrong)
    doubt = np.argsort(probe.out_of_fold_[np.arange(len(y)), wrong])[:25]
    assert np.isin(doubt, planted).mean() >= 3 * 0.05


def test_calibration_lowers_log_loss_and_calibration_error_on_real_vectors(clip_vectors):
    """An overconfident probe, calibrated on one fifth, has lower errors on another fifth."""
    X, y = clip_vectors
    parts = [test for _, test in StratifiedKFold(5, shuffle=True, random_state=0).split(X, y)]
    train, calibration, evaluation = np.concatenate(parts[:3]), parts[3], parts[4]
    sure = heads.LogisticProbe([1e6]).fit(X[train], y[train])
    calibrated = heads.CalibratedHead(sure).fit(X[calibration], y[calibration])
    before, after = sure.predict_proba(X[evaluation]), calibrated.predict_proba(X[evaluation])
    assert metrics.compute_metric("log_loss", y[evaluation], after) < metrics.compute_metric(
        "log_loss", y[evaluation], before
    )
    assert metrics.compute_metric("expected_calibration_error", y[evaluation], after) < metrics.compute_metric(
        "expected_calibration_error", y[evaluation], before
    )


def test_five_captions_per_photo_beat_one(shared_data):
    """With captions as class vectors the mean of five recognizes more of the 100 Flickr photos than one caption."""
    folder = shared_data / "clip_vectors"
    images, texts = (np.load(folder / f"flickr100_{kind}_vectors.npy") for kind in ("image", "text"))
    photos, names = images[::5], [f"photo {i}" for i in range(100)]
    one = heads.ZeroShotHead(texts[::5], names)
    found = {"one caption": float((one.predict(photos) == np.array(names)).mean())}
    rows_of = {name: [str(5 * i + j) for j in range(5)] for i, name in enumerate(names)}
    five = heads.encode_class_vectors(lambda rows: texts[[int(row) for row in rows]], rows_of, batch_size=64)
    found["five captions averaged"] = float((heads.ZeroShotHead(five, names).predict(photos) == np.array(names)).mean())
    assert_golden("heads.json", "flickr100 zero-shot accuracy", found)
    assert found["five captions averaged"] > found["one caption"]
