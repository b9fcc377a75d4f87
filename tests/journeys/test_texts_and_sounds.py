"""Everything after `embed` on texts (MiniLM) and sounds (Whisper's encoder, CLAP): the same verbs, right answers."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv_writer
import pyarrow.parquet as parquet
import pytest

import embedstore as es
from embedstore.cli import main
from embedstore.errors import AudioError, BadBackbone, BadManifest, BadOption, NoTextTower, SourceNotFound, TextError
from tests.conftest import picture
from tests.helpers.sound_models import save_sound_model, sound_file, tone

pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")

PROMPTS = Path("/usr/share/asterisk/sounds")
TEXTS = {
    "food": [
        "bread baked in an oven", "a sweet cake with cream", "soup of beans and meat", "a salad with tomatoes",
        "cheese from goat milk", "a pie filled with apples", "rice cooked with spices", "grilled fish with lemon",
        "pancakes with honey", "pasta with basil and garlic",
    ],
    "law": [
        "a court that hears appeals", "a judge gives the sentence", "a contract between two parties",
        "the defendant pleads guilty", "a statute passed by parliament", "an attorney represents a client",
        "a witness swears an oath", "a fine for breaking the rules", "the jury reached a verdict",
        "a lawsuit about damages",
    ],
}  # fmt: skip
WRONG, COPY = "roast beef with potatoes", "bread baked in the oven"  # the first is labeled law


@pytest.fixture(scope="module")
def texts(shared_data, tmp_path_factory):
    """22 short texts of two topics in MiniLM's space, one with a wrong label, one nearly equal to another."""
    folder = tmp_path_factory.mktemp("texts")
    with (folder / "texts.csv").open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["text", "topic"])
        rows.writerows([text, topic] for topic, each in TEXTS.items() for text in each)
        rows.writerows([[WRONG, "law"], [COPY, "food"]])
    store = es.create(folder / "t.store", backbone=f"hf/{shared_data / 'models/all-MiniLM-L6-v2'}")
    store.embed(folder / "texts.csv", text_column="text")
    return store


@pytest.fixture(scope="module")
def prompts(shared_data, tmp_path_factory):
    """12 English and 12 French prompts in the space of Whisper's encoder, and two more that are not items."""
    folder = tmp_path_factory.mktemp("prompts")
    for language, voice in (("en", "en_US_f_Allison"), ("fr", "fr_CA_f_June")):
        files = sorted((PROMPTS / voice).glob("*.wav"), key=lambda p: -p.stat().st_size)[20:33]
        if len(files) < 13:
            pytest.skip("no spoken prompts here (Debian's asterisk-core-sounds-en-wav and -fr-wav)")
        (folder / "clips" / language).mkdir(parents=True)
        for file in files[1:]:
            shutil.copy(file, folder / "clips" / language)
        shutil.copy(files[0], folder / f"{language}.wav")
    model = shared_data / "models" / "whisper-tiny-en-encoder"
    store = es.create(folder / "p.store", backbone=f"hf/{model}", weights=model / "encoder.safetensors")
    store.embed(folder / "clips")
    return store


def column(store, name):
    """Return the values of a column by item."""
    return dict(store.sql(f'SELECT item, "{name}" FROM items').rows)


def run(*command):
    """Run a command that succeeds."""
    with pytest.raises(SystemExit, match=r"^0$"):
        main([str(part) for part in command])


def test_texts_are_found_by_text_by_item_and_by_file(texts, tmp_path):
    """A question about courts finds law; a text finds its near copy; a file of text is read as an item is."""
    topic, text = column(texts, "topic"), column(texts, "text")
    assert {topic[h.item] for h in texts.search("the judge and the court", k=5)} == {"law"}
    bread = next(item for item, value in text.items() if value == TEXTS["food"][0])
    assert [text[h.item] for h in texts.search(bread, k=2)] == [TEXTS["food"][0], COPY]
    (tmp_path / "q.txt").write_text(TEXTS["food"][0])
    for query in (tmp_path / "q.txt", TEXTS["food"][0].encode()):
        hit = texts.search(query, k=1)[0]
        assert (hit.item, hit.score) == (bread, pytest.approx(1, abs=1e-3))


def test_sounds_are_found_by_a_new_clip(prompts):
    """The nearest prompts to a clip that is no item are of its language; words are refused with what would do."""
    for language in ("en", "fr"):
        hits = prompts.search(prompts.path.parent / f"{language}.wav", k=5)
        assert sum(h.label == language for h in hits) >= 4
    with pytest.raises(NoTextTower, match="CLAP"):
        prompts.search("goodbye")
    with pytest.raises(NoTextTower, match="CLAP"):
        prompts.zero_shot(["en", "fr"])


@pytest.mark.parametrize(
    ("kind", "query", "error"),
    [
        ("texts", b"\xff\xfe\xfa", TextError),
        ("texts", b" \n ", TextError),
        ("texts", Path("/nowhere/q.txt"), (TextError, SourceNotFound, es.errors.ItemError)),
        ("texts", picture(0), BadBackbone),
        ("prompts", b"no sound", AudioError),
        ("prompts", picture(0), BadBackbone),
    ],
)
def test_a_file_that_cannot_be_a_query_is_one_line(request, kind, query, error):
    """Bytes that are no text or no sound, a missing file and a picture are errors of ours."""
    with pytest.raises(error) as e:
        request.getfixturevalue(kind).search(query)
    assert "\n" not in str(e.value)


def test_the_wrong_label_of_a_text_is_found(texts):
    """The text about food that is labeled law is the most doubtful label."""
    first = texts.label_errors("topic", folds=5).ranking.top(1)[0]
    assert (column(texts, "text")[first.item], first.suggested_label) == (WRONG, "food")


def test_copies_of_texts_and_sounds(texts, prompts):
    """Two texts of nearly the same words are one group; different prompts are none of equal bytes."""
    text = column(texts, "text")
    groups = texts.duplicates(0.9)
    assert {text[item.item] for item in groups.items} == {TEXTS["food"][0], COPY}
    assert not prompts.duplicates(1.0).items


@pytest.mark.parametrize(("kind", "label"), [("texts", "topic"), ("prompts", "label")])
def test_pages_and_checks(request, kind, label, tmp_path):
    """Map, contact sheet and report are written; a checkup looks at no pixels of what has none."""
    store = request.getfixturevalue(kind)
    mapped = store.map(color_by=label)
    assert len(mapped.projection.items) == len(store)
    assert "<svg" in mapped.html() or "<canvas" in mapped.html()
    page = store.search(1, k=3).html()
    assert ("<audio" in page) if kind == "prompts" else (TEXTS["food"][0] in page)
    report = store.checkup(label)
    assert "pictures" not in report.checks
    assert not any("images" in finding.text for finding in report.findings)


@pytest.mark.parametrize(("kind", "label"), [("texts", "topic"), ("prompts", "label")])
def test_an_export_has_the_vectors_and_comes_back(request, kind, label, tmp_path):
    """A Parquet file has the stored vectors in order, and a whole store that was exported answers alike."""
    store = request.getfixturevalue(kind)
    store.export(tmp_path / "e.parquet")
    table = parquet.read_table(tmp_path / "e.parquet").to_pydict()
    features = store.features(label)
    rows = dict(zip(table["item"], table["vector"], strict=True))
    assert np.allclose([rows[item] for item in features.ids.tolist()], features.X, atol=1e-6)
    store.export_store(tmp_path / "whole")
    es.import_store(tmp_path / "again.store", tmp_path / "whole")
    again = es.open(tmp_path / "again.store")
    assert [h.item for h in again.search(3, k=9)] == [h.item for h in store.search(3, k=9)]


@pytest.mark.parametrize(("kind", "label"), [("texts", "topic"), ("prompts", "label")])
def test_heads_learn_and_classify_what_is_new(request, kind, label, tmp_path):
    """Probe, curve and comparison work; a saved head names the class of a new text or clip; the rest is refused."""
    store = request.getfixturevalue(kind)
    assert store.knn(label).accuracy >= 0.6
    store.probe(label, save_as=f"head_{kind}")
    new = {"texts": [b"the jury heard the lawyer", b"a cup of tea with biscuits"]}.get(kind) or [
        store.path.parent / "en.wav", store.path.parent / "fr.wav"
    ]  # fmt: skip
    expected = ["law", "food"] if kind == "texts" else ["en", "fr"]
    classified = store.classify(new, f"head_{kind}")
    assert [image.labels for image in classified.images] == [(name,) for name in expected]
    assert classified.html()
    assert store.predict(f"head_{kind}").items == len(store)
    curve = store.learning_curve(label, labels_per_class=[2, 4])
    assert curve.points[-1].mean >= 0.5
    assert len(store.compare_heads(label, heads=["ridge", "prototype"]).results) == 2
    with pytest.raises(BadBackbone, match="export-head"):
        store.export_classifier(f"head_{kind}", tmp_path / "c.onnx")


NEW = [("the jury heard the lawyer", "law"), ("a cup of tea with biscuits", "food"), ("", None), ("  ", None)]


@pytest.mark.parametrize("name", ["new.csv", "new.jsonl", "new.parquet"])
def test_a_table_of_new_texts_is_classified_and_written_out(texts, tmp_path, name):
    """Each row is judged as an item of its text would be, in order; a row without a text has its reason."""
    texts.probe("topic", save_as="judge")
    frame = pa.table({"remark": [text for text, _ in NEW], "number": list(range(4))})
    {
        "new.csv": lambda path: csv_writer.write_csv(frame, path),
        "new.jsonl": lambda path: path.write_text("\n".join(json.dumps(row) for row in frame.to_pylist())),
        "new.parquet": lambda path: parquet.write_table(frame, path),
    }[name](tmp_path / name)
    before = len(texts)
    command = ["classify", texts.path, "judge", tmp_path / name, "--text-column", "remark"]
    command += ["-o", tmp_path / "judged.csv", "-o", tmp_path / "judged.html"]
    run(*command)
    rows = list(csv.DictReader((tmp_path / "judged.csv").open(newline="")))
    assert [(row["text"], row["label"] or None) for row in rows] == NEW
    assert [row["image"].rpartition("row=")[2] for row in rows] == list("0123")
    assert [row["failure"].partition(":")[0] for row in rows] == ["", "", "empty", "blank"]
    head, vector = texts.head("judge"), texts.encode(images=[NEW[0][0].encode()])
    expected = head.predict_proba(vector)[0][list(head.classes_).index("law")]
    assert float(rows[0]["score"]) == pytest.approx(expected, abs=1e-4)
    page = (tmp_path / "judged.html").read_text()
    assert f"<blockquote>{NEW[0][0]}</blockquote>" in page
    assert "<img" not in page
    assert len(texts) == before, "nothing is stored"


def test_a_column_of_texts_needs_a_head_over_texts(texts, prompts, tmp_path):
    """A head over sounds, an unknown column and texts in memory are refused in one line."""
    texts.probe("topic", save_as="judge")
    prompts.probe("label", save_as="language")
    (tmp_path / "new.csv").write_text("remark\na judge\n")
    with pytest.raises(BadOption, match="this one is of clips"):
        prompts.classify(tmp_path / "new.csv", "language", text_column="remark")
    with pytest.raises(BadManifest, match=r"has no column 'remarks'.*remark"):
        texts.classify(tmp_path / "new.csv", "judge", text_column="remarks")
    with pytest.raises(BadOption, match="file of a table"):
        texts.classify([b"a judge"], "judge", text_column="remark")


def test_classified_texts_can_be_added(texts, tmp_path, capsys):
    """With --add the rows become items without a label, and their columns come along."""
    shutil.copytree(texts.path, tmp_path / "copy.store")
    store = es.open(tmp_path / "copy.store")
    store.probe("topic", save_as="judge")
    store.close()
    (tmp_path / "new.csv").write_text("text,stars\na judge wrote a sentence,4\n")
    table = str(tmp_path / "new.csv")
    run("classify", tmp_path / "copy.store", "judge", table, "--text-column", "text", "--add")
    assert "1 text: 1 new item" in capsys.readouterr().err
    assert es.open(tmp_path / "copy.store").sql("SELECT text FROM items WHERE stars = 4").rows == ((
        "a judge wrote a sentence",
    ),)  # fmt: skip


@pytest.mark.parametrize("kind", ["texts", "prompts"])
def test_a_report_in_one_command(request, kind, shared_data, tmp_path, capsys):
    """`report` judges vectors of real weights, measures a curve and writes a page; what is embedded stays."""
    store = request.getfixturevalue(kind)
    folder = store.path.parent
    if kind == "prompts":
        shutil.copytree(store.path, tmp_path / "r.store")
    whisper = shared_data / "models/whisper-tiny-en-encoder"
    arguments = {
        "texts": [
            folder / "texts.csv", "--text-column", "text", "--label", "topic",
            "--backbone", f"hf/{shared_data / 'models/all-MiniLM-L6-v2'}",
        ],
        "prompts": [
            folder / "clips", "--backbone", f"hf/{whisper}", "--weights", whisper / "encoder.safetensors"
        ],
    }[kind]  # fmt: skip
    command = ["report", *arguments, "--store", tmp_path / "r.store", "-o", tmp_path / "r.html", "--json"]
    run(*command)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["accuracy"] >= 0.5
    assert ("texts/s" if kind == "texts" else "24 unchanged") in printed.err
    page = (tmp_path / "r.html").read_text()
    assert "labels per class" in page
    for word in ("pictures", "photos"):
        assert word not in page


@pytest.mark.parametrize(("kind", "label"), [("texts", "topic"), ("prompts", "label")])
def test_predictions_and_curves_are_those_of_the_vectors(request, kind, label):
    """`predict` writes what the head says of the stored vectors, `curve` grows to the figure of all labels."""
    store = request.getfixturevalue(kind)
    store.probe(label, save_as="all")
    store.predict("all")
    features, head = store.features(label), store.head("all")
    expected = dict(zip(features.ids.tolist(), head.predict(features.X).tolist(), strict=True))
    assert dict(store.sql("SELECT item, label FROM predictions WHERE head = 'all'").rows) == expected
    curve = store.learning_curve(label, labels_per_class=[1, 4])
    assert [point.labels_per_class for point in curve.points] == [1, 4, None]
    assert curve.points[0].mean <= curve.points[-1].mean + 0.2


def test_labels_are_suggested_for_texts(texts):
    """Without a label, typical texts come first; with some, those that the head doubts."""
    texts.edit({"answer": "NULL::VARCHAR"}, "true", create_columns=True)
    first = texts.suggest_labels("answer", k=4).suggestions
    assert len({s.item for s in first}) == 4


def test_clap_searches_and_classifies_sounds_by_words(tmp_path):
    """With both towers words find clips and give zero-shot classes; random weights give an order, not a meaning."""
    for name, pitch in (("low", 200), ("high", 2000)):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for n in range(4):
            data = sound_file(tone(0.5, pitch=pitch + 20 * n, seed=n))
            (tmp_path / "clips" / name / f"{n}.wav").write_bytes(data)
    store = es.create(tmp_path / "c.store", backbone=f"hf/{save_sound_model(tmp_path / 'clap', 'clap')}")
    store.embed(tmp_path / "clips")
    hits = store.search("a dog runs", k=8)
    vector = store.encode(texts=["a dog runs"])[0]
    features = store.features("label")
    cosines = dict(zip(features.ids.tolist(), (features.X @ vector).tolist(), strict=True))
    assert [h.item for h in hits] == sorted(cosines, key=lambda item: -cosines[item])
    evaluated = store.zero_shot(["low", "high"]).evaluate("label")
    assert evaluated.n_held_out == 8
    assert store.search(tmp_path / "clips" / "low" / "2.wav", k=1)[0].score == pytest.approx(1, abs=1e-3)
