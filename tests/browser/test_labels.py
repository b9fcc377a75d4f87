"""Select and label: whole selections, undo, redo, history, and two people at once."""

import re

from playwright.sync_api import expect

from tests.browser.conftest import expect_rows, store_rows
from tests.browser.test_look import ITEMS
from tests.browser.test_search import filter_by


def opened(visits, server, **options):
    """Open the page and wait for its items."""
    page = visits.open(server, **options)
    page.locator("[role=option] img").first.wait_for()
    return page


def label_selection(page, value, key="l"):
    """Give a value to what is selected, by keyboard."""
    page.keyboard.press(key)
    box = page.get_by_label("Value", exact=True)
    box.fill(value)
    expect(page.get_by_role("button", name="Set the value" if key == "l" else "Add the tag")).to_be_enabled()
    box.press("Enter")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_three_items_are_labelled_and_unlabelled_by_keyboard(visits, writer):
    """Space and Shift select, L labels, Ctrl+Z takes it back, Ctrl+Shift+Z does it again."""
    page = opened(visits, writer)
    count = "SELECT count(*) FROM items WHERE label = 'a <b>label</b>'"
    page.get_by_test_id("grid").focus()
    page.keyboard.press("Home")
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    expect(page.get_by_test_id("selection")).to_contain_text("3 selected")
    label_selection(page, "a <b>label</b>")
    expect(page.locator("#cell-1 .caption")).to_have_text("a <b>label</b>")
    expect_rows(writer.store, count, [(3,)])
    page.get_by_test_id("grid").focus()
    page.keyboard.press("Control+z")
    expect(page.locator("#cell-1 .caption")).not_to_have_text("a <b>label</b>")
    expect_rows(writer.store, count, [(0,)])
    page.keyboard.press("Control+Shift+z")
    expect(page.locator("#cell-1 .caption")).to_have_text("a <b>label</b>")
    expect_rows(writer.store, count, [(3,)])


def test_an_open_item_is_labelled_and_tagged_by_key(visits, writer):
    """L and T are for the open item where nothing is selected; its values are filters, each tag one of them."""
    page = opened(visits, writer)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # skip to the items
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    panel = page.get_by_test_id("item-panel")
    panel.get_by_test_id("neighbours").wait_for()
    label_selection(page, "odd")
    label = panel.get_by_role("button", name="odd", exact=True)
    expect(label).to_be_visible()
    for tag in ("old", "it's"):
        label_selection(page, tag, key="t")
        expect(panel.get_by_role("button", name=tag, exact=True)).to_be_visible()
    expect_rows(writer.store, "SELECT label, tags FROM items WHERE tags IS NOT NULL", [("odd", "old;it's")])
    tags = page.get_by_role("region", name="tags")
    expect(tags.get_by_role("button", name="it's")).to_contain_text("1")
    panel.get_by_role("button", name="it's", exact=True).click()
    expect(page.get_by_test_id("count")).to_have_text(f"1 of {ITEMS} items")
    page.get_by_role("button", name="Remove the filter tags: it's").click()
    label.click()
    expect(page.get_by_test_id("count")).to_have_text(f"1 of {ITEMS} items")


def test_everything_that_a_filter_matches_is_tagged_by_mouse(visits, writer):
    """Ctrl+A selects what the filter matches, not only what is loaded; two tags stay next to each other."""
    page = opened(visits, writer)
    filter_by(page, "split = 'val'")
    page.locator("#cell-0 .tick").click()
    page.get_by_test_id("selection").get_by_role("button", name="Select all").click()
    ((val,),) = store_rows(writer.store, "SELECT count(*) FROM items WHERE split = 'val'")
    expect(page.get_by_test_id("selection")).to_contain_text(f"{val} selected")
    for tag in ("good", "new"):
        if tag == "new":
            page.get_by_test_id("grid").focus()
            page.keyboard.press("Control+a")
            expect(page.get_by_test_id("selection")).to_contain_text(f"{val} selected")
        page.get_by_role("button", name="Tag…").click()
        page.get_by_label("Value", exact=True).fill(tag)
        page.get_by_role("button", name="Add the tag").click()
        expect(page.get_by_role("dialog")).to_be_hidden()
    rows = store_rows(writer.store, "SELECT tags, count(*) FROM items WHERE tags IS NOT NULL GROUP BY 1")
    assert rows == [("good;new", val)]


def test_a_selection_limits_the_search_and_is_left_again(visits, writer):
    """Words search only inside it."""
    page = opened(visits, writer)
    for place in (0, 1, 2, 3):
        page.locator(f"#cell-{place} .tick").click(modifiers=[])
    page.get_by_role("button", name="Show only these").click()
    expect(page.get_by_test_id("count")).to_have_text(f"4 of {ITEMS} items")
    splits = page.get_by_role("region", name="split").get_by_role("listitem")
    expect(splits.first).not_to_contain_text(re.compile(r"\d\d"))  # counted inside the selection
    assert sum(int(text.split()[-1]) for text in splits.all_inner_texts()) == 4
    page.get_by_label("Search", exact=True).fill("a red heart")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id("count")).to_contain_text(re.compile("^[1-4] hit|nothing fits, 4 nearest"))
    page.get_by_label("Clear the search").click()
    page.get_by_label("Leave the selection").click()
    expect(page.get_by_test_id("count")).to_have_text(f"{ITEMS} of {ITEMS} items")


def test_the_ids_of_a_selection_are_saved(visits, writer):
    """The file has one id per line."""
    page = opened(visits, writer)
    for place in (2, 5):
        page.locator(f"#cell-{place} .tick").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save ids").click()
    ids = [int(line) for line in download.value.path().read_text().splitlines()]
    everything = store_rows(writer.store, "SELECT item FROM items ORDER BY item")
    assert ids == [everything[2][0], everything[5][0]]


def test_a_change_of_another_person_is_not_overwritten_in_silence(visits, writer):
    """The second is told, sees the first one's value, and may overwrite it."""
    one, two = opened(visits, writer), opened(visits, writer)
    for page in (one, two):
        page.locator("#cell-0 .tick").click()
    two.keyboard.press("l")
    two.get_by_text("Now:").wait_for()
    label_selection(one, "first")
    two.get_by_label("Value", exact=True).fill("second")
    two.keyboard.press("Enter")
    message = two.get_by_test_id("message")
    expect(message.get_by_role("button", name="Overwrite")).to_be_visible()
    label = "SELECT label FROM items ORDER BY item LIMIT 1"
    expect_rows(writer.store, label, [("first",)])
    message.get_by_role("button", name="Overwrite").click()
    expect(two.locator("#cell-0 .caption")).to_have_text("second")
    expect_rows(writer.store, label, [("second",)])


def test_the_history_says_who_changed_what(visits, writer):
    """The name is given once and kept by the browser."""
    page = opened(visits, writer)
    page.get_by_label("History of changes").click()
    page.get_by_label("Your name").fill("Ada <i>")
    page.keyboard.press("Escape")
    page.locator("#cell-0 .tick").click()
    label_selection(page, "seen")
    page.get_by_label("History of changes").click()
    expect(page.get_by_test_id("history").locator("tbody tr").first).to_contain_text("Ada <i>")
    expect(page.get_by_test_id("history").locator("tbody tr").first).to_contain_text("label = seen")


def test_a_read_only_server_offers_no_changes(visits, scene_store, browser):
    """Neither buttons nor keys."""
    from tests.browser.conftest import serving

    with serving(scene_store, "--read-only") as server:
        page = opened(visits, server)
        page.locator("#cell-0 .tick").click()
        expect(page.get_by_test_id("selection")).to_contain_text("1 selected")
        assert page.get_by_role("button", name="Label…").count() == 0
        page.keyboard.press("l")
        assert page.get_by_role("dialog").count() == 0
        assert page.get_by_label("Undo").count() == 0
