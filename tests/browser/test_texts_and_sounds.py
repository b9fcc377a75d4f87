"""Texts are read and sounds are played where a store of images shows pictures."""

import pytest
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import serving
from tests.browser.test_accessibility import AXE, serious
from tests.helpers.sequence_stores import PITCHES, TEXTS, sound_store, text_store

pytest.importorskip("transformers", reason="transformers is not installed (extra [audio])")
pytest.importorskip("soundfile", reason="soundfile is not installed (extra [audio])")
pytest.importorskip("soxr", reason="soxr is not installed (extra [audio])")


@pytest.fixture(scope="module")
def texts(browser, tmp_path_factory):
    """A server of a store of texts."""
    with serving(text_store(tmp_path_factory.mktemp("texts"))) as server:
        yield server


@pytest.fixture(scope="module")
def sounds(browser, tmp_path_factory):
    """A server of a store of sounds."""
    with serving(sound_store(tmp_path_factory.mktemp("sounds"))) as server:
        yield server


def is_playing(page):
    """Return a condition that a sound is heard: the page asked for it, and a card shows the sign that stops it."""
    return page.locator(".sound-card.playing")


def test_a_text_is_read_in_the_grid_and_in_the_panel(texts, visits):
    """Its first lines in the cell, which its name begins with; all of it in the panel; markup is text."""
    page = visits.open(texts)
    card = page.locator("#cell-0 blockquote")
    expect(card).to_have_text(TEXTS[0])
    expect(page.get_by_role("option", name=TEXTS[0])).to_have_id("cell-0")
    expect(page.locator("#cell-1 blockquote")).to_have_text(TEXTS[1])
    expect(page.locator("#cell-3 blockquote")).to_have_text(TEXTS[3][:300].strip() + "…")
    page.get_by_test_id("grid").focus()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    panel = page.get_by_test_id("item-panel")
    expect(panel.locator("blockquote.whole")).to_have_text(TEXTS[3].strip())
    expect(panel.get_by_role("heading", name="row 3 of notes.csv")).to_be_visible()
    expect(panel.locator("th").get_by_text("label")).to_be_visible()
    expect(panel.locator("th").get_by_text("text", exact=True)).to_have_count(0)  # it is above
    expect(panel.get_by_test_id("neighbours").locator("blockquote")).to_have_count(len(TEXTS) - 1)
    assert page.locator("[data-testid=grid] img").count() == 0
    expect(page.get_by_role("button", name="Picture…")).to_have_count(0)


def test_news_of_the_store_read_no_text_again(texts, visits):
    """Another process labels an item: its cell shows the label, and the texts on the screen are not asked for again."""
    page = visits.open(texts)
    expect(page.locator("#cell-0 blockquote")).to_have_text(TEXTS[0])
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    with es.open(texts.store) as store:
        store.edit({"label": "'renamed'"}, "item = 1")
    expect(page.locator("#cell-0 .caption")).to_contain_text("renamed")
    assert any("/items" in url for url in asked)
    assert [url for url in asked if "/preview" in url] == []
    with es.open(texts.store) as store:
        store.edit({"label": "'animal'"}, "item = 1")


def test_a_sound_is_played_by_mouse_and_by_key(sounds, visits):
    """The button of a card, the key P in the grid, and the player of the panel; one sound at a time."""
    page = visits.open(sounds)
    buttons = page.locator(".sound-card.playable")
    expect(buttons).to_have_count(3)
    with es.open(sounds.store) as store:
        store.edit({"label": "'tone'"}, "item = 1")
    expect(page.locator("#cell-0 .caption")).to_have_text("tone")
    expect(page.locator("#cell-0 .sound-cell .clip")).to_have_text(f"{PITCHES[0]}.flac")
    with page.expect_response(lambda answer: answer.url.endswith("/sound")) as sent:
        buttons.first.click()
    assert sent.value.status in (200, 206)
    expect(page.get_by_test_id("item-panel")).to_be_hidden()
    expect(is_playing(page)).to_have_count(0)  # half a second later it has ended
    page.get_by_test_id("grid").focus()
    page.keyboard.press("ArrowRight")
    with page.expect_response(lambda answer: answer.url.endswith("/sound")):
        page.keyboard.press("p")
    page.keyboard.press("Enter")
    player = page.get_by_test_id("item-panel").locator("audio")
    player.evaluate("player => player.play()")
    expect(player).to_have_js_property("ended", True)
    assert player.evaluate("player => player.duration") == pytest.approx(0.5, abs=0.05)


def test_texts_and_sounds_are_labelled(texts, sounds, visits):
    """Label mode shows the whole text, or plays the sound by the space bar. Texts have no queue of pictures."""
    page = visits.open(texts, "mode=label")
    page.get_by_label("New column to label").fill("topic")
    page.keyboard.press("Enter")
    expect(page.locator(".stage > blockquote.whole")).not_to_be_empty()
    expect(page.locator(".strip blockquote").first).not_to_be_empty()
    page.get_by_role("navigation").get_by_role("button", name="Clean").click()
    expect(page.get_by_role("button", name="Outliers")).to_be_visible()
    expect(page.get_by_role("button", name="Blurred")).to_have_count(0)
    page = visits.open(sounds, "mode=label")
    page.get_by_label("New column to label").fill("pitch")
    page.keyboard.press("Enter")
    player = page.locator(".stage > audio")
    player.wait_for()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    expect(player).to_have_js_property("ended", True)


@pytest.mark.parametrize("kind", ["texts", "sounds"])
def test_nothing_serious(request, visits, kind):
    """axe-core finds nothing serious in the grid, the panel and label mode, dark and narrow."""
    if not AXE.is_file():
        pytest.skip("axe-core is not here: python hatch_build.py")
    server = request.getfixturevalue(kind)
    settings = {"bypass_csp": True, "color_scheme": "dark", "viewport": {"width": 390, "height": 800}}
    page = visits.open(server, **settings)
    page.locator("#cell-0 .text-card, #cell-0 .sound-card").wait_for()
    assert serious(page) == []
    page.locator("#cell-0").click(position={"x": 20, "y": 60})
    page.locator(".panel .text-card, .panel audio").first.wait_for()
    assert serious(page) == []
    page = visits.open(server, "mode=label", **settings)
    page.get_by_label("New column to label").fill("kind")
    page.keyboard.press("Enter")
    page.locator(".strip .text-card, .strip .sound-card").first.wait_for()
    assert serious(page) == []
