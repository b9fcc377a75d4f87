"""Texts and sounds are tuned with the guarantees of images: resumed to the same weights, embedded again, compared."""

import csv
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import embedstore as es
from embedstore.errors import FinetuneError
from embedstore.finetuning import train as training
from embedstore.finetuning.layers import find_blocks
from embedstore.finetuning.model import add_lora_adapters, backbone_blocks
from embedstore.finetuning.settings import FinetuneSettings
from tests.finetuning.test_finetune_kill import run_and_kill, stored_epoch
from tests.helpers.finetune_store import torch_threads, vectors
from tests.helpers.sound_models import save_sound_model, sound_file, tone
from tests.helpers.text_models import FAMILIES, WORDS, save_model

pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")

QUICK = {"epochs": 2, "batch_size": 8, "weight_average": "none"}
OPTIONS = {"epochs": 3, "batch_size": 8, "weight_average": "ema", "patience": 9}
KINDS = ("texts", "sounds")
PROMPTS = Path("/usr/share/asterisk/sounds")


def write_texts(path, per_class=20, seed=0):
    """Write a table of texts of two classes, which one word in each tells apart, three fifths of them to learn from."""
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "split"])
        for n in range(2 * per_class):
            words = [*rng.choice(WORDS[:14], 1 + n % 7), ("red", "blue")[n % 2]]
            split = ("train", "train", "train", "val", "test")[(n // 2) % 5]
            rows.writerow([" ".join(rng.permutation(words)), ("warm", "cold")[n % 2], split])
    return path


def write_sounds(folder, per_class=10):
    """Write tones of two pitches and of different lengths: ``train|val|test/<class>/N.wav``."""
    for name, pitch in (("low", 300), ("high", 900)):
        for n in range(per_class):
            path = folder / ("train", "train", "train", "val", "test")[n % 5] / name / f"{n}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound_file(tone(0.2 + 0.05 * (n % 3), pitch=pitch + 10 * n, seed=n)))
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Stores of texts (BERT) and of sounds (Whisper's encoder) with small networks, before any training."""
    pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
    pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")
    folder = tmp_path_factory.mktemp("plain")
    texts = es.create(folder / "texts", f"hf/{save_model(folder / 'bert', 'bert')}", dtype="float32", device="cpu")
    texts.embed(write_texts(folder / "texts.csv"), text_column="text")
    model = save_sound_model(folder / "whisper", "whisper")
    sounds = es.create(folder / "sounds", f"hf/{model}", dtype="float32", device="cpu")
    sounds.embed(write_sounds(folder / "clips"))
    return {"texts": texts.path, "sounds": sounds.path}


def copy(plain, kind, folder):
    """Return a copy of a store."""
    return es.open(shutil.copytree(plain[kind], folder / kind), device="cpu")


def weights(result):
    """Return the tensors of a checkpoint, and its head."""
    return load_file(result.checkpoint_folder / "weights.safetensors") | {
        f"head.{n}": t for n, t in load_file(result.checkpoint_folder / "head.safetensors").items()
    }


def assert_equal(one, other):
    """Compare tensors by name, bit by bit."""
    assert set(one) == set(other)
    assert not [n for n in one if not torch.equal(one[n], other[n])]


@pytest.mark.parametrize("layers", ["all", "last-1", "lora"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tuned_space_is_embedded_compared_and_searched(plain, kind, layers, tmp_path):
    """The new space has a vector of every item by the tuned weights; the old one stays; the chosen blocks changed."""
    if layers == "lora":
        pytest.importorskip("peft", reason="peft is not installed (extra [finetune])")
    store = copy(plain, kind, tmp_path)
    parent = store.spaces[0]
    before, initial = vectors(store, parent.key), store._session.any_backbone(parent.key).module.state_dict()
    initial = {n: t.clone() for n, t in initial.items()}
    result = store.finetune("label", layers=layers, lr=1e-3, **QUICK)
    assert result.embed_report.embedded == len(before)
    assert not result.has_same_vectors
    assert (result.record.space.modality, result.record.space.input) == (parent.space.modality, parent.space.input)
    reopened = es.open(store.path, device="cpu")
    after = vectors(reopened, result.key)
    assert all(np.array_equal(v, before[u]) for u, v in vectors(reopened, parent.key).items())
    assert not np.allclose(np.stack([after[u] for u in before]), np.stack(list(before.values())), atol=1e-4)
    tuned = reopened._session.any_backbone(result.key)
    changed = {n for n, t in tuned.module.state_dict().items() if not torch.equal(t, initial[n])}
    blocks = find_blocks(tuned.module, tuned.features, tuned.example_input())
    chosen = {n for block in (blocks[-1:] if layers == "last-1" else blocks) for n in block.parameters}
    assert changed
    assert changed <= chosen
    held_out = 8 if kind == "texts" else 4
    assert (result.comparison.n_held_out, result.comparison.space) == (held_out, result.space)
    assert reopened.search(1, k=1, space=result.key)[0].item == 1
    assert store.finetune("label", layers=layers, lr=1e-3, **QUICK).already_trained


@pytest.mark.parametrize("kind", KINDS)
def test_validation_sees_what_embedding_stores(plain, kind, tmp_path):
    """The score of the untrained network is that of its head on the stored vectors: one path prepares both."""
    store = copy(plain, kind, tmp_path)
    result = store.finetune("label", layers="head", embed=False, epochs=0, head_init="probe")
    data = store.features("label")
    head = load_file(result.checkpoint_folder / "head.safetensors")
    rows = data.splits == "val"
    logits = data.X[rows] @ head["weight"].numpy().T + head["bias"].numpy()
    classes = np.array(result.training.classes)
    expected = (classes[logits.argmax(1)] == data.y[rows].astype(str)).mean()
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    truth = probabilities[np.arange(rows.sum()), np.searchsorted(classes, data.y[rows].astype(str))]
    assert result.training.val_score.accuracy == pytest.approx(expected)
    assert result.training.val_score.loss == pytest.approx(-np.log(truth).mean(), abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(plain, kind, tmp_path, monkeypatch):
    """Stopped after the first epoch and started again, every tensor is equal, bit by bit; dropout is drawn alike."""
    options = {**OPTIONS, "embed": False}
    whole = copy(plain, kind, tmp_path / "whole").finetune("label", **options)
    store = copy(plain, kind, tmp_path / "stopped")
    stop_after_the_first_epoch(monkeypatch, lambda: store.finetune("label", **options))
    resumed = es.open(store.path, device="cpu").finetune("label", **options)
    assert resumed.training.history.epochs[-1].number == 3
    assert_equal(weights(resumed), weights(whole))
    assert resumed.key == whole.key


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_run_is_resumed_with_the_threads_that_it_began_with(plain, tmp_path, monkeypatch, before, after):
    """Stopped with one number of threads and resumed with another, the weights are those of the first, bit by bit."""
    options = {**OPTIONS, "embed": False}
    with torch_threads(before):
        whole = copy(plain, "texts", tmp_path / "whole").finetune("label", **options)
        store = copy(plain, "texts", tmp_path / "stopped")
        stop_after_the_first_epoch(monkeypatch, lambda: store.finetune("label", **options))
    with torch_threads(after):
        resumed = es.open(store.path, device="cpu").finetune("label", **options)
        assert torch.get_num_threads() == after
    assert whole.training.history.threads == resumed.training.history.threads == before
    assert_equal(weights(resumed), weights(whole))


def train_in_child(path):
    """Fine-tune; the work that is killed."""
    es.open(path, device="cpu").finetune("label", **OPTIONS)


@pytest.fixture
def one_thread():
    """Compute as the forked children do, which are killed."""
    with torch_threads(1):
        yield


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_moments_of_training(plain, kind, tmp_path):
    """SIGKILL up to three times at random moments of training or embedding: the weights of an undisturbed run."""
    whole = copy(plain, kind, tmp_path / "whole").finetune("label", **OPTIONS)
    rng, kills = random.Random(kind), 0
    for n in range(5):
        store = copy(plain, kind, tmp_path / str(n))
        for _ in range(rng.randint(1, 3)):
            epoch = rng.randint(-1, OPTIONS["epochs"] - 1)
            kills += run_and_kill(train_in_child, store.path, lambda p=store.path, e=epoch: stored_epoch(p) >= e, rng)
        resumed = es.open(store.path, device="cpu").finetune("label", **OPTIONS)
        assert_equal(weights(resumed), weights(whole))
        assert len(es.open(store.path).spaces) == 2
        assert es.open(store.path).verify().ok
    assert kills >= 5


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_texts_is_tuned(family, tmp_path):
    """The blocks of each architecture are found, trained, stored and loaded again."""
    folder = save_model(tmp_path / family, family)
    store = es.create(tmp_path / "s", f"hf/{folder}", dtype="float32", device="cpu")
    store.embed(write_texts(tmp_path / "texts.csv", per_class=10), text_column="text")
    result = store.finetune("label", **QUICK | {"epochs": 1}, lr=1e-3)
    assert result.training.blocks >= 3, "two layers, and what is before them"
    assert (result.embed_report.embedded, result.embed_report.failures) == (len(set(column(store, "text"))), 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_lora_adapts_every_family_of_texts(family, tmp_path, recwarn):
    """Adapters are trained and merged, also into the layers of GPT-2, whose weights are stored transposed."""
    pytest.importorskip("peft", reason="peft is not installed (extra [finetune])")
    folder = save_model(tmp_path / family, family)
    store = es.create(tmp_path / "s", f"hf/{folder}", dtype="float32", device="cpu")
    store.embed(write_texts(tmp_path / "texts.csv", per_class=10), text_column="text")
    before = store._session.any_backbone().module.state_dict()
    result = store.finetune("label", **QUICK, layers="lora", lora_rank=2, lr=1e-2)
    after = es.open(store.path, device="cpu")._session.any_backbone(result.key).module.state_dict()
    assert set(after) == set(before), "the adapters are merged"
    changed = {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}
    assert changed
    for name, difference in changed.items():
        assert difference.dim() == 2, name
        assert torch.linalg.matrix_rank(difference, rtol=1e-3) == 2, f"{name} got an update of rank 2"
    if family == "gpt2":
        parts = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        assert set(changed) == {f"h.{block}.{part}.weight" for block in (0, 1) for part in parts}
    assert [str(warning.message) for warning in recwarn] == []


def test_adapters_of_gpt2_give_the_vectors_of_the_merged_weights(tmp_path):
    """What training validates with adapters is what the merged network embeds: the axes are not mixed up."""
    pytest.importorskip("peft", reason="peft is not installed (extra [finetune])")
    store = es.create(tmp_path / "s", f"hf/{save_model(tmp_path / 'gpt2', 'gpt2')}", device="cpu")
    backbone = store._session.any_backbone()
    blocks, items = backbone_blocks(backbone), [backbone.prepare(b"the red dog sleeps on the beach")[0]]
    plain = backbone.encode(items)
    adapted = add_lora_adapters(backbone.module, blocks, FinetuneSettings(layers="lora"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    before = backbone.encode(items)
    adapted.merge_and_unload()
    np.testing.assert_allclose(backbone.encode(items), before, atol=1e-4)
    assert not np.allclose(before, plain, atol=1e-2)


def column(store, name):
    """Return the values of a column."""
    return [value for (value,) in store.sql(f"SELECT {name} FROM items").rows]


@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "clap"])
def test_every_family_of_sounds_is_tuned(family, tmp_path):
    """Networks that read waves, and CLAP, whose words still search the tuned space."""
    folder = save_sound_model(tmp_path / family, family)
    store = es.create(tmp_path / "s", f"hf/{folder}", dtype="float32", device="cpu")
    store.embed(write_sounds(tmp_path / "clips"))
    result = store.finetune("label", **QUICK | {"epochs": 1}, lr=1e-3)
    assert (result.embed_report.embedded, result.embed_report.failures) == (20, 0)
    if family == "clap":
        assert len(store.search("a dog runs", k=3, space=result.key)) == 3


def test_windows_of_a_long_text_are_tuned_together(tmp_path):
    """A text in windows has one feature, the weighted mean of its windows, with and without gradients."""
    folder = save_model(tmp_path / "bert", "bert")
    how = {"preprocess": {"max_length": 8, "long": "windows"}, "dtype": "float32", "device": "cpu"}
    store = es.create(tmp_path / "s", f"hf/{folder}", **how)
    backbone = store._session.any_backbone()
    items = [backbone.prepare(text.encode())[0] for text in ("the dog " * 20, "a cat", "red " * 9)]
    assert [len(item.windows) > 1 for item in items] == [True, False, True]
    with torch.enable_grad():
        features = backbone.features(items)
    np.testing.assert_allclose(features.detach().numpy(), backbone.encode(items), atol=1e-5)


def test_augmentation_is_refused(plain, tmp_path):
    """Settings that augment images are refused before any training, for tuning and for strategies."""
    store = copy(plain, "texts", tmp_path)
    for option in ({"mixup": 0.2}, {"flip": False}, {"rotate": 10.0}):
        with pytest.raises(FinetuneError, match=f"{next(iter(option))} augments images.*of texts"):
            store.finetune("label", **option)
        with pytest.raises(FinetuneError, match="augments images"):
            store.compare_strategies("label", labels_per_class=[2], **option)


def test_changed_texts_are_left_out_and_counted(plain, tmp_path):
    """A row whose text is another one now is not trained on."""
    store = copy(plain, "texts", tmp_path)
    table = write_texts(tmp_path / "texts.csv")
    store.embed(table, text_column="text")
    rows = table.read_text().splitlines()
    rows[1] = "a very old house," + rows[1].partition(",")[2]
    table.write_text("\n".join(rows))
    where = f"uri LIKE '{tmp_path}%'"
    result = store.finetune("label", where=where, embed=False, **QUICK)
    assert result.training.unreadable == 1
    assert "1 texts were left out" in " ".join(result.notes)


def test_heads_are_refitted_in_the_tuned_space(plain, tmp_path):
    """A head of the old space stays bound to it until the change of the default space fits it again."""
    store = copy(plain, "texts", tmp_path)
    store.probe("label", save_as="warmth")
    result = store.finetune("label", lr=1e-3, **QUICK)
    assert {head.space_key for head in store.heads} == {result.parent.key}
    assert store.set_default(result.space, refit_heads=True).refitted == ["warmth"]
    assert {head.space_key for head in store.heads} == {result.key}
    assert store.classify([b"a red dog"], "warmth")[0].failure is None


def test_advice_and_strategies_of_texts(plain, tmp_path):
    """Advice is given without a look at pixels; the regimes are compared on the same held-out texts."""
    store = copy(plain, "texts", tmp_path)
    assert store.advise("label")
    rows = store.compare_strategies("label", labels_per_class=[], **QUICK | {"epochs": 1}).records()
    assert {row["way"] for row in rows} == {"from scratch", "frozen probe", "last layers", "all layers"}


def stop_after_the_first_epoch(monkeypatch, run):
    """Interrupt a run when its second epoch begins."""
    run_epoch = training.Trainer._run_epoch

    def stop(self, batches, number):
        if number == 2:
            raise KeyboardInterrupt
        run_epoch(self, batches, number)

    with monkeypatch.context() as patch:
        patch.setattr(training.Trainer, "_run_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run()


def test_minilm_is_tuned_interrupted_and_refitted(shared_data, tmp_path, monkeypatch):
    """Real weights: an interrupted run ends as one that was not; the tuned space tells the label; heads follow."""
    subjects, verbs = ("the dog", "my sister", "the judge", "a train", "this soup"), ("sleeps", "arrives", "waits")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label", "split"])
        for n, (subject, verb) in enumerate((s, v) for s in subjects for v in verbs):
            split = ("train", "train", "train", "val", "test")[n % 5]
            rows.writerows([[f"{subject} never {verb}", "no", split], [f"{subject} always {verb}", "yes", split]])
    store = es.create(tmp_path / "m.store", f"hf/{shared_data / 'models/all-MiniLM-L6-v2'}", device="cpu")
    store.embed(tmp_path / "t.csv", text_column="text")
    store.probe("label", save_as="answer")
    options = {"layers": "last-2", "epochs": 2, "lr": 1e-4, "batch_size": 9}
    shutil.copytree(store.path, tmp_path / "whole.store")
    whole = es.open(tmp_path / "whole.store", device="cpu").finetune("label", embed=False, **options)
    stop_after_the_first_epoch(monkeypatch, lambda: store.finetune("label", **options))
    result = es.open(store.path, device="cpu").finetune("label", **options)
    assert_equal(weights(result), weights(whole))
    assert (result.key, result.embed_report.embedded) == (whole.key, 30)
    assert (result.training.blocks, result.training.tuned_blocks) == (7, 2), "six layers after the embeddings"
    store = es.open(store.path, device="cpu")
    assert store.probe("label", space=result.key).accuracy >= 0.8
    assert store.set_default(result.space, refit_heads=True).refitted == ["answer"]
    assert store.classify([b"the cat never runs"], "answer")[0].labels == ("no",)


@pytest.mark.slow
def test_whisper_is_tuned_on_real_prompts(shared_data, tmp_path):
    """Real weights, five English and five French prompts: the last block is trained, and the new space is filled."""
    with (tmp_path / "p.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "label", "split"])
        for language, voice in (("en", "en_US_f_Allison"), ("fr", "fr_CA_f_June")):
            files = sorted((PROMPTS / voice).glob("*.wav"), key=lambda p: -p.stat().st_size)[20:25]
            if len(files) < 5:
                pytest.skip("no spoken prompts here (Debian's asterisk-core-sounds-en-wav and -fr-wav)")
            splits = ("train", "train", "train", "val", "test")
            rows.writerows([file, language, split] for file, split in zip(files, splits, strict=True))
    model = shared_data / "models/whisper-tiny-en-encoder"
    store = es.create(tmp_path / "w.store", f"hf/{model}", weights=model / "encoder.safetensors", device="cpu")
    store.embed(tmp_path / "p.csv")
    result = store.finetune("label", layers="last-1", epochs=1, lr=1e-4, micro_batch_size=3, batch_size=6)
    assert (result.training.train_images, result.training.val_images, result.embed_report.embedded) == (6, 2, 10)
    assert (result.training.blocks, result.training.tuned_blocks) == (5, 1), "four layers after the convolutions"
    assert not result.has_same_vectors
    assert "3 clips" in " ".join(result.notes)
    assert len(es.open(store.path, device="cpu").search(1, k=3, space=result.space)) == 3
