"""Label mode: one key per decision, type-ahead, undo, and the accuracy with its interval after a batch."""

import re

import pytest
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import expect_rows, serving, store_rows

GIVEN = "SELECT count(*) FROM items WHERE label IS NOT NULL"


@pytest.fixture
def session(own_store, visits, browser):
    """Label mode on a store of which 60 scans have labels of two kinds, and the others none."""
    with es.open(own_store) as store:
        store.edit({"label": "NULL"}, where="kind <> 'scan' OR label NOT IN ('digit 0', 'digit 1')")
    with serving(own_store) as server:
        page = visits.open(server, "mode=label")
        page.get_by_test_id("label-mode").locator(".strip img").first.wait_for()
        yield page, own_store


def test_digits_and_letters_give_labels_and_the_batch_is_judged(session):
    """1 and 2 give the first two classes, letters find a class or make one; after twenty the next batch is there."""
    page, path = session
    strip = page.locator(".strip button")
    expect(strip).to_have_count(20)
    before = store_rows(path, GIVEN)[0][0]
    first_batch = [button.get_attribute("aria-label") for button in strip.all()]
    page.keyboard.press("1")
    expect(strip.nth(0)).to_contain_text("digit 0")
    expect(strip.nth(1)).to_have_attribute("aria-current", "true")
    page.keyboard.type("shape")
    page.keyboard.press("Enter")
    expect(strip.nth(1)).to_contain_text("shape")
    for place in range(2, 20):
        page.keyboard.press("3")
        if place < 19:
            expect(strip.nth(place)).to_contain_text("shape")
    expect(page.get_by_test_id("accuracy").locator(".figure")).to_have_text(re.compile(r"\d+\.\d%"))
    expect(page.get_by_test_id("accuracy")).to_contain_text("95% interval")
    expect(page.get_by_test_id("forecast")).to_contain_text(re.compile(r"More labels are (not )?expected to pay\."))
    expect(page.get_by_test_id("forecast")).to_contain_text(
        re.compile(r"points \(95% interval -?\d+\.\d to -?\d+\.\d\)")
    )
    expect(page.get_by_test_id("course").locator("circle.expected")).to_have_count(1)
    expect(strip.first).not_to_have_attribute("aria-label", first_batch[0] + ", digit 0")
    expect_rows(path, GIVEN, [(before + 20,)])


def test_undo_takes_back_the_last_label_and_returns_to_its_item(session):
    """Ctrl+Z in the middle of a batch."""
    page, path = session
    strip = page.locator(".strip button")
    before = store_rows(path, GIVEN)
    page.keyboard.press("2")
    expect(strip.nth(0)).to_contain_text("digit 1")
    expect(strip.nth(1)).to_have_attribute("aria-current", "true")
    expect(page.get_by_test_id("message")).to_contain_text("label = digit 1")
    page.keyboard.press("Control+z")
    expect(strip.nth(0)).to_have_attribute("aria-current", "true")
    expect(strip.nth(0)).not_to_contain_text("digit 1")
    expect(page.get_by_test_id("message")).to_contain_text("Undone")
    expect_rows(path, GIVEN, before)


def test_a_new_column_is_labelled_by_mouse_from_zero(session):
    """The first batch needs no label; the class is typed once and is a button then."""
    page, path = session
    page.get_by_label("New column to label").fill("mood")
    page.keyboard.press("Enter")
    strip = page.locator(".strip button")
    expect(page.get_by_label("Column to label", exact=True)).to_have_value("mood")
    expect(strip).to_have_count(20)
    page.get_by_label("Label", exact=True).fill("calm")
    page.keyboard.press("Enter")
    expect(strip.nth(0)).to_contain_text("calm")
    page.get_by_label("Classes").get_by_role("button", name="calm").click()
    expect(strip.nth(1)).to_contain_text("calm")
    expect(page.get_by_test_id("accuracy")).to_contain_text("2 labels given here")
    expect_rows(path, "SELECT count(*) FROM items WHERE mood = 'calm'", [(2,)])


def test_a_class_that_is_a_part_of_another_and_an_item_at_the_end_of_the_strip(session):
    """Enter takes the class that begins so, Shift+Enter the very word; the item that is shown is seen in the strip."""
    page, path = session
    page.keyboard.type("digit")
    page.keyboard.press("Shift+Enter")
    strip = page.locator(".strip button")
    expect(strip.nth(0)).to_contain_text("digit")
    expect_rows(path, "SELECT count(*) FROM items WHERE label = 'digit'", [(1,)])
    page.keyboard.type("digit 1")
    page.keyboard.press("Enter")
    expect_rows(path, "SELECT label FROM items WHERE label = 'digit'", [("digit",)])
    for _ in range(17):
        page.keyboard.press("ArrowRight")
    expect(strip.nth(19)).to_have_attribute("aria-current", "true")
    expect(strip.nth(19)).to_be_in_viewport(ratio=0.9)
