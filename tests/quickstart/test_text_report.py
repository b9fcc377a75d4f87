"""From a table of texts to a report in one command, and the figures of real texts."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import embedstore as es
from embedstore.errors import UnknownColumn, UnknownHead
from embedstore.quickstart.folder_report import folder_report
from tests.helpers.labelled_sets import NOUNS, write_glosses
from tests.helpers.text_models import WORDS, save_model

pytest.importorskip("transformers", reason="transformers is not installed (extra [text])")


@pytest.fixture(scope="module")
def glosses(tmp_path_factory):
    """A table of the glosses of ten topics, 60 each, spread over the file."""
    if not NOUNS.is_file():
        pytest.skip("WordNet is not installed (Debian package wordnet-base)")
    return write_glosses(tmp_path_factory.mktemp("wordnet") / "glosses.csv")


def test_a_table_of_texts_becomes_a_report_in_one_command(tmp_path):
    """`report TABLE --text-column --label` makes the store, the figures and a page that shows texts."""
    model = save_model(tmp_path / "bert", "bert")
    rng = np.random.default_rng(1)
    with (tmp_path / "reviews.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "sentiment"])
        for n in range(60):
            kind = ("good", "bad")[n % 2]
            rows.writerow([" ".join([("red", "blue")[n % 2], *rng.choice(WORDS, 6)]), kind])
    options = ["--text-column", "text", "--label", "sentiment", "--backbone", f"hf/{model}"]
    command = [sys.executable, "-m", "embedstore", "report", "reviews.csv", *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("60 rows: ")
    assert "texts/s" in done.stderr
    page = (tmp_path / "report.html").read_text()
    assert "sentiment" in page
    assert len(es.open(tmp_path / "reviews.store").search("red", k=5).hits) == 5


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": "sentimnt"}, UnknownColumn, "no column 'sentimnt' .*; did you mean sentiment.*text, sentiment"),
        ({}, UnknownColumn, "no column 'label' to predict"),
        ({"label": "sentiment", "head": "logstic"}, UnknownHead, "logistic"),
    ],
)
def test_a_report_that_cannot_be_made_is_refused_before_it_embeds(options, error, message, tmp_path):
    """A column or head that does not exist: no store is made, and the backbone is not looked for."""
    (tmp_path / "reviews.csv").write_text("text,sentiment\nred,good\nblue,bad\n")
    with pytest.raises(error, match=message):
        folder_report(
            tmp_path / "reviews.csv",
            tmp_path / "r.html",
            backbone="hf//nowhere",
            table={"text_column": "text"},
            **options,
        )
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.csv"]


@pytest.mark.parametrize(("pool", "low", "high"), [("mean", 0.84, 0.90), ("cls", 0.70, 0.80)])
def test_the_mean_of_minilm_is_right_on_ten_topics_of_wordnet(pool, low, high, shared_data, glosses, tmp_path):
    """Five folds over 600 real glosses: about 0.85 by the mean over the mask, about 0.73 by CLS."""
    store = es.create(
        tmp_path / "w.store", f"hf/{shared_data / 'models' / 'all-MiniLM-L6-v2'}", pool=pool, device="cpu"
    )
    report = store.embed(glosses, text_column="gloss")
    assert (report.embedded + report.reused, report.failures) == (600, 0)
    evaluation = store.probe("topic", folds=5)
    assert low <= evaluation.report.scores["accuracy"].value <= high
    assert store.probe("topic", head="knn", folds=5).report.scores["accuracy"].value > 0.55
    hit = next(iter(store.search("a large wild cat", k=1)))
    assert re.search("cat|feline|tiger|lion|leopard", hit.columns["gloss"])


FORTUNES = Path("/usr/share/games/fortunes")


def test_fortunes_are_told_by_their_topic(shared_data, tmp_path):
    """Four topics of the Debian package fortunes, 25 texts each: MiniLM's vectors are far better than chance (0.25)."""
    if not (FORTUNES / "food").is_file():
        pytest.skip("fortunes are not installed (Debian package fortunes)")
    with (tmp_path / "fortunes.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "topic"])
        for topic in ("food", "law", "love", "sports"):
            texts = (FORTUNES / topic).read_text(encoding="utf-8", errors="replace").split("\n%\n")
            rows.writerows([text.strip(), topic] for text in texts[:25])
    store = es.create(tmp_path / "f.store", f"hf/{shared_data / 'models/all-MiniLM-L6-v2'}", device="cpu")
    report = store.embed(tmp_path / "fortunes.csv", text_column="text")
    assert report.embedded + report.failures + report.reused >= 95
    assert store.knn("topic", k=5, folds=5).accuracy >= 0.5
