"""Ranges of a large collection, most of which the page has not read."""

import numpy as np
import pytest
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import expect_rows, serving
from tests.browser.test_labels import label_selection

ITEMS = 1000  # nine pages of the list


@pytest.fixture
def page(tmp_path, browser, visits):
    """The page of a store of items without pictures, with its server."""
    with es.create(tmp_path / "s") as store:
        vectors = np.random.default_rng(0).normal(size=(ITEMS, 4)).astype(np.float32)
        store.add_vectors(vectors, {"uri": [f"/{n:04d}" for n in range(ITEMS)]})
    with serving(tmp_path / "s") as server:
        page = visits.open(server)
        page.locator("#cell-1").wait_for()
        page.get_by_test_id("grid").focus()
        page.keyboard.press("Home")
        yield page


def test_a_range_by_key_has_all_items_between_its_ends(page, tmp_path):
    """Shift+End selects what was never on the screen, too, and a label reaches it."""
    page.keyboard.press("Shift+End")
    expect(page.get_by_test_id("selection")).to_contain_text("1,000 selected")
    label_selection(page, "far")
    expect_rows(tmp_path / "s", "SELECT count(*) FROM items WHERE label = 'far'", [(ITEMS,)])


def test_a_range_by_mouse_begins_where_nothing_is_loaded_any_more(page):
    """A tick, the other end of the collection, and a tick with Shift."""
    page.locator("#cell-1 .tick").click()
    page.get_by_test_id("grid").focus()
    page.keyboard.press("End")
    page.locator(f"#cell-{ITEMS - 1} .tick").click(modifiers=["Shift"])
    expect(page.get_by_test_id("selection")).to_contain_text("999 selected")
