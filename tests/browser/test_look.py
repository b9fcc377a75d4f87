"""Look: a grid that is used by mouse and by keyboard, and one item with all that is known of it."""

from playwright.sync_api import expect

from tests.browser.conftest import DIGITS_PER_CLASS, SCENES, count_text

ITEMS = SCENES + 10 * DIGITS_PER_CLASS


def active_place(page):
    """Return the place in the list of the item that the keyboard is at, from 1."""
    grid = page.get_by_test_id("grid")
    cell = grid.get_attribute("aria-activedescendant")
    return int(page.locator(f"#{cell}").get_attribute("aria-posinset"))


def test_the_grid_shows_every_item_and_loads_thumbnails(page):
    """The count is the store's, and the pictures have pixels."""
    assert count_text(page) == f"{ITEMS} of {ITEMS} items"
    first = page.locator("[role=option] img").first
    expect(first).to_have_js_property("complete", True)
    assert first.evaluate("image => image.naturalWidth") > 0
    assert page.locator("[role=option]").first.get_attribute("aria-setsize") == str(ITEMS)


def test_the_keyboard_reaches_the_last_item(page):
    """End, Home and the arrows move by one item and by a row."""
    grid = page.get_by_test_id("grid")
    grid.focus()
    page.keyboard.press("End")
    expect(page.locator(f"#cell-{ITEMS - 1}")).to_be_in_viewport()
    assert active_place(page) == ITEMS
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert active_place(page) == 2
    page.keyboard.press("ArrowDown")
    columns = active_place(page) - 2
    assert 3 <= columns <= 12
    page.keyboard.press("ArrowUp")
    assert active_place(page) == 2


def test_an_item_opens_by_mouse_with_its_columns_and_neighbours(page):
    """The picture, the columns of the manifest, and pictures that are near."""
    page.locator("#cell-2").click()
    panel = page.get_by_test_id("item-panel")
    picture = panel.locator("img.item-picture")
    picture.wait_for()
    expect(picture).to_have_js_property("complete", True)
    assert picture.evaluate("image => image.naturalWidth") > 0
    expect(panel.get_by_role("row", name="kind")).to_be_visible()
    expect(panel.get_by_test_id("neighbours").locator("img")).to_have_count(12)


def test_an_item_opens_by_key_and_its_neighbours_lead_on(page):
    """Enter opens, a neighbour replaces it, Escape closes."""
    page.get_by_test_id("grid").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    panel = page.get_by_test_id("item-panel")
    title = panel.locator("h2").first
    expect(title).not_to_have_text("…")
    before = title.inner_text()
    neighbour = panel.get_by_test_id("neighbours").locator("button").first
    neighbour.focus()
    page.keyboard.press("Enter")
    expect(title).not_to_have_text(before)
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()


def test_the_folder_of_an_item_is_a_filter(page):
    """A click shows what came from the same folder."""
    page.get_by_test_id("grid").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.get_by_test_id("item-panel").get_by_title("Show the items of this folder").click()
    expect(page.get_by_test_id("count")).not_to_have_text(f"{ITEMS} of {ITEMS} items")
    assert page.get_by_label("Filter", exact=True).input_value().startswith("starts_with(uri, '")


def test_the_page_fits_a_narrow_screen(reader, visits):
    """At 390 pixels nothing is wider than the screen; facets and the item cover it and close again."""
    page = visits.open(reader, viewport={"width": 390, "height": 844})
    page.locator("[role=option] img").first.wait_for()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    page.get_by_role("button", name="Facets").click()
    expect(page.get_by_role("complementary", name="Facets")).to_be_visible()
    page.get_by_role("button", name="Close", exact=True).click()
    page.locator("#cell-1").click()
    panel = page.get_by_test_id("item-panel")
    expect(panel).to_be_visible()
    panel.get_by_label("Close the item").click()
    expect(panel).to_be_hidden()


def test_a_wrong_token_shows_one_sentence(reader, visits):
    """The page says what to do, and shows nothing of the store."""
    address = reader.address.partition("#")[0] + "#token=" + "x" * 43
    page = visits.open(type(reader)(address, reader.store, reader.process))
    expect(page.get_by_role("alert")).to_contain_text("open the address that `serve` printed")
    assert page.locator("[role=option]").count() == 0


def test_the_token_leaves_the_address(page):
    """It is in no bookmark and in no history of the browser; a reload works by the cookie."""
    assert "token" not in page.url
    page.reload()
    page.locator("[role=option] img").first.wait_for()
