"""Doubtful labels are reviewed on a page, and what is ticked there is what `edit` changes."""

from __future__ import annotations

import html
import re

import pytest

import embedstore as es
from embedstore.classify.evaluation.label_errors import LabelIssue
from embedstore.cli import main
from embedstore.reports.review_sheet import review_sheet_html
from tests.conftest import picture
from tests.helpers.clusters import clusters, store_of


def saved(page, *items):
    """The table that the page saves when these items are ticked as wrong: the header and the lines of their boxes."""
    header = html.unescape(re.search(r'data-header="([^"]*)"', page)[1])
    rows = [html.unescape(row) for row in re.findall(r'class="wrong" data-row="([^"]*)"', page)]
    return header + "".join(row for row in rows if int(row.split(",")[0]) in items)


def test_what_is_ticked_is_changed_by_edit(tmp_path, capsys):
    """Two wrong labels are ticked, saved and edited; the words name the folders; the right one is confirmed."""
    for n in range(24):
        label = ("tulips", "roses")[n % 2]
        path = tmp_path / "photos" / label / f"{n}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(n % 2, (40 + n, 40)).save(path)
    for n in range(2):
        picture(1, (30 + n, 30)).save(tmp_path / "photos" / "tulips" / f"wrong{n}.png")
    store = es.create(tmp_path / "s", "tiny")
    store.embed(tmp_path / "photos")
    page = tmp_path / "review.html"
    with pytest.raises(SystemExit, match="0"):
        main(["label-errors", str(store.path), "--near-duplicates", "ignore", "--all", "--limit", "5", "-o", str(page),
              "-o", str(tmp_path / "list.csv")])  # fmt: skip
    text = page.read_text()
    assert "labeled tulips, looks like roses" in text
    wrong = [i for i, uri in store.item_uris(list(range(1, 27))).items() if "wrong" in uri]
    (tmp_path / "label-review.csv").write_text(saved(text, *wrong), newline="")
    capsys.readouterr()
    with pytest.raises(SystemExit, match="0"):
        main(["edit", str(store.path), str(tmp_path / "label-review.csv")])
    labels = store.sql("SELECT label, count(*) FROM items GROUP BY 1 ORDER BY 1").rows
    assert [tuple(row) for row in labels] == [("roses", 14), ("tulips", 12)]
    assert len((tmp_path / "list.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize("name", ['"; drop, "x"', "=1+1", "a\nb", "</script><b>", "'=x", "ü,ß"])
def test_strange_labels_arrive_as_they_are(tmp_path, name):
    """Quotes, commas, line breaks, formulas and tags are text on the page and the same label afterwards."""
    X, y = clusters(12)
    store = store_of(tmp_path / "s", X, label=y)
    issue = LabelIssue(3, "c0", name, 0.5, 0.1, True)
    page = review_sheet_html([issue], "label", store.item_uris([3]), lambda items: [None] * len(items))
    assert "<b>" not in page.split("<main>")[1].split("looks like")[0].replace("<b>1</b>", "")
    assert "</script><b>" not in page
    table = tmp_path / "t.csv"
    table.write_text(saved(page, 3), newline="", encoding="utf-8")
    assert store.edit_from_table(table).items == 1
    stored = store.sql("SELECT label FROM items WHERE item = 3").rows[0][0]
    assert stored == " ".join(name.split()) or stored == name


def test_several_labels_have_no_boxes():
    """One answer does not tell an item's new list of labels."""
    issues = [LabelIssue(1, "red", None, 0.5, 0.1, True), LabelIssue(2, None, "blue", 0.5, 0.1, True)]
    page = review_sheet_html(issues, "tags", {}, lambda items: [None] * len(items))
    assert "labeled red, does not look like it" in page
    assert "not labeled blue, looks like it" in page
    assert "checkbox" not in page.split("<script>")[0]


def test_the_page_loads_nothing(tmp_path):
    """No address but those of data within the page."""
    page = review_sheet_html([LabelIssue(1, "a", "b", 0.5, 0.1, True)], "l", {}, lambda items: [None] * len(items))
    assert "http" not in page
