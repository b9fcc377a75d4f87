"""The map: drawn without eval, coloured, filtered, selected by lasso and by keyboard."""

import re
import shutil

import pytest
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import image_bytes, serving
from tests.browser.test_look import ITEMS


@pytest.fixture
def chart(charted, visits):
    """The map of the shared store, drawn."""
    page = visits.open(charted, "mode=map")
    page.locator("[data-testid=map][data-drawn=true]").wait_for()
    return page


def selected(page):
    """Return how many items the bar of the selection says, once the server has answered."""
    expect(page.get_by_text("Selecting…")).to_be_hidden()
    text = page.get_by_test_id("selection").get_by_role("status").inner_text()
    return int(re.match(r"[\d,]+", text)[0].replace(",", ""))


def test_a_lasso_around_half_selects_a_part(chart):
    """The line is drawn with the mouse; what it holds can be shown alone."""
    chart.get_by_role("button", name="Lasso").click()
    box = chart.get_by_test_id("lasso").bounding_box()
    left, top, width, height = box["x"], box["y"], box["width"], box["height"]
    corners = [(0.02, 0.1), (0.5, 0.1), (0.5, 0.98), (0.02, 0.98)]
    chart.mouse.move(left + width * corners[0][0], top + height * corners[0][1])
    chart.mouse.down()
    for x, y in corners[1:]:
        chart.mouse.move(left + width * x, top + height * y, steps=5)
    chart.mouse.up()
    expect(chart.get_by_test_id("selection")).to_be_visible()
    count = selected(chart)
    assert 0 < count < ITEMS
    chart.get_by_role("button", name="Show only these").click()
    expect(chart.get_by_test_id("count")).to_have_text(f"{count} of {ITEMS} items")


def test_the_keyboard_zooms_and_selects_what_is_on_the_screen(chart):
    """The whole map holds every item, a part of it fewer."""
    chart.get_by_role("application").focus()
    chart.keyboard.press("s")
    expect(chart.get_by_test_id("selection")).to_contain_text(f"{ITEMS} selected")
    for _ in range(4):
        chart.keyboard.press("+")
    chart.keyboard.press("s")
    expect(chart.get_by_test_id("selection")).not_to_contain_text(f"{ITEMS} selected")
    expect(chart.get_by_text("Selecting…")).to_be_hidden()
    few = selected(chart) if chart.get_by_test_id("selection").count() else 0
    assert few < ITEMS
    chart.keyboard.press("0")
    chart.keyboard.press("s")
    expect(chart.get_by_test_id("selection")).to_contain_text(f"{ITEMS} selected")


def test_colours_have_a_legend_and_pictures_appear_when_zoomed_in(chart):
    """The legend names the values of the chosen column."""
    chart.get_by_label("Colour by").select_option("split")
    legend = chart.get_by_role("list", name="Colours of split")
    expect(legend).to_contain_text("train")
    for _ in range(3):
        chart.get_by_label("Zoom in").click()
    thumbnail = chart.locator(".thumb img").first
    expect(thumbnail).to_be_visible()
    expect(thumbnail).to_have_js_property("complete", True)


def test_the_hits_of_a_search_are_not_faint(charted, visits):
    """A search, then the map: the mask has the hits only."""
    page = visits.open(charted, "words=a%20red%20heart")
    page.get_by_test_id("unfit").wait_for()
    with page.expect_response(lambda answer: "/map/mask" in answer.url and answer.ok) as mask:
        page.get_by_role("navigation").get_by_role("button", name="Map").click()
    assert "selection=" in mask.value.url
    hits = int(page.get_by_test_id("count").inner_text().split()[0])
    assert sum(byte.bit_count() for byte in mask.value.body()[24:]) == hits


def test_a_filter_limits_what_is_selected(chart):
    """Only what matches is inside a selection of the whole screen."""
    box = chart.get_by_label("Filter", exact=True)
    box.fill("kind = 'scan'")
    box.press("Enter")
    expect(chart.get_by_test_id("count")).to_have_text(f"{ITEMS // 2} of {ITEMS} items")
    chart.get_by_role("button", name="Select the screen").click()
    expect(chart.get_by_test_id("selection")).to_contain_text(f"{ITEMS // 2} selected")


def test_a_first_map_shows_its_progress_and_can_be_cancelled(own_store, visits, browser):
    """Cancel ends the drawing, and a button begins it again; the map is there when it is done."""
    shutil.rmtree(own_store / "cache", ignore_errors=True)
    with serving(own_store) as server:
        page = visits.open(server, "mode=map")
        work = page.get_by_test_id("map-work")
        work.get_by_role("button", name="Cancel").click()
        expect(work).to_contain_text("was cancelled")
        assert page.locator("[data-testid=map][data-drawn=true]").count() == 0
        work.get_by_role("button", name="Draw the map").click()
        page.locator("[data-testid=map][data-drawn=true]").wait_for()
        expect(work).to_be_hidden()


def test_new_items_appear_on_a_map_that_is_open(own_store, visits, browser, tmp_path):
    """Another process embeds three pictures: the map has three items more, and its view and its old items stay."""
    folder = tmp_path / "more"
    folder.mkdir()
    for n in range(3):
        (folder / f"{n}.png").write_bytes(image_bytes(n))
    with serving(own_store) as server:
        page = visits.open(server, "mode=map")
        surface = page.get_by_role("application")
        page.locator("[data-testid=map][data-drawn=true]").wait_for()
        expect(surface).to_have_attribute("aria-label", re.compile(f"^Map of {ITEMS} items"))
        for _ in range(3):
            page.get_by_label("Zoom in").click()
        page.locator(".thumb img").first.wait_for()
        before = places_of(page)
        with es.open(own_store) as store:
            store.embed(folder)
        expect(surface).to_have_attribute("aria-label", re.compile(f"^Map of {ITEMS + 3} items"))
        page.locator(".thumb img").first.wait_for()
        after = places_of(page)
    common = before.keys() & after.keys()
    assert common
    assert all(before[picture] == after[picture] for picture in common)


def places_of(page):
    """Return where each picture of the map is, once nothing moves."""
    pair = "[image.getAttribute('src'), image.parentElement.style.transform]"
    read = f"images => Object.fromEntries(images.map(image => {pair}))"
    places = None
    while places != (places := page.locator(".thumb img").evaluate_all(read)):
        page.wait_for_timeout(500)
    return places
