"""Reports are self-contained pages, and their figures are those of the evaluation."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

import embedstore as es
from embedstore.errors import BadBackbone
from embedstore.quickstart.folder_report import folder_report
from embedstore.reports import comparison_text, evaluation_page, evaluation_png, evaluation_text, svg
from tests.conftest import TINY, picture
from tests.helpers.clusters import clusters, store_of


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Forty images of two classes that random features confuse."""
    folder = tmp_path_factory.mktemp("report")
    for n in range(40):
        path = folder / "photos" / ("val" if n % 2 else "train") / ("<cat>", "dog & co")[n // 2 % 2] / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n).save(path)
    store = es.create(folder / "s", TINY, random_init=True, preprocess={"size": 32, "resize": 32})
    store.embed(folder / "photos")
    return store


def test_an_evaluation_page_is_self_contained_and_well_formed(store):
    """It has no links and no script, names are escaped, every drawing parses, and it shows every metric."""
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
    assert len(drawings) == 3  # reliability, C, labels per class
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert text.count("data:image/jpeg;base64,") == len(e.mistakes) > 0


def test_the_most_confident_mistakes_come_first(store):
    """Scores descend, every mistake has two different labels, and the confusion matrix has the same number."""
    e = store.probe("label", head="ridge")
    scores = [m.score for m in e.mistakes]
    assert scores == sorted(scores, reverse=True)
    assert all(m.true_label != m.predicted_label for m in e.mistakes)
    confusion = np.array(e.confusion)
    assert len(scores) == confusion.sum() - np.trace(confusion)


def test_png_files_are_written(store, tmp_path):
    """Confusion matrix and learning curve are PNG files of the documented size."""
    pytest.importorskip("matplotlib")
    evaluation_png.evaluation_png(store.probe("label", head="ridge"), tmp_path / "c.png")
    evaluation_png.learning_curve_png(
        store.learning_curve("label", head="ridge", labels_per_class=(2,), repeats=2), tmp_path / "k.png"
    )
    for name in ("c.png", "k.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == (960, 840)


def test_a_large_confusion_matrix_shows_the_most_confused_classes(tmp_path):
    """Of 50 classes it shows 40, sorted, and the class with the most errors is among them."""
    X, y = clusters(400, classes=50, noise=1.5)
    e = store_of(tmp_path / "s", X, label=y).probe("label", head="prototype")
    names, matrix = evaluation_text.confusion_table(e)
    assert len(names) == 40
    assert names == sorted(names)
    full = np.array(e.confusion)
    off = full - np.diag(np.diag(full))
    worst = e.report.classes[int((off.sum(0) + off.sum(1)).argmax())]
    assert worst in names
    assert matrix.shape == (40, 40)
    assert "10 others are not shown" in evaluation_page.evaluation_page(e, {})


def test_notes_say_which_items_were_left_out(tmp_path):
    """Missing labels, near-duplicates, calibration and abstention have a sentence each."""
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
    text = "\n".join(evaluation_text.evaluation_notes(e))
    assert "10 items have no label" in text
    note = r"\d+ items are near-duplicates of another one \(cosine >= 0.99\d*\)"
    assert re.search(note, text)
    assert "Brier score" in text
    assert "precision of at least 0.95 on new items" in text


def test_a_line_chart_goes_through_its_points():
    """Two points are at the edges of the axes, and the larger value is higher up."""
    root = ElementTree.fromstring(svg.line_chart([(0, 1.0), (10, 2.0)], x_label="a < b", y_label="y"))
    space = {"s": "http://www.w3.org/2000/svg"}
    first, second = root.findall("s:circle", space)
    assert float(first.get("cx")) == svg.LEFT
    assert float(second.get("cx")) == svg.WIDTH - svg.RIGHT
    assert float(first.get("cy")) > float(second.get("cy"))
    assert any(t.text == "a < b" for t in root.iter("{http://www.w3.org/2000/svg}text"))
    ElementTree.fromstring(svg.line_chart([(3, 0.5)], x_label="x", y_label="y"))


def test_a_labeled_folder_becomes_a_report_in_one_call(photos, tmp_path):
    """It writes the page and the store next to the photos; a second call needs no backbone and embeds nothing."""
    messages = []
    options = {"random_init": True, "preprocess": {"size": 32, "resize": 32}}
    page = tmp_path / "out" / "report.html"
    report = folder_report(photos, page, backbone=TINY, head="prototype", progress=messages.append, **options)
    store, e, curve = report.store, report.evaluation, report.curve
    assert store.path == tmp_path / "photos.store"
    assert (e.split, e.n_held_out, curve.points[-1].n_train) == ("val", 4, 8)
    assert "prototype on label" in page.read_text()
    folder_report(photos, page, head="prototype", progress=messages.append)
    assert "12" in messages[0]
    assert store.info().items == 12
    with pytest.raises(BadBackbone, match="--backbone"):
        folder_report(photos, page, store_path=tmp_path / "other.store")


def test_a_comparison_is_a_table_and_a_page(tmp_path):
    """The first row is the best, the others have their gap to it, and the page has the same cells."""
    X, y = clusters(200, noise=1.5)
    c = store_of(tmp_path / "s", X, label=y).compare_heads("label", heads=["ridge", "knn"])
    columns, rows = comparison_text.comparison_table(c)
    assert len(rows[0]) == len(columns)
    assert rows[0][6] is None
    assert rows[1][6].startswith(f"{float(rows[0][2]) - float(rows[1][2]):.3f}"[:4])
    page = evaluation_page.comparison_page(c)
    assert all(str(row[3]) in page for row in rows)
    assert "per class" not in page, "without label budgets there are no learning curves"


def test_learning_curves_of_a_comparison_are_a_second_table(tmp_path):
    """It has the mean and its interval at each budget and the accuracy with all labels."""
    X, y = clusters(120, noise=1.5)
    c = store_of(tmp_path / "s", X, label=y).compare_heads("label", heads=["ridge", "knn"], labels_per_class=(2,))
    names, rows = comparison_text.comparison_curve_table(c)
    assert names == ["space", "head", "2 per class", "all"]
    best = c.results[0]
    few = best.learning_curve.points[0]
    every = best.learning_curve.points[1]
    assert every.mean == best.evaluation.accuracy
    assert rows[0][2:] == [f"{p.mean:.3f} [{p.low:.3f}, {p.high:.3f}]" for p in (few, every)]
    page = evaluation_page.comparison_page(c)
    assert all(cell in page for row in rows for cell in row)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0.435, 0.996), ["0.5", "0.6", "0.7", "0.8", "0.9", "1"]), ((0.0325, 0.73), ["0", "0.1", "0.2", "0.3"])],
)
def test_grid_lines_are_at_round_values(values, words):
    """Lines are at multiples of a tenth, and each has its number."""
    drawn = svg.line_chart([(float(n), v) for n, v in enumerate(values)], x_label="n", y_label="v")
    assert re.findall(r'text-anchor="end"[^>]*>([^<]+)<', drawn)[: len(words)] == words
