"""Networks of sound by `hf/FOLDER`: real frames alone, windows, and vectors that do not depend on the batch."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import embedstore as es
from embedstore.backbones import load, resolve_name
from embedstore.errors import AudioError, BadBackbone, NoTextTower, WeightsNotFound
from embedstore.modality import Modality
from embedstore.space import Recipe, Space
from tests.helpers.labelled_sets import PROMPTS, VOICES, write_prompts
from tests.helpers.sound_models import FAMILIES, save_sound_model, sound_file, tone

pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

MIN_COSINE = 0.99999


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound")
    return {family: save_sound_model(root / family, family) for family in FAMILIES}


@pytest.fixture(scope="module")
def backbones(folders):
    return {family: load_folder(folder) for family, folder in folders.items()}


def load_folder(folder, **recipe):
    return load(Recipe(resolve_name(f"hf/{folder}"), **recipe), device="cpu")


def prepare(backbone, samples):
    return backbone.prepare(sound_file(samples, subtype="FLOAT"))[0]


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=4, deadline=None)
@given(seconds=st.lists(st.floats(0.1, 4.5), min_size=2, max_size=4), rows=st.integers(1, 3))
def test_a_vector_does_not_depend_on_its_batch(family, backbones, seconds, rows):
    """Whatever the lengths and the size of a pass, every sound has the vector that it has alone."""
    backbone = backbones[family]
    items = [prepare(backbone, tone(s, pitch=200 + 300 * n, seed=n)) for n, s in enumerate(seconds)]
    alone = np.concatenate([backbone.encode([item]) for item in items])
    before, backbone._runner.batch_size = backbone._runner.batch_size, rows
    try:
        together = backbone.encode(items)
    finally:
        backbone._runner.batch_size = before
    assert cosines(alone, together).min() >= MIN_COSINE


@pytest.mark.parametrize("family", ["wav2vec2", "hubert"])
def test_frames_are_those_of_the_feature_extractor(family, folders, backbones):
    """The vector is the mean of the frames that transformers gives for the normalized clip alone; --layer works."""
    from transformers import AutoModel

    samples = tone(0.7)
    values = torch.from_numpy((samples - samples.mean()) / np.sqrt(samples.var() + 1e-7))[None]
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folders[family]).eval()(input_values=values, output_hidden_states=True)
    expected = states.last_hidden_state[0].mean(dim=0).numpy()
    assert cosines(backbones[family].encode([prepare(backbones[family], samples)]), expected[None]).min() >= MIN_COSINE
    layer = load_folder(folders[family], layer="1")
    expected = states.hidden_states[1][0].mean(dim=0).numpy()
    assert layer.space.layer == "1"
    assert cosines(layer.encode([prepare(layer, samples)]), expected[None]).min() >= MIN_COSINE


def test_whisper_averages_the_real_frames_alone(folders, backbones):
    """A clip of 0.5 s has 25 frames of 20 ms; the rest of the window, which the library pads, does not count."""
    from transformers import AutoFeatureExtractor, WhisperModel

    samples = tone(0.5)
    mels = AutoFeatureExtractor.from_pretrained(folders["whisper"])(samples, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        frames = WhisperModel.from_pretrained(folders["whisper"]).eval().encoder(mels.input_features).last_hidden_state
    backbone = backbones["whisper"]
    vector = backbone.encode([prepare(backbone, samples)])
    assert cosines(vector, frames[0, :25].mean(dim=0).numpy()[None]).min() >= MIN_COSINE
    assert cosines(vector, frames[0].mean(dim=0).numpy()[None]).min() < 0.9999, "padding would change the vector"


@pytest.mark.parametrize("family", ["whisper", "clap"])
def test_a_long_clip_is_read_in_windows(family, backbones):
    """Of 5 s with windows of 2 s the vector is the mean of three, weighted by their seconds."""
    backbone, samples = backbones[family], tone(5.0)
    whole = prepare(backbone, samples)
    assert [len(w) for w in whole.windows] == [32000, 32000, 16000]
    parts = backbone.encode([prepare(backbone, samples[at : at + 32000]) for at in (0, 32000, 64000)])
    expected = (parts * np.array([[2.0], [2.0], [1.0]])).sum(axis=0, keepdims=True)
    assert cosines(backbone.encode([whole]), expected).min() >= MIN_COSINE


def test_windows_and_their_hop_belong_to_the_space(folders):
    """`--preprocess window=1 hop=0.5` overlaps; impossible values and options of other modalities are refused."""
    overlapping = load_folder(folders["whisper"], preprocess={"window": 1.0, "hop": 0.5})
    assert [len(w) for w in prepare(overlapping, tone(2.0)).windows] == [16000, 16000, 16000]
    space = overlapping.space
    assert (space.modality, space.input.window, space.input.hop, space.input.sample_rate) == (
        Modality.AUDIO,
        1.0,
        0.5,
        16000,
    )
    assert Space.from_json(space.to_json()).key == space.key
    assert load_folder(folders["whisper"], preprocess={"window": 1.0}).space.input.hop == 1.0
    for change in ({"window": 9.0}, {"hop": 3.0}, {"window": 0.0}, {"max_length": 5}):
        with pytest.raises(BadBackbone, match="--preprocess"):
            load_folder(folders["whisper"], preprocess=change)
    with pytest.raises(BadBackbone, match="leave out --pool"):
        load_folder(folders["whisper"], pool="max")


def test_a_clip_that_is_too_short_has_a_reason(backbones):
    """The detail names the seconds."""
    for backbone in backbones.values():
        with pytest.raises(AudioError, match="the network needs") as caught:
            prepare(backbone, tone(0.01))
        assert caught.value.reason == "too_short"


def test_clap_searches_sounds_by_words(folders, tmp_path):
    """Texts and sounds have vectors of length 1 in one space; other networks of sound have no tower of texts."""
    (tmp_path / "clips").mkdir()
    for n in range(3):
        (tmp_path / "clips" / f"{n}.wav").write_bytes(sound_file(tone(0.5, pitch=300 * (n + 1))))
    store = es.create(tmp_path / "c.store", f"hf/{folders['clap']}", device="cpu")
    assert store.embed(tmp_path / "clips").embedded == 3
    assert len(store.search("the dog", k=3).hits) == 3
    vectors = store.encode(images=[str(tmp_path / "clips" / "0.wav")])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    other = es.create(tmp_path / "w.store", f"hf/{folders['whisper']}", device="cpu")
    other.embed(tmp_path / "clips")
    with pytest.raises(NoTextTower):
        other.search("the dog")
    assert len(other.search(1, k=2).hits) == 2, "sound by sound: an item is a query"


def test_sounds_that_fail_have_a_reason_and_cost_one_clip(folders, tmp_path):
    """Silent, broken, short and foreign files are failures; a video and a picture in the folder are skipped."""
    clips = tmp_path / "clips" / "tones"
    clips.mkdir(parents=True)
    (clips / "good.flac").write_bytes(sound_file(tone(0.5), kind="FLAC"))
    (clips / "rate.wav").write_bytes(sound_file(tone(0.5, rate=8000), rate=8000))
    (clips / "silent.wav").write_bytes(sound_file(np.zeros(8000, np.float32)))
    (clips / "broken.mp3").write_bytes(b"ID3" + b"\x01" * 40)
    (clips / "short.wav").write_bytes(sound_file(tone(0.01)))
    (clips / "film.wav").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 100)
    (clips / "film.mp4").write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 100)
    store = es.create(tmp_path / "s.store", f"hf/{folders['wav2vec2']}", device="cpu")
    report = store.embed(tmp_path / "clips")
    assert (report.embedded, report.skipped_by_kind) == (2, {".mp4": 1})
    assert report.failures_by_reason == {"corrupt": 1, "not_a_sound": 1, "silent": 1, "too_short": 1}
    assert "clips/s" in report.summary()
    assert dict(store.sql("SELECT format, count(*) FROM contents GROUP BY 1").rows) == {"FLAC": 1, "WAV": 1}


def test_what_is_missing_offline_is_named(folders, tmp_path):
    """The settings of the feature extractor and the weights are named in one line."""
    for missing, message in (
        ("preprocessor_config.json", "no preprocessor_config.json"),
        ("model.safetensors", "no model"),
    ):
        folder = shutil.copytree(folders["wav2vec2"], tmp_path / missing)
        (folder / missing).unlink()
        with pytest.raises(WeightsNotFound, match=message):
            load_folder(folder)


@pytest.mark.parametrize("count", [3, pytest.param(60, marks=pytest.mark.slow)])
def test_whisper_tells_english_from_french(count, shared_data, tmp_path):
    """Real weights, real prompts: with prompts disjoint about 0.93 at 60 of each language."""
    if not all((PROMPTS / voice).is_dir() for voice in VOICES.values()):
        pytest.skip("the prompts are not installed (Debian packages asterisk-core-sounds-en-wav and -fr-wav)")
    table = write_prompts(tmp_path / "prompts.csv", count)
    folder = shared_data / "models" / "whisper-tiny-en-encoder"
    store = es.create(tmp_path / "p.store", f"hf/{folder}", weights=folder / "encoder.safetensors", device="cpu")
    report = store.embed(table)
    assert report.embedded + report.reused + report.failures == 2 * count
    if count >= 60:
        accuracy = store.probe("label", folds=5).report.scores["accuracy"].value
        assert 0.88 <= accuracy <= 0.99
