"""Fine-tuning through the store: the new space, its checkpoint, the change of the default space, and refusals."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

import embedstore as es
from embedstore.errors import EmbedstoreError, FinetuneError, LabelError, SpaceMismatch, StoreIOError, WeightsMismatch
from embedstore.finetuning.history import AugmentationSheet, Epoch
from tests.helpers.finetune_store import QUICK, files, store_of, textures, vectors


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store of sixty textures, a copy of it after two epochs, the result, and its progress events."""
    folder = tmp_path_factory.mktemp("tuned")
    photos = textures(folder / "photos")
    store_of(folder / "plain", photos)
    shutil.copytree(folder / "plain", folder / "tuned")
    events = []
    tuned = es.open(folder / "tuned").finetune("label", **QUICK, progress=events.append)
    return folder, tuned, events


@pytest.fixture
def plain(trained, tmp_path):
    """A copy of the store before fine-tuning."""
    return es.open(shutil.copytree(trained[0] / "plain", tmp_path / "s"))


@pytest.fixture
def tuned(trained, tmp_path):
    """A copy of the store with its tuned space."""
    return es.open(shutil.copytree(trained[0] / "tuned", tmp_path / "s"))


def test_finetuning_adds_a_space_and_leaves_the_old_one_unchanged(trained):
    """The parent is recorded; every image has a vector in both spaces; the old vector files do not change."""
    folder, result, _ = trained
    before, store = es.open(folder / "plain"), es.open(folder / "tuned")
    old, new = store.spaces
    assert (new.name, new.space.parent, new.key) == ("test_resnet-label", old.key, result.key)
    assert (old.is_default, new.is_default) == (True, False)
    assert files(store, old.key) == files(before, old.key)
    assert len(vectors(store, new.key)) == 60
    assert not result.has_same_vectors
    a, b = vectors(store, old.key), vectors(store, new.key)
    assert max(np.abs(a[u] - b[u]).max() for u in a) > 1e-3


def test_the_checkpoint_records_files_classes_settings_and_history(trained):
    """The manifest has hashes, parent, classes and settings; curves and augmentation sheet are images."""
    _, result, events = trained
    manifest = json.loads((result.checkpoint_folder / "checkpoint.json").read_text())
    assert manifest["classes"] == ["a", "b", "c"]
    assert (manifest["train"], manifest["val"]) == (36, 12)
    assert {f["file"] for f in manifest["files"]} == {"weights.safetensors", "head.safetensors"}
    assert all(len(f["sha256"]) == 64 and len(f["xxh3"]) == 32 for f in manifest["files"])
    assert "licence" in manifest
    assert manifest["how"]["layers"] == "all"
    assert [e["number"] for e in manifest["history"]["epochs"]] == [0, 1, 2]
    for name in ("curves.png", "augmentation.png"):
        with Image.open(result.checkpoint_folder / name) as image:
            assert min(image.size) > 200
    assert isinstance(events[0], AugmentationSheet)
    assert events[0].path.name == "augmentation.png"
    assert [e.number for e in events if isinstance(e, Epoch)] == [0, 1, 2]


def test_a_tuned_space_is_searchable_after_reopening(tuned, trained):
    """The recipe loads the checkpoint from the store's folder; an image finds itself in the new space."""
    path = trained[0] / "photos" / "train" / "a" / "0.png"
    hits = tuned.search(image=path, k=1, space="test_resnet-label")
    assert hits[0].uri == str(path)
    assert hits[0].score == pytest.approx(1, abs=1e-4)


def test_the_same_run_is_recognized_and_not_trained_again(tuned):
    """The second call trains nothing and adds no space."""
    again = tuned.finetune("label", **QUICK)
    assert again.already_trained
    assert again.embed_report.embedded == 0
    assert len(tuned.spaces) == 2


def test_unchanged_weights_give_the_vectors_of_the_parent(plain):
    """Without an epoch the new space gives the parent's vectors to 1e-5, and result and `info` report it."""
    result = plain.finetune("label", epochs=0)
    old, new = (vectors(plain, s.key) for s in plain.spaces)
    assert max(np.abs(old[u] - new[u]).max() for u in old) <= 1e-5
    assert result.has_same_vectors
    assert result.comparison.has_same_vectors
    assert [s.same_as_parent for s in plain.info().spaces] == [False, True]
    assert any("vectors of test_resnet-label equal" in n for n in result.notes)


def test_both_spaces_are_judged_on_the_same_items(trained):
    """Twelve test items for the probe, kNN and the network's own head; gains are differences of the accuracies."""
    v = trained[1].comparison
    assert [p.name for p in v.evaluations] == ["logistic", "knn", "old probe, own head of the tuned network"]
    assert (v.split, v.n_train, v.n_held_out) == ("test", 36, 12)
    for p in v.evaluations:
        assert p.accuracy_gain.value == pytest.approx(p.candidate.accuracy - p.baseline.accuracy)
        assert p.accuracy_gain.low <= p.accuracy_gain.value <= p.accuracy_gain.high
        assert p.mcnemar.only_second_correct - p.mcnemar.only_first_correct == round(12 * p.accuracy_gain.value)
    assert {c for c, *_ in v.per_class} == {"a", "b", "c"}
    assert v.cost.training_seconds > 0


def test_only_the_chosen_blocks_are_trained(plain):
    """With last-1 the weights before the last block and all BatchNorm statistics equal the parent's."""
    result = plain.finetune("label", **QUICK, layers="last-1", embed=False)
    now = load_file(result.checkpoint_folder / "weights.safetensors")
    before = plain.backbone().module.state_dict()
    changed = {n for n in now if not np.array_equal(now[n].numpy(), before[n].numpy())}
    assert changed
    assert {n.rsplit(".", 2)[0].split(".")[0] for n in changed} == {"layer4"}
    assert not any("running" in n for n in changed)


@pytest.mark.slow
def test_batchnorm_statistics_are_updated_with_update_batchnorm(plain):
    """The running means change too."""
    result = plain.finetune("label", **QUICK, update_batchnorm=True, embed=False)
    now = load_file(result.checkpoint_folder / "weights.safetensors")
    before = plain.backbone().module.state_dict()
    assert not np.array_equal(now["bn1.running_mean"].numpy(), before["bn1.running_mean"].numpy())


def test_the_default_space_is_changed_and_changed_back(tuned):
    """One call each way; a search without a space uses the default."""
    change = tuned.set_default("test_resnet-label")
    assert (change.space, change.without_vector) == ("test_resnet-label", 0)
    assert (change.refitted, change.skipped) == ([], [])
    assert es.open(tuned.path).search(1, k=1).space == "test_resnet-label"
    tuned.set_default("test_resnet")
    assert es.open(tuned.path).search(1, k=1).space == "test_resnet"


def test_heads_belong_to_their_space_until_they_are_refitted(tuned):
    """A head of the old space is refused in the new one; with refit it is fitted there, under its name."""
    tuned.probe("label", save_as="kinds")
    tuned.probe("label", head="knn", head_options={"k": 3}, save_as="near")
    old, new = (s.key for s in tuned.spaces)
    tuned.set_default("test_resnet-label")
    assert {h.space_key for h in tuned.heads} == {old}
    with pytest.raises(SpaceMismatch, match="trained in space test_resnet"):
        tuned.head("kinds", space="test_resnet-label")
    assert tuned.set_default("test_resnet-label", refit_heads=True).refitted == ["kinds", "near"]
    assert {h.space_key for h in tuned.heads} == {new}
    assert tuned.head("near").k == 3


def test_a_space_is_dropped_only_when_nothing_depends_on_it(tuned):
    """It is refused while a head depends on the space or it is the default; afterwards its files are removed."""
    key = tuned.spaces[1].key
    tuned.probe("label", space="test_resnet-label", save_as="kinds")
    with pytest.raises(SpaceMismatch, match="kinds"):
        tuned.drop_space("test_resnet-label")
    tuned.delete_head("kinds")
    tuned.set_default("test_resnet-label")
    with pytest.raises(SpaceMismatch, match="is the default space"):
        tuned.drop_space("test_resnet-label")
    tuned.set_default("test_resnet")
    size = sum(p.stat().st_size for p in (tuned.path / "checkpoints" / key).iterdir())
    done = tuned.drop_space("test_resnet-label")
    assert done.vectors == 60
    assert done.bytes > size
    assert not (tuned.path / "spaces" / key).exists()
    assert not (tuned.path / "checkpoints" / key).exists()
    with pytest.raises(SpaceMismatch, match="only space"):
        tuned.drop_space("test_resnet")
    assert es.open(tuned.path).verify().ok


@pytest.mark.slow
def test_a_killed_drop_is_completed_by_the_next_writer(tuned):
    """Files of a space that the catalog no longer has are removed, and those of registered spaces stay."""
    from embedstore.storage import space_changes

    new = tuned.spaces[1]
    folder = tuned.path / "spaces" / new.key
    kept = shutil.copytree(folder, tuned.path.parent / "kept")
    tuned.drop_space(new.name)
    shutil.copytree(kept, folder)
    (folder / space_changes.DROP_MARKER).touch()
    (tuned.path / "spaces" / tuned.spaces[0].key / space_changes.DROP_MARKER).touch()
    with tuned._session.storage.writer("test"):
        assert space_changes.remove_dropped_spaces(tuned._session.storage) > 0
    assert not folder.exists()
    assert len(vectors(tuned, "test_resnet")) == 60


def test_a_flipped_byte_in_the_checkpoint_is_detected(tuned):
    """`verify` names the file, and the network is not loaded."""
    path = tuned.path / "checkpoints" / tuned.spaces[1].key / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    (damage,) = tuned.verify().damage
    assert damage.file.endswith("weights.safetensors")
    with pytest.raises((SpaceMismatch, WeightsMismatch)):
        es.open(tuned.path).backbone("test_resnet-label")


# ---- refusals


def test_labels_of_one_class_are_refused(tmp_path):
    """Nothing is trained."""
    store = store_of(tmp_path / "s", textures(tmp_path / "photos", 10, "a"))
    with pytest.raises(LabelError, match="one class"):
        store.finetune("label")


def test_precomputed_vectors_cannot_be_tuned(tmp_path):
    """There is no network to train; the error names the cure."""
    store = es.create(tmp_path / "s")
    store.add_vectors(np.eye(6, dtype=np.float32), {"uri": list("abcdef"), "label": list("xyxyxy")})
    with pytest.raises(FinetuneError, match="precomputed vectors: there is no network to tune"):
        store.finetune("label")


def test_too_few_items_for_validation_are_refused(tmp_path):
    """With one training image per class nothing is left to validate with."""
    photos = textures(tmp_path / "photos", 5)
    shutil.rmtree(photos / "val")
    for name in "abc":
        for n in (1, 2):
            (photos / "train" / name / f"{n}.png").unlink()
    with pytest.raises(LabelError, match="no validation rows"):
        store_of(tmp_path / "s", photos).finetune("label")


def test_missing_disk_space_is_reported_before_training(plain, monkeypatch):
    """The space for vectors and checkpoint is checked first, and nothing is left behind."""
    events = []
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(StoreIOError, match="not enough disk space"):
        plain.finetune("label", **QUICK, progress=events.append)
    assert events == []
    assert len(plain.spaces) == 1


def test_a_diverging_run_is_stopped_and_keeps_its_best_epoch(plain):
    """A rate a thousand times too high stops the run with a reason, and the kept weights have a finite score."""
    result = plain.finetune(
        "label", epochs=5, batch_size=8, lr=9.0, head_init="random", weight_average="none", embed=False
    )
    history = result.training.history
    assert "diverged" in history.stop_reason or "no better" in history.stop_reason
    assert len(history.epochs) <= 5
    assert np.isfinite(result.training.val_score.loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "last-99"}, "the network has"),
        ({"layers": "first"}, "layers must be head, last-N"),
        ({"layers": "lora"}, "none; use layers last-N"),
        ({"lr": -1.0}, "lr must be"),
        ({"label_smoothing": 2.0}, "label_smoothing must be from 0 to 0.9"),
        ({"weight_average": "wise", "head_init": "random"}, "weight_average wise mixes"),
        ({"wise_alpha": 0.5, "head_init": "random"}, "wise_alpha mixes"),
        ({"wise_alpha": 1.5}, "wise_alpha must be from 0 to 1"),
        ({"head_init": "text"}, "text encoder"),
        ({"epoch": 3}, "did you mean epochs"),
    ],
)
def test_invalid_settings_are_refused(plain, options, message):
    """The error is one line that names the valid values, and nothing is left behind."""
    with pytest.raises(EmbedstoreError, match=message) as caught:
        plain.finetune("label", **options)
    assert "\n" not in str(caught.value)
    assert len(plain.spaces) == 1
    assert list((plain.path / "checkpoints").glob(".*")) == []


def test_changed_and_missing_images_are_left_out_and_counted(trained, tmp_path):
    """The label belongs to the bytes that were embedded."""
    photos = shutil.copytree(trained[0] / "photos", tmp_path / "photos")
    store = store_of(tmp_path / "s", photos)
    (photos / "train" / "a" / "0.png").write_bytes((photos / "train" / "b" / "0.png").read_bytes())
    (photos / "train" / "c" / "1.png").unlink()
    result = store.finetune("label", **QUICK, embed=False)
    assert (result.training.train_images, result.training.unreadable) == (34, 2)
