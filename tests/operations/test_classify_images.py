"""Images that are not items are classified as items would be, and nothing is stored."""

import io
import json
import shutil
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.cli import main
from embedstore.operations import encode
from tests.conftest import picture

COLORS = {"red": (230, 20, 20), "green": (20, 200, 30), "blue": (20, 40, 230)}


def photo(label, seed):
    """A picture whose pixels are near one color."""
    noise = np.random.default_rng(seed).integers(-20, 20, (40, 48, 3))
    return Image.fromarray((np.array(COLORS[label]) + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A store of pictures of three colors with heads, and a folder of new pictures."""
    folder = tmp_path_factory.mktemp("classify")
    for part, seeds in (("old", range(12)), ("new", range(100, 104))):
        for label in COLORS:
            (folder / part / label).mkdir(parents=True)
            for seed in seeds:
                photo(label, seed + len(label)).save(folder / part / label / f"{seed}.png")
    store = es.create(folder / "s", "tiny")
    store.embed(folder / "old")
    store.edit({"tone": "'tone of ' || label"}, "true", create_columns=True)
    store.probe("label", save_as="colors")
    store.probe("tone", head="ridge", save_as="tones")
    store.probe("label", abstain_precision=0.999, head="prototype", save_as="strict")
    store.probe("label", conformal_alpha=0.1, save_as="sets")
    return SimpleNamespace(folder=folder, store=store, new=folder / "new")


def files_of(folder):
    """Every file of a folder with its bytes."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and "towers" not in p.parts}


@pytest.mark.parametrize("head", ["colors", "tones", "strict", "sets"])
def test_an_image_is_classified_as_an_item_would_be(world, tmp_path, head):
    """Classes and scores are those of `embed` and `predict`, for every kind of head; the store is as before."""
    before = files_of(world.store.path)
    result = world.store.classify(world.new, head)
    assert files_of(world.store.path) == before
    copy = es.open(shutil.copytree(world.store.path, tmp_path / "copy"))
    copy.embed(world.new)
    copy.predict(head)
    query = "SELECT uri, p.label, p.score FROM predictions p JOIN items USING (item)"
    rows = copy.sql(f"{query} WHERE head = '{head}'").rows
    expected = {}
    for uri, label, score in rows:
        expected.setdefault(uri, []).append((label, score))
    assert len(result) == 12
    for image in result:
        labels = [label for label, _ in expected[image.image] if label not in (None, "none of these")]
        assert sorted(image.labels) == sorted(labels)
        assert image.score == pytest.approx(max(score for _, score in expected[image.image]), abs=1e-5)


def test_a_head_of_numbers_gives_numbers_with_intervals(world, tmp_path, capsys):
    """The number and its interval are those of the head on the stored vectors."""
    copy = es.open(shutil.copytree(world.store.path, tmp_path / "copy"))
    copy.edit({"warmth": "CASE label WHEN 'red' THEN 9.5 WHEN 'green' THEN 4.5 ELSE 0.5 END + item / 100.0"}, "true",
              create_columns=True)  # fmt: skip
    copy.probe("warmth", save_as="warmth")
    result = copy.classify(world.new, "warmth")
    head, vectors = copy.head("warmth"), copy.encode(images=world.new)
    low, high = head.predict_interval(vectors)
    for i, image in enumerate(result):
        assert image.number == pytest.approx(head.predict(vectors)[i], abs=1e-3)
        assert image.interval == pytest.approx((low[i], high[i]), abs=1e-3)
        assert image.interval[0] < image.number < image.interval[1]
    assert {e.label > 9 for i in result for e in i.evidence if "/red/" in i.image} == {True}
    with pytest.raises(SystemExit):
        main(["classify", str(copy.path), "warmth", str(world.new)])
    assert "low" in capsys.readouterr().out


def test_the_evidence_is_the_nearest_labeled_items(world):
    """The evidence is what a search with the image finds, with the column that the head predicts."""
    path = world.new / "red" / "100.png"
    [image] = world.store.classify(path, "tones", evidence=2)
    hits = world.store.search(image=path, k=2)
    assert [(e.item, round(e.score, 5)) for e in image.evidence] == [(h.item, round(h.score, 5)) for h in hits]
    assert {e.label for e in image.evidence} == {"tone of red"}
    assert world.store.classify(path, "tones", evidence=0)[0].evidence == ()


def test_images_come_in_every_form_and_in_order(world, tmp_path):
    """Paths, bytes, PIL images, arrays, archives and mixtures of them give the same predictions, in order."""
    paths = [world.new / label / "101.png" for label in COLORS]
    by_path = [i.probabilities for i in world.store.classify(paths, "colors")]
    opened = [Image.open(p) for p in paths]
    forms = {
        "bytes": [p.read_bytes() for p in paths],
        "PIL": opened,
        "arrays": [np.asarray(i) for i in opened],
        "mixed": [str(paths[0]), opened[1], paths[2].read_bytes()],
    }
    with tarfile.open(tmp_path / "new.tar", "w") as tar:
        for number, path in enumerate(paths):
            tar.add(path, f"{number}.png")
    forms["tar"] = tmp_path / "new.tar"
    for form, images in forms.items():
        result = world.store.classify(images, "colors")
        assert [i.labels for i in result] == [("red",), ("green",), ("blue",)], form
        for image, expected in zip(result, by_path, strict=True):
            assert dict(image.probabilities) == pytest.approx(dict(expected), abs=1e-5)


def test_one_image_needs_no_list(world):
    """A path, bytes, a PIL image, an array of pixels and an open file are one image each."""
    path = world.new / "red" / "101.png"
    [expected] = world.store.encode(images=path)
    pixels = np.asarray(Image.open(path))
    with path.open("rb") as file:
        forms = [path.read_bytes(), Image.open(path), pixels, file, io.BytesIO(path.read_bytes())]
        for form in forms:
            [vector] = world.store.encode(images=form)
            assert vector == pytest.approx(expected, abs=1e-5), type(form)
    [image] = world.store.classify([io.BytesIO(path.read_bytes())], "colors")
    assert image.labels == ("red",)
    for wrong, cure in [
        (pixels[:, :, 0], r"\(40, 48\); one of gray levels is x\[:, :, None\]"),
        (pixels / 255, r"float64 \(40, 48, 3\)"),
        (io.StringIO("red"), "mode 'rb'"),
    ]:
        with pytest.raises(es.QueryError, match=cure):
            world.store.encode(images=wrong)
    assert world.store.encode(images=pixels[:, :, :1]).shape == (1, expected.size)


def test_a_bad_file_and_a_copy_cost_nothing_else(world, tmp_path):
    """A text file, a missing one and an empty one have failures; copies have the same prediction."""
    good = (world.new / "blue" / "100.png").read_bytes()
    for name, data in {"a.png": good, "b.png": b"no image", "c.png": b"", "d.png": good}.items():
        (tmp_path / name).write_bytes(data)
    result = world.store.classify([tmp_path / f"{n}.png" for n in "abcd"], "colors")
    assert [i.label for i in result] == ["blue", None, None, "blue"]
    assert [bool(i.failure) for i in result] == [False, True, True, False]
    assert result[0].probabilities == result[3].probabilities
    assert result.failures[0].failure.startswith("not_an_image")


def test_many_images_go_as_an_embedding_run_does(world, monkeypatch):
    """Above the limit the run's encoder is used, with the same predictions."""
    few = world.store.classify(world.new, "colors")
    monkeypatch.setattr(encode, "FEW_IMAGES", 3)
    events = []
    many = world.store.classify(world.new, "colors", progress=events.append)
    for a, b in zip(few, many, strict=True):
        assert a.labels == b.labels
        assert dict(a.probabilities) == pytest.approx(dict(b.probabilities), abs=1e-3)
    assert (events[-1].done, events[-1].total) == (12, 12)


def test_vectors_of_images_and_texts(world):
    """`encode` gives the stored vectors of items, and those of texts have length 1."""
    store = world.store
    uris = [uri for (uri,) in store.sql("SELECT uri FROM items ORDER BY item").rows]
    vectors = store.encode(images=uris)
    stored = store.features("label").X
    assert (vectors.dtype, vectors.shape) == (np.float32, stored.shape)
    assert np.abs(vectors - stored).max() < 2e-3
    texts = store.encode(["a red square", "a blue square"])
    assert np.linalg.norm(texts, axis=1) == pytest.approx([1, 1], abs=1e-5)
    assert store.encode(texts="a red square")[0] == pytest.approx(texts[0], abs=1e-5)


def test_what_cannot_be_classified_is_one_error(world, tmp_path):
    """Each misuse has an error of ours that names the subject."""
    store = world.store
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    for call, error in [
        (lambda: store.classify(world.new, "colours"), es.UnknownHead),
        (lambda: store.classify([], "colors"), es.SourceNotFound),
        (lambda: store.classify(tmp_path / "missing", "colors"), es.SourceNotFound),
        (lambda: store.classify(tmp_path / "empty", "colors"), es.SourceNotFound),
        (lambda: store.classify([object()], "colors"), es.QueryError),
        (lambda: store.classify(np.zeros((4, 4, 3)), "colors"), es.QueryError),
        (lambda: store.classify(world.new, "colors", evidence=-1), es.BadOption),
        (store.encode, es.QueryError),
        (lambda: store.encode("a", images=world.new), es.QueryError),
        (lambda: store.encode(["a", 3]), es.QueryError),
        (lambda: store.encode(images=tmp_path / "text.png"), es.ImageError),
    ]:
        with pytest.raises(error) as e:
            call()
        assert "\n" not in str(e.value)
    numbers = es.create(tmp_path / "n", None)
    numbers.add_vectors(np.eye(4, dtype="f4"), {"uri": list("abcd"), "label": list("xyxy")}, space="numbers")
    numbers.save_head("h", numbers.probe("label", head="prototype"))
    with pytest.raises(es.BadBackbone, match="precomputed"):
        numbers.classify(world.new, "h")


def test_the_command_line(world, tmp_path, capsys, monkeypatch):
    """Text, JSON, a page, a table, standard input and --add."""
    page, table = tmp_path / "c.html", tmp_path / "c.csv"

    def run(*arguments):
        with pytest.raises(SystemExit) as e:
            main(["classify", *map(str, arguments)])
        return e.value.code

    assert run(world.store.path, "colors", world.new, "-o", page, "-o", table) == 0
    out = capsys.readouterr()
    assert "blue" in out.out
    assert "nothing was stored" in out.err
    assert page.read_text().count("<section>") == 12
    assert len(table.read_text().splitlines()) == 13
    data = (world.new / "green" / "100.png").read_bytes()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    assert run(world.store.path, "colors", "-", "--json") == 0
    [image] = json.loads(capsys.readouterr().out)["images"]
    assert (image["image"], image["labels"]) == ("image 1", ["green"])
    copy = shutil.copytree(world.store.path, tmp_path / "copy")
    assert run(copy, "colors", world.new, "--add") == 0
    assert es.open(copy).sql("SELECT count(*), count(label) FROM items").rows == ((48, 36),)
    (tmp_path / "bad.png").write_text("no image")
    assert run(copy, "colors", tmp_path / "bad.png") == 1
    assert run(copy, "colors", "-", world.new) == 2


def test_the_result_is_a_table(world):
    """Each image is one record, and the frame has the same columns."""
    result = world.store.classify([picture(3)], "colors")
    [record] = result.records()
    assert list(result.df().columns) == list(record)
    assert json.loads(json.dumps(result.to_json()))["images"][0]["image"] == "image 1"
    assert "<section>" in result._repr_html_()
