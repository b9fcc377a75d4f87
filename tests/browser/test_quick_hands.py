"""Keys that do not wait for the server, and answers that arrive late or in another order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import SCENES, expect_rows, serving, store_rows
from tests.browser.test_look import ITEMS
from tests.browser.test_search import filter_by

BATCH = 20
CHANGES = "SELECT verb FROM runs WHERE verb IN ('label', 'decide', 'undo', 'redo') ORDER BY run"


class Slow:
    """A server that does not answer some requests until it may.

    Args:
        page: the page whose requests wait.
        pattern: which of them.
        methods: with which methods.
    """

    def __init__(self, page, pattern: str, methods: str) -> None:
        self._page = page
        self._pattern = re.compile(pattern)
        self._methods = methods.split()
        self._waiting = []
        self._holds = True

    def wait_for(self, count: int) -> None:
        """Wait until so many requests wait."""
        for _ in range(600):
            if len(self._waiting) >= count:
                return
            self._page.wait_for_timeout(50)
        raise AssertionError(f"{len(self._waiting)} requests wait, not {count}")

    def begin(self) -> None:
        """Hold requests from now on."""
        self._page.route(self._pattern, self._hold)

    def answer(self, *, last_first: bool = False) -> None:
        """Let those that wait through, and every later one at once."""
        self._holds = False
        for route in reversed(self._waiting) if last_first else self._waiting:
            route.continue_()
            if last_first:
                self._page.wait_for_timeout(300)  # it is answered before the next one
        self._waiting = []
        self._page.unroute(self._pattern)

    def _hold(self, route) -> None:
        if self._holds and route.request.method in self._methods:
            self._waiting.append(route)
        else:
            route.continue_()


@contextmanager
def slow(page, pattern: str, methods: str = "POST", *, last_first: bool = False) -> Iterator[Slow]:
    """Hold requests during the block, and let them through at its end."""
    held = Slow(page, pattern, methods)
    held.begin()
    yield held
    held.answer(last_first=last_first)


def opened(visits, server, fragment=""):
    """Open the page and wait for its items."""
    page = visits.open(server, fragment)
    page.locator("[role=option] img").first.wait_for()
    return page


@pytest.fixture
def labelling(own_store, visits, browser):
    """Label mode on a store of which 24 scans have labels of two kinds, and the others none."""
    with es.open(own_store) as store:
        store.edit({"label": "NULL"}, where="kind <> 'scan' OR label NOT IN ('digit 0', 'digit 1')")
    with serving(own_store) as server:
        page = visits.open(server, "mode=label")
        page.get_by_test_id("label-mode").locator(".strip img").first.wait_for()
        yield page, own_store


def test_a_label_that_is_taken_back_and_given_again_before_the_first_answer(labelling):
    """1, Ctrl+Z, 2 without waiting: the store has the second class, on the first item alone."""
    page, path = labelling
    strip = page.locator(".strip button")
    before = dict(store_rows(path, "SELECT label, count(*) FROM items WHERE label IS NOT NULL GROUP BY 1"))
    with slow(page, "/labels$|/undo$"):
        for key in ("1", "Control+z", "2"):
            page.keyboard.press(key)
        expect(strip.nth(0)).to_contain_text("digit 1")
        expect(strip.nth(1)).to_have_attribute("aria-current", "true")
    expect_rows(path, CHANGES, [("label",), ("undo",), ("label",)])
    rows = store_rows(path, "SELECT label, count(*) FROM items WHERE label IS NOT NULL GROUP BY 1")
    assert dict(rows) == before | {"digit 1": before["digit 1"] + 1}
    expect(page.get_by_test_id("accuracy")).to_contain_text("1 label given here")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    expect(strip.nth(0)).to_contain_text("digit 1")
    expect_rows(path, CHANGES, [("label",), ("undo",), ("label",), ("undo",), ("redo",)])


def test_keys_after_the_last_item_of_a_batch_change_nothing(labelling):
    """Twenty labels and three keys too many: the last item keeps the label that it was given."""
    page, path = labelling
    count = "SELECT count(*) FROM items WHERE label = 'digit {}'"
    zeros, ones = (store_rows(path, count.format(digit))[0][0] for digit in "01")
    with slow(page, "/labels$"):
        for _ in range(BATCH):
            page.keyboard.press("1")
        for _ in range(3):
            page.keyboard.press("2")
        expect(page.get_by_test_id("label-mode")).to_contain_text("Choosing the items whose labels help most")
    expect_rows(path, count.format(0), [(zeros + BATCH,)])
    expect_rows(path, count.format(1), [(ones,)])


def test_labels_on_their_way_belong_to_the_column_they_were_given_in(labelling):
    """A label, then another column before the answer: the label is not in the other column."""
    page, path = labelling
    before = store_rows(path, "SELECT count(*) FROM items WHERE label = 'digit 0'")[0][0]
    with slow(page, "/labels$") as held:
        page.keyboard.press("1")
        held.wait_for(1)
        page.get_by_label("New column to label").fill("mood")
        page.keyboard.press("Enter")
    expect(page.get_by_label("Column to label", exact=True)).to_have_value("mood")
    page.get_by_test_id("label-mode").locator(".strip img").first.wait_for()
    expect(page.get_by_label("Classes").get_by_role("button")).to_have_count(0)
    expect_rows(path, "SELECT count(*) FROM items WHERE label = 'digit 0'", [(before + 1,)])
    assert store_rows(path, "SELECT count(*) FROM items WHERE mood IS NOT NULL") == [(0,)]


def test_the_button_undo_returns_to_the_item_as_the_key_does(labelling):
    """The batch shows what the store has, whichever way a label is taken back."""
    page, _ = labelling
    strip = page.locator(".strip button")
    page.keyboard.press("2")
    expect(strip.nth(0)).to_contain_text("digit 1")
    page.get_by_role("button", name="Undo", exact=True).first.click()
    expect(strip.nth(0)).not_to_contain_text("digit 1")
    expect(strip.nth(0)).to_have_attribute("aria-current", "true")


def test_two_people_label_the_same_batch(labelling, visits):
    """What another page labels is shown in the batch of this one, and is not asked for again."""
    page, path = labelling
    name = page.locator(".strip button").first.get_attribute("aria-label")
    with es.open(path) as store:
        store.edit({"label": "'digit 1'"}, where=f"uri LIKE '%{name}'")
    expect(page.locator(".strip button").first).to_contain_text("digit 1")


def test_undo_takes_back_what_was_overwritten(labelling):
    """Somebody else was quicker, Overwrite, Ctrl+Z: the item has their label again, and the label before stays."""
    page, path = labelling
    strip = page.locator(".strip button")
    page.keyboard.press("1")
    expect(strip.nth(1)).to_have_attribute("aria-current", "true")
    first, second = (strip.nth(place).get_attribute("id").removeprefix("batch-") for place in (0, 1))
    label = "SELECT label FROM items WHERE item = {}"
    with slow(page, "/labels$") as held:
        page.keyboard.press("1")
        held.wait_for(1)
        with es.open(path) as store:
            store.edit({"label": "'digit 1'"}, where=f"item = {second}")
    page.get_by_role("button", name="Overwrite").click()
    expect_rows(path, label.format(second), [("digit 0",)])
    page.keyboard.press("Control+z")
    expect_rows(path, label.format(second), [("digit 1",)])
    expect(strip.nth(1)).to_contain_text("digit 1")
    expect(strip.nth(1)).to_have_attribute("aria-current", "true")
    assert store_rows(path, label.format(first)) == [("digit 0",)]


def test_everything_is_labelled_without_waiting(visits, writer):
    """Ctrl+A, L, a value and Enter before the server has the selection: all items of the filter, and no others."""
    page = opened(visits, writer)
    page.locator("#cell-0 .tick").click()  # a selection of before, which must not be what is labelled
    filter_by(page, "kind = 'scan'")
    expect(page.get_by_test_id("count")).to_have_text(f"{ITEMS - SCENES} of {ITEMS} items")
    page.get_by_test_id("grid").focus()
    with slow(page, "/selections$") as held:
        page.keyboard.press("Control+a")
        page.keyboard.press("l")
        page.keyboard.type("quick")
        page.keyboard.press("Enter")
        held.wait_for(1)
    rows = "SELECT count(*), count(*) FILTER (kind = 'scan') FROM items WHERE label = 'quick'"
    expect_rows(writer.store, rows, [(ITEMS - SCENES, ITEMS - SCENES)])


def test_enter_in_the_dialog_waits_for_what_the_selection_has(visits, writer):
    """The value is set when the answer is here; afterwards the grid has the focus, at the same item."""
    page = opened(visits, writer)
    page.get_by_test_id("grid").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    with slow(page, "/selections/.*/values", "GET"):
        page.keyboard.press("l")
        page.keyboard.type("typed")
        page.keyboard.press("Enter")
    expect_rows(writer.store, "SELECT count(*) FROM items WHERE label = 'typed'", [(1,)])
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_test_id("grid")).to_have_attribute("aria-activedescendant", "cell-2")


def test_undo_of_a_label_that_is_on_its_way(visits, writer):
    """Ctrl+Z before the answer takes back that label, and not the change before it."""
    page = opened(visits, writer)
    for cell, value in ((0, "first"), (1, "second")):
        page.locator(f"#cell-{cell} .tick").click()
        with slow(page, "/labels$|/undo$") as held:
            page.get_by_test_id("grid").focus()
            page.keyboard.press("l")
            page.keyboard.type(value)
            page.keyboard.press("Enter")
            held.wait_for(1)
            if value == "second":
                page.evaluate("dispatchEvent(new KeyboardEvent('keydown', { key: 'z', ctrlKey: true }))")
                page.locator("dialog").evaluate("dialog => dialog.close()")
                page.keyboard.press("Control+z")
        expect(page.get_by_role("dialog")).to_be_hidden()
    expect_rows(writer.store, CHANGES, [("label",), ("label",), ("undo",)])
    assert store_rows(writer.store, "SELECT label FROM items WHERE label IN ('first', 'second')") == [("first",)]


def test_a_selection_of_everything_is_not_that_of_another_filter(page):
    """Ctrl+A, then another filter: what it shows is not marked as selected."""
    filter_by(page, "kind = 'scan'")
    expect(page.get_by_test_id("count")).to_have_text(f"{ITEMS - SCENES} of {ITEMS} items")
    page.get_by_test_id("grid").focus()
    page.keyboard.press("Control+a")
    expect(page.locator("#cell-0")).to_have_attribute("aria-selected", "true")
    filter_by(page, "kind <> 'scan'")
    expect(page.get_by_test_id("count")).to_have_text(f"{SCENES} of {ITEMS} items")
    expect(page.locator("#cell-0")).to_have_attribute("aria-selected", "false")


def test_filters_whose_answers_arrive_in_another_order(page):
    """The last filter is what is shown, whichever answer comes last."""
    with slow(page, r"/items\?", "GET", last_first=True) as held:
        filter_by(page, "kind = 'scan'")
        held.wait_for(1)
        filter_by(page, "kind <> 'scan'")
        held.wait_for(2)
    expect(page.get_by_test_id("count")).to_have_text(f"{SCENES} of {ITEMS} items")


def test_an_item_whose_facts_are_on_their_way_has_none_of_the_one_before(page):
    """The name, the neighbours and the example of a search are never those of the item before."""
    page.locator("#cell-0").click()
    page.get_by_test_id("neighbours").wait_for()
    heading = page.get_by_test_id("item-panel").locator("h2").first
    with slow(page, r"/items/\d+$", "GET"):
        page.locator("#cell-5").click()
        expect(heading).to_have_text("…")
        expect(page.get_by_test_id("neighbours")).to_be_hidden()
        expect(page.get_by_role("button", name="More like this")).to_be_disabled()
    expect(heading).not_to_have_text("…")


def test_a_closed_item_gives_the_focus_back(page):
    """Enter opens an item, Escape closes it, and the arrows move in the grid again."""
    page.get_by_test_id("grid").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("item-panel").locator("h2").first).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_test_id("item-panel")).to_be_hidden()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_test_id("grid")).to_have_attribute("aria-activedescendant", "cell-1")


def test_decisions_do_not_wait_for_each_other(own_store, visits, browser):
    """K, K, K, U without waiting: two rows are decided, and the third is shown."""
    with es.open(own_store) as store:
        store.edit({"label": "'digit 1'"}, where="label = 'digit 0' AND uri LIKE '%/000%'")
        store.edit({"label": "'digit 7'"}, where="label = 'digit 4' AND uri LIKE '%/00%'")
    with serving(own_store) as server:
        page = visits.open(server, "mode=clean&where=kind%20%3D%20'scan'")
        page.get_by_role("button", name="Label errors").click()
        place = page.get_by_role("region", name="Decision").get_by_role("status")
        expect(place).to_have_text(re.compile(r"1 of ([4-9]|\d\d)"))
        with slow(page, "/decisions$|/undo$"):
            for key in "kkku":
                page.keyboard.press(key)
            expect(place).to_have_text(re.compile("3 of "))
        expect_rows(own_store, CHANGES, [("decide",), ("decide",), ("decide",), ("undo",)])
        expect(page.get_by_role("button", name="Label errors")).to_contain_text("2 decided")
        expect(place).to_have_text(re.compile("3 of "))


def test_a_report_stays_while_its_pictures_are_looked_at(visits, reader):
    """Its title is of the column that it was split by, whatever is chosen since; it is there after a look at a cell."""
    page = visits.open(reader, "mode=judge&where=kind%20%3D%20'scan'")
    page.get_by_label("Kind of classifier").select_option("knn")
    page.get_by_label("Split the figures by").select_option("split")
    with slow(page, "/reports/knn", "GET"):
        page.get_by_test_id("judge-mode").get_by_role("button", name="Judge", exact=True).click()
        page.get_by_label("Split the figures by").select_option("number")
    expect(page.get_by_role("heading", name="By split")).to_be_visible()
    page.get_by_test_id("confusion").locator("td.right button").first.click()
    expect(page.get_by_test_id("grid")).to_be_visible()
    page.get_by_role("navigation").get_by_role("button", name="Judge").click()
    expect(page.get_by_role("heading", name="By split")).to_be_visible()


def test_a_tab_over_a_restart_says_what_is_wrong_and_goes_on(own_store, visits, browser):
    """Another token: the page says so; the new address in the same tab, or in another one, lets it go on."""
    with serving(own_store) as first:
        page = opened(visits, first)
        beside = page.context.new_page()
        beside.goto(page.url)
        beside.locator("[role=option] img").first.wait_for()
        port = re.search(r":(\d+)/", first.address)[1]
    status = page.locator("p.status")
    expect(status).to_contain_text("the server does not answer")
    with serving(own_store, "--port", port) as second:
        expect(status).to_contain_text("the token is missing or wrong")
        page.evaluate("address => { location.href = address }", second.address)
        for tab in (page, beside):
            expect(tab.locator("p.status")).to_be_hidden()
            filter_by(tab, "kind = 'scan'")
            expect(tab.get_by_test_id("count")).to_have_text(f"{ITEMS - SCENES} of {ITEMS} items")
