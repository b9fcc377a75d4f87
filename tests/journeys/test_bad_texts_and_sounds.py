"""Bad texts, sounds and models, as a person meets them in the command line: one line each, or a row in `failures`."""

import json
import shutil

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import BadBackbone, BadManifest, BadOption, QueryError, WeightsNotFound
from tests.conftest import picture
from tests.helpers.command_line import command_runner
from tests.helpers.sound_models import save_sound_model, sound_file, tone
from tests.helpers.text_models import save_model

pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")

VIDEO = b"\0\0\0\x20ftypisom" + b"\0" * 100
MATROSKA = b"\x1aE\xdf\xa3" + b"\0" * 100
HALF = "smile \ud83d"  # the first half of an emoji, as JSON can write it and UTF-8 cannot


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """An empty store of texts."""
    folder = tmp_path_factory.mktemp("texts")
    return es.create(folder / "t.store", f"hf/{save_model(folder / 'bert', 'bert')}", device="cpu")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """An empty store of sounds."""
    pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
    pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")
    folder = tmp_path_factory.mktemp("sounds")
    return es.create(folder / "s.store", f"hf/{save_sound_model(folder / 'wave', 'wav2vec2')}", device="cpu")


@pytest.fixture
def run(capsys):
    """Run a command: exit status, and what it printed to standard error."""
    return command_runner(capsys)


def failures(store):
    """Return the reasons of the failures by the last part of their names."""
    return {uri.rpartition("/")[2]: reason for uri, reason in store.sql("SELECT uri, reason FROM failures").rows}


def test_each_bad_text_is_a_row_of_failures(texts, tmp_path):
    """Empty, spaces and bytes that are no UTF-8 fail with their reason; a million characters are embedded."""
    for name, data in {
        "empty.txt": b"",
        "spaces.txt": b"  \n\t ",
        "latin.txt": b"caf\xe9 au lait",
        "half.txt": b"\xed\xa0\xbd",  # half of an emoji as bytes
        "zeros.txt": b"the\0dog",
        "million.txt": b"the dog runs " * 77_000,
        "word.txt": b"a" * 1_000_000,
    }.items():
        (tmp_path / name).write_bytes(data)
    report = texts.embed(tmp_path)
    assert report.embedded == 2
    reasons = {"empty": "empty", "spaces": "blank", "latin": "not_a_text", "half": "not_a_text", "zeros": "not_a_text"}
    assert failures(texts) == {f"{name}.txt": reason for name, reason in reasons.items()}


def test_each_bad_cell_of_a_table_is_a_row_of_failures(texts, tmp_path):
    """Rows without a text, or with spaces alone, fail one by one; the others are embedded."""
    (tmp_path / "reviews.csv").write_text("text,stars\nthe dog runs,5\n,1\n   ,2\nthe cat sleeps,4\n")
    report = texts.embed(tmp_path / "reviews.csv", text_column="text")
    assert (report.embedded + report.reused, report.failures_by_reason) == (2, {"blank": 1, "empty": 1})


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
@pytest.mark.parametrize("row", [{"text": HALF}, {"text": "a dog", HALF: 1}, {"text": "a dog", "more": [HALF]}])
def test_half_of_a_character_in_a_table_is_one_line(texts, tmp_path, name, row):
    """JSON that was cut in the middle of an emoji names where it is; a whole emoji is read."""
    whole = json.dumps({"text": "a dog \U0001f600"})
    rows = [whole, json.dumps(row)]
    (tmp_path / name).write_text("\n".join(rows) if name.endswith("l") else f"[{','.join(rows)}]")
    with pytest.raises(BadManifest, match=r"half of a character, \\ud83d, after"):
        texts.embed(tmp_path / name, text_column="text")
    (tmp_path / "whole.jsonl").write_text(whole)
    report = texts.embed(tmp_path / "whole.jsonl", text_column="text")
    assert (report.embedded + report.reused, report.failures) == (1, 0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.search(HALF),
        lambda store: store.search("a dog", plus=[HALF]),
        lambda store: store.search("a dog", templates=f"{HALF} {{}}"),
        lambda store: store.search(HALF, hybrid="label"),
        lambda store: store.encode(texts=["a dog", HALF]),
        lambda store: store.zero_shot(["a dog", HALF]),
    ],
)
@pytest.mark.parametrize("kind", ["texts", "images"])
def test_half_of_a_character_in_a_query_is_one_line(texts, tmp_path, kind, ask):
    """Bytes of a terminal that are not UTF-8 arrive as half characters: they are refused for every text tower."""
    store = texts if kind == "texts" else es.create(tmp_path / "i.store", "embedstore/tiny")
    with pytest.raises((QueryError, BadOption), match=r"is not valid text|that is not Unicode") as caught:
        ask(store)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()  # the message itself can be printed


def test_the_same_in_the_command_line(texts, run):
    """A query and a prompt with such bytes print one line and exit with 1."""
    code, printed = run("search", texts.path, "caf\udce9")
    assert (code, printed.count("\n")) == (1, 1)
    assert "is not valid text" in printed
    with pytest.raises(BadBackbone, match="is not valid text"):
        es.create(texts.path.with_name("p.store"), f"hf/{texts.path.with_name('bert')}", preprocess={"prompt": HALF})


def test_each_bad_sound_is_a_row_of_failures(sounds, tmp_path):
    """No samples, silence, a video and a text under the name of a sound fail; another sample rate is resampled."""
    for name, data in {
        "zero.wav": sound_file(np.zeros(0, np.float32)),
        "zero.ogg": sound_file(np.zeros(0, np.float32), kind="OGG"),
        "nothing.flac": b"",
        "silent.wav": sound_file(np.zeros(16000, np.float32)),
        "video.wav": VIDEO,
        "video.mp3": MATROSKA,
        "text.wav": b"no sound at all",
        "skipped.mp4": VIDEO,
        "low.wav": sound_file(tone(0.5, rate=8000), rate=8000),
        "high.flac": sound_file(tone(0.5, rate=44100), rate=44100, kind="FLAC"),
    }.items():
        (tmp_path / name).write_bytes(data)
    report = sounds.embed(tmp_path)
    assert (report.embedded, report.skipped_by_kind) == (2, {".mp4": 1})
    assert failures(sounds) == {
        "zero.wav": "empty",
        "zero.ogg": "empty",
        "nothing.flac": "empty",
        "silent.wav": "silent",
        "video.wav": "not_a_sound",
        "video.mp3": "not_a_sound",
        "text.wav": "not_a_sound",
    }
    assert [notice for notice in report.notices if "ffmpeg" in notice]
    low, high = (tmp_path / name for name in ("low.wav", "high.flac"))
    assert sounds.search(low, k=1)[0].uri == str(low)
    assert sounds.search(high, k=2)[1].score > 0.99, "the same tone at two rates is one sound"


@pytest.mark.parametrize("kind", ["texts", "sounds"])
def test_pages_and_frames_are_for_images(request, kind, tmp_path):
    """A space of texts or sounds refuses --pages and --every, and names what reads a PDF file or a video."""
    store = request.getfixturevalue(kind)
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    (tmp_path / "a.mp4").write_bytes(VIDEO)
    (tmp_path / "a.txt").write_text("a very old dog")
    (tmp_path / "a.wav").write_bytes(sound_file(tone(0.3, seed=5)))
    picture(0).save(tmp_path / "a.jpg")
    for options in ({"pages": True}, {"every": 2.0}, {"key_frames": True}):
        with pytest.raises(BadOption, match="a space of images"):
            store.embed(tmp_path, **options)
    notices = store.embed(tmp_path).notices
    assert not [notice for notice in notices if "--pages" in notice or "--every" in notice]
    cure = "pdftotext" if kind == "texts" else "ffmpeg"
    assert [notice for notice in notices if cure in notice]


@pytest.mark.parametrize(
    ("kind", "name", "reason", "detail"),
    [
        ("sounds", "named.mp4", "not_a_sound", "ffmpeg"),
        ("texts", "named.mp4", "not_a_text", "not UTF-8"),
        ("texts", "named.pdf", "not_a_text", "pdftotext"),
    ],
)
def test_a_video_or_pdf_file_that_is_named_fails_as_a_whole(request, kind, name, reason, detail, tmp_path):
    """A space of texts or sounds takes no frames and pages from it: one failure, with what makes a file of it."""
    store = request.getfixturevalue(kind)
    (tmp_path / name).write_bytes(VIDEO + b"\xff" if name == "named.mp4" else b"%PDF-1.4")
    report = store.embed(tmp_path / name)
    assert report.summary().startswith(f"1 file: 0 embedded, 1 failed (1 {reason})")
    assert detail in store.sql(f"SELECT detail FROM failures WHERE uri = '{tmp_path / name}'").rows[0][0]


def test_a_run_over_texts_offers_no_exported_tower(texts, tmp_path, run):
    """Towers are exported for images only: the end of a run over texts prints nothing about them."""
    (tmp_path / "new.txt").write_text("a small red house")
    code, printed = run("embed", texts.path, tmp_path)
    assert code == 0
    assert "tower" not in printed


def without(source, folder, *names):
    """Return a copy of a model without some files."""
    shutil.copytree(source, folder)
    for name in names:
        (folder / name).unlink()
    return folder


def test_a_missing_tokenizer_is_named_with_its_cure(shared_data, tmp_path, run):
    """Real MiniLM without its tokenizer: the files that were looked for, and the cure, which works when followed."""
    model = shared_data / "models" / "all-MiniLM-L6-v2"
    folder = without(model, tmp_path / "m", "tokenizer.json", "vocab.txt")
    code, printed = run("create", tmp_path / "m.store", "--backbone", f"hf/{folder}")
    assert (code, printed.count("\n")) == (1, 1)
    for part in (
        f"no tokenizer in {folder}",
        "looked for tokenizer.json, vocab.txt",
        "copy the model's tokenizer.json",
    ):
        assert part in printed
    assert not (tmp_path / "m.store").exists()
    shutil.copy(model / "tokenizer.json", folder)
    assert run("create", tmp_path / "m.store", "--backbone", f"hf/{folder}")[0] == 0


def test_a_tokenizer_that_goes_missing_later_is_named_by_every_verb(tmp_path, run):
    """A store stays readable without the tokenizer; whatever needs it names the file."""
    folder = save_model(tmp_path / "bert", "bert")
    store = es.create(tmp_path / "t.store", f"hf/{folder}")
    (tmp_path / "a.txt").write_text("the dog runs")
    store.embed(tmp_path / "a.txt")
    (folder / "tokenizer.json").unlink()
    assert run("search", store.path, "--item", 1)[0] == 0
    for command in (["search", store.path, "the dog"], ["search", store.path, "--file", tmp_path / "a.txt"]):
        code, printed = run(*command)
        assert (code, printed.count("\n")) == (1, 1)
        assert f"no tokenizer in {folder}" in printed


def test_half_a_tokenizer_names_the_other_half(tmp_path):
    """A byte-pair tokenizer of two files without its second one names it."""
    folder = without(save_model(tmp_path / "whole", "gpt2"), tmp_path / "half", "tokenizer.json")
    (folder / "vocab.json").write_text(json.dumps({"a": 0}))
    with pytest.raises(WeightsNotFound, match=r"has vocab.json and lacks merges.txt"):
        es.create(tmp_path / "g.store", f"hf/{folder}")


def test_a_tokenizer_that_is_damaged_is_one_line(tmp_path):
    """Bytes that are no tokenizer give the library's reason and the cure."""
    folder = save_model(tmp_path / "bert", "bert")
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(BadBackbone, match=r"cannot be loaded.*copy the model's tokenizer.json") as caught:
        es.create(tmp_path / "t.store", f"hf/{folder}")
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_that_is_not_here_is_one_line(tmp_path, monkeypatch, run):
    """Without a network the repository, the file and both ways out are named."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    code, printed = run("create", tmp_path / "h.store", "--backbone", "hf/nobody/no-such-model")
    assert (code, printed.count("\n")) == (1, 1)
    assert "config.json of nobody/no-such-model" in printed
    assert "name a folder that holds the model" in printed
