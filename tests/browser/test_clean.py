"""Clean: queues whose rows are decided by one key, remembered, and taken back."""

import pytest
from PIL import Image
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import expect_rows, serving, store_rows


@pytest.fixture
def cleaning(own_store, visits, browser):
    """Clean mode on a store with four wrong labels."""
    with es.open(own_store) as store:
        store.edit({"label": "'digit 1'"}, where="label = 'digit 0' AND uri LIKE '%/000%'")
        store.edit({"label": "'digit 7'"}, where="label = 'digit 4' AND uri LIKE '%/001%'")
    with serving(own_store) as server:
        page = visits.open(server, "mode=clean&where=kind%20%3D%20'scan'")
        page.get_by_role("button", name="Label errors").click()
        page.get_by_test_id("reason").wait_for()
        yield page, own_store


def test_a_label_error_is_kept_taken_back_and_corrected_by_key(cleaning):
    """K keeps, U takes it back, A gives the suggested label."""
    page, path = cleaning
    place = page.get_by_role("status").filter(has_text=" of ").first
    expect(place).to_contain_text("1 of ")
    page.keyboard.press("k")
    expect(page.get_by_role("button", name="Label errors")).to_contain_text("1 decided")
    page.keyboard.press("u")
    expect(page.get_by_role("button", name="Label errors")).not_to_contain_text("decided")
    expect(place).to_contain_text("1 of ")
    suggested = page.get_by_role("button", name="A Label:").inner_text().partition("Label: ")[2]
    count = f"SELECT count(*) FROM items WHERE label = '{suggested}'"
    ((before,),) = store_rows(path, count)
    page.keyboard.press("a")
    expect(page.get_by_test_id("message")).to_contain_text(f"label = {suggested}")
    expect_rows(path, count, [(before + 1,)])


def test_a_decision_survives_the_server(cleaning, visits):
    """By mouse; another server of the same store does not show the row again."""
    page, path = cleaning
    total = int(page.get_by_role("status").filter(has_text=" of ").first.inner_text().split(" of ")[1])
    page.get_by_role("button", name="K Keep").click()
    expect(page.get_by_role("button", name="Label errors")).to_contain_text("1 decided")
    with serving(path) as server:
        again = visits.open(server, "mode=clean&where=kind%20%3D%20'scan'")
        again.get_by_role("button", name="Label errors").click()
        expect(again.get_by_role("status").filter(has_text=" of ").first).to_contain_text(f"of {total - 1}")


def test_removed_pictures_are_taken_out_and_brought_back(own_store, visits, browser, tmp_path):
    """A picture is removed by key, at 390 pixels; what was removed leaves the store, and Undo brings it back."""
    (tmp_path / "more").mkdir()
    Image.new("RGB", (20, 20), (30, 200, 40)).save(tmp_path / "more" / "tiny.png")
    with es.open(own_store) as store:
        store.embed(tmp_path / "more")
    here = "SELECT count(*) FROM items WHERE present AND uri LIKE '%tiny.png'"
    with serving(own_store) as server:
        page = visits.open(server, "mode=clean", viewport={"width": 390, "height": 844})
        tiny = page.get_by_role("region", name="Pictures").get_by_role("button", name="Tiny")
        tiny.click()
        expect(page.get_by_test_id("reason")).to_contain_text("20 x 20 pixels")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        page.keyboard.press("r")
        expect(tiny).to_contain_text("1 decided")
        page.get_by_role("button", name="Take out what was removed").click()
        page.get_by_role("button", name="Take them out").click()
        message = page.get_by_test_id("message")
        expect(message).to_contain_text("1 item was taken out")
        expect_rows(own_store, here, [(0,)])
        message.get_by_role("button", name="Undo").click()
        expect_rows(own_store, here, [(1,)])
