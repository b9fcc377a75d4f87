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
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("figures")).to_contain_text(re.compile(r"accuracy\s*\d\.\d+ to \d\.\d+"))
    cell = page.get_by_test_id("confusion").locator("td.right button").first
    count = cell.inner_text()
    cell.click()
    expect(page.get_by_test_id("count")).to_contain_text(f"{count} of ")
    page.get_by_label("Leave the selection").click()


def test_a_column_that_cannot_be_predicted_is_one_sentence(visits, reader):
    """The error of the command line, and no half report."""
    page = visits.open(reader, "mode=judge&where=false")
    page.get_by_test_id("judge-mode").get_by_role("button", name="Judge").click()
    expect(page.get_by_role("alert")).to_be_visible()
    assert page.get_by_test_id("figures").count() == 0
