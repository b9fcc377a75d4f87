"""A report is one page that needs nothing else, and says what the evaluation says."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadBackbone
from embedstore.quickstart.folder_report import folder_report
from embedstore.reports import evaluation_page, svg
from tests.conftest import TINY, picture
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forty pictures of two classes that random features confuse."""
    folder = tmp_path_factory.mktemp("report")
    for n in range(40):
        path = folder / "photos" / ("val" if n % 2 else "train") / ("<cat>", "dog & co")[n // 2 % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    store = es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(folder / "photos")
    return store


def test_a_page_is_self_contained_and_well_formed(store):
    """No address, no script; names are escaped; every drawing parses; each figure of the report stands in it."""
    e = store.probe("label", folds=2)
    curve = store.learning_curve("label", head="prototype", labels_per_class=(1, 2), repeats=2)
    text = evaluation_page.evaluation_page(e, store.item_uris([m.item for m in e.mistakes]), curve=curve)
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert "<cat>" not in text
    assert "&lt;cat&gt;" in text
    for score in e.scores.values():
        assert f"{score.value:.4f}" in text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert text.count("data:image/jpeg;base64,") == len(e.mistakes) > 0


def test_the_most_confident_mistakes_come_first(store):
    """Their scores fall, each is wrong, and there are as many as the confusion matrix says."""
    e = store.probe("label", head="ridge")
    scores = [m.score for m in e.mistakes]
    assert scores == sorted(scores, reverse=True)
    assert all(m.true_label != m.predicted_label for m in e.mistakes)
    confusion = np.array(e.confusion)
    assert len(scores) == confusion.sum() - np.trace(confusion)


def test_pictures_are_written(store, tmp_path):
    """Confusion matrix and curve as PNG files that open."""
    pytest.importorskip("matplotlib")
    evaluation_page.evaluation_png(store.probe("label", head="ridge"), tmp_path / "c.png")
    evaluation_page.learning_curve_png(
        store.learning_curve("label", head="ridge", labels_per_class=(2,), repeats=2), tmp_path / "k.png"
    )
    for name in ("c.png", "k.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (960, 840)


def test_many_classes_show_the_most_confused(tmp_path):
    """Of 50 classes the matrix shows 40, in order, those with the most errors among them."""
    X, y = clusters(400, classes=50, noise=1.5)
    e = store_of(tmp_path / "s", X, label=y).probe("label", head="prototype")
    names, matrix = evaluation_page.confusion_table(e)
    assert len(names) == 40
    assert names == sorted(names)
    full = np.array(e.confusion)
    off = full - np.diag(np.diag(full))
    worst = e.report.classes[int((off.sum(0) + off.sum(1)).argmax())]
    assert worst in names
    assert matrix.shape == (40, 40)
    assert "10 others are not shown" in evaluation_page.evaluation_page(e, {})


def test_notes_say_what_was_left_out(tmp_path):
    """Missing labels, near-duplicates, calibration and abstaining, one sentence each."""
    X, y = clusters(120, noise=1.5)
    store = store_of(tmp_path / "s", np.vstack([X, X[:40] * 1.001]), label=[*y[:110], *[None] * 10, *y[:40]])
    e = store.probe(
        "label",
        head="ridge",
        near_duplicate_threshold=0.99,
        drop_near_duplicates=True,
        calibrate="temperature",
        abstain_precision=0.95,
    )
    said = "\n".join(evaluation_page.evaluation_notes(e))
    assert "10 items have no label" in said
    assert re.search(r"\d+ training items have a near-duplicate .*\(cosine >= 0.99\) and were left out", said)
    assert "expected calibration error" in said
    assert "chosen for precision 0.95" in said


def test_a_line_goes_through_its_points():
    """Two points at the edges of the drawing: the higher value is the higher place."""
    root = ElementTree.fromstring(svg.line_chart([(0, 1.0), (10, 2.0)], x_label="a < b", y_label="y"))
    space = {"s": "http://www.w3.org/2000/svg"}
    first, second = root.findall("s:circle", space)
    assert float(first.get("cx")) == svg._LEFT
    assert float(second.get("cx")) == svg.WIDTH - svg._RIGHT
    assert float(first.get("cy")) > float(second.get("cy"))
    assert any(t.text == "a < b" for t in root.iter("{http://www.w3.org/2000/svg}text"))
    ElementTree.fromstring(svg.line_chart([(3, 0.5)], x_label="x", y_label="y"))


def test_from_a_labelled_folder_to_a_report_in_one_call(photos, tmp_path):
    """The page, the store beside the photos, and on the second call nothing to embed and no backbone to name."""
    said = []
    options = {"random_init": True, "preprocess": {"size": 32, "resize": 32}}
    page = tmp_path / "out" / "report.html"
    store, e, curve = folder_report(photos, page, backbone=TINY, head="prototype", progress=said.append, **options)
    assert store.path == tmp_path / "photos.store"
    assert (e.split, e.n_held_out, curve.points[-1].n_train) == ("val", 4, 8)
    assert "prototype on label" in page.read_text()
    folder_report(photos, page, head="prototype", progress=said.append)
    assert "12" in said[0]
    assert store.info()["items"] == 12
    with pytest.raises(BadBackbone, match="--backbone"):
        folder_report(photos, page, store_path=tmp_path / "other.store")


def test_a_comparison_is_a_table_and_a_page(tmp_path):
    """The first row is the best, the others say how far behind they are; the page has the same cells."""
    X, y = clusters(200, noise=1.5)
    c = store_of(tmp_path / "s", X, label=y).compare_heads("label", heads=["ridge", "knn"])
    rows = evaluation_page.comparison_rows(c)
    assert len(rows[0]) == len(evaluation_page.COMPARISON_COLUMNS)
    assert rows[0][6] is None
    assert rows[1][6].startswith(f"{float(rows[0][2]) - float(rows[1][2]):.3f}"[:4])
    page = evaluation_page.comparison_page(c)
    assert all(str(row[3]) in page for row in rows)
    assert "a class" not in page, "no budgets, no curves"


def test_curves_of_a_comparison_are_a_second_table(tmp_path):
    """Mean and spread at each budget, and the accuracy with all labels, on the page as in the terminal."""
    X, y = clusters(120, noise=1.5)
    c = store_of(tmp_path / "s", X, label=y).compare_heads("label", heads=["ridge", "knn"], labels_per_class=(2,))
    names, rows = evaluation_page.learning_curve_table(c)
    assert names == ["space", "head", "2 a class", "all"]
    best = c.results[0]
    few = best.learning_curve.points[0]
    assert rows[0][2:] == [f"{few.mean:.3f} ± {few.std:.3f}", f"{best.evaluation.accuracy:.3f}"]
    page = evaluation_page.comparison_page(c)
    assert all(cell in page for row in rows for cell in row)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0.435, 0.996), ["0.5", "0.6", "0.7", "0.8", "0.9", "1"]), ((0.0325, 0.73), ["0", "0.1", "0.2", "0.3"])],
)
def test_lines_of_a_drawing_stand_at_round_values(values, words):
    """From .4 to 1 every tenth has its line and its number."""
    drawn = svg.line_chart([(float(n), v) for n, v in enumerate(values)], x_label="n", y_label="v")
    assert re.findall(r'text-anchor="end"[^>]*>([^<]+)<', drawn)[: len(words)] == words
