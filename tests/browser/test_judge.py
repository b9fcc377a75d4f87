"""Judge: a report with intervals, whose confusion cells open their pictures."""

import re

from playwright.sync_api import expect

from tests.browser.test_search import filter_by


def test_a_report_has_intervals_and_a_cell_opens_its_items(visits, reader):
    """The count of the cell is the count of the items that are shown."""
    page = visits.open(reader)
    page.locator("[role=option] img").first.wait_for()
    filter_by(page, "kind = 'scan'")
    page.get_by_role("navigation").get_by_role("button", name="Judge").click()
    page.get_by_label("Column to predict").select_option("label")
    page.get_by_label("Kind of classifier").select_option("knn")
    page.get_by_label("Kind of classifier").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("figures")).to_contain_text(re.compile(r"accuracy\s*\d\.\d+ to \d\.\d+"))
    expect(page.get_by_test_id("judge-mode").get_by_role("button", name="Judge", exact=True)).to_be_focused()
    page.get_by_test_id("report-notes").locator("summary").click()
    expect(page.get_by_test_id("report-notes").get_by_role("listitem").first).to_be_visible()
    cell = page.get_by_test_id("confusion").locator("td.right button").first
    count = cell.inner_text()
    cell.click()
    expect(page.get_by_test_id("count")).to_contain_text(f"{count} of ")
    page.get_by_label("Leave the selection").click()


def test_slices_and_steps_of_confidence_open_their_items(visits, reader):
    """The counts of a slice, of its mistakes and of a bin are the counts of the items that are shown."""
    page = visits.open(reader, "mode=judge&where=kind%20%3D%20'scan'")
    for part in ("slices", "bins"):
        page.get_by_label("Split the figures by").select_option("split")
        page.get_by_test_id("judge-mode").get_by_role("button", name="Judge", exact=True).click()
        for link in ("Show the .* items? of", "Show the .* mistakes? of"):
            button = page.get_by_test_id(part).get_by_role("button", name=re.compile(link)).first
            button.wait_for() if "items" in link else page.get_by_test_id(part).wait_for()
            if button.count() == 0:
                continue  # the classifier makes none
            count = button.inner_text()
            button.click()
            expect(page.get_by_test_id("count")).to_contain_text(f"{count} of ")
            page.get_by_label("Leave the selection").click()
            filter_by(page, "kind = 'scan'")
            page.get_by_role("navigation").get_by_role("button", name="Judge").click()
            page.get_by_label("Split the figures by").select_option("split")
            page.get_by_test_id("judge-mode").get_by_role("button", name="Judge", exact=True).click()


def test_classifiers_are_compared_on_the_same_items(visits, reader):
    """One row per classifier, one of which is the best."""
    page = visits.open(reader, "mode=judge&where=kind%20%3D%20'scan'")
    page.get_by_role("button", name="Compare classifiers").click()
    table = page.get_by_test_id("comparison")
    expect(table.locator("tbody tr")).to_have_count(3)
    expect(table.get_by_role("cell", name="the best")).to_have_count(1)


def test_a_column_that_cannot_be_predicted_is_one_sentence(visits, reader):
    """The error of the command line, and no half report."""
    page = visits.open(reader, "mode=judge&where=false")
    page.get_by_test_id("judge-mode").get_by_role("button", name="Judge", exact=True).click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.get_by_test_id("figures").count() == 0
