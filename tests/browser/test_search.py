"""Search: words, pictures and examples; the filter of the command line with completion and errors; facets."""

import pytest
from playwright.sync_api import expect

import embedstore as es
from tests.browser.conftest import SCENES, count_text, image_bytes, serving, store_rows
from tests.browser.test_look import ITEMS

COUNT = "count"


def labels(page):
    """Return the names that the visible cells are read out by."""
    return [cell.get_attribute("aria-label") for cell in page.locator("[role=option]").all()]


def filter_by(page, text):
    """Type a filter and press Enter."""
    box = page.get_by_label("Filter", exact=True)
    box.fill(text)
    box.press("Enter")


def test_words_by_key(page):
    """The slash goes to the search, Enter searches, the hits are in the order of their scores."""
    page.get_by_test_id("grid").focus()
    page.keyboard.press("/")
    page.keyboard.type("a red heart")
    page.keyboard.press("Enter")
    expect(page.get_by_test_id(COUNT)).to_contain_text("hit")
    scores = [float(label.rpartition("score ")[2]) for label in labels(page)]
    assert scores == sorted(scores, reverse=True)
    page.get_by_test_id("unfit").get_by_role("button", name="Show them").click()
    expect(page.get_by_test_id("unfit")).to_be_hidden()
    expect(page.get_by_test_id(COUNT)).not_to_have_text(f"{len(scores)} hits")
    page.get_by_label("Clear the search").click()
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{ITEMS} of {ITEMS} items")


def test_a_picture_from_a_file(page, tmp_path):
    """A chosen picture is searched for, and its chip is removed by its button."""
    path = tmp_path / "a <b>.png"
    path.write_bytes(image_bytes())
    page.set_input_files("input[type=file]", str(path))
    expect(page.get_by_role("search")).to_contain_text("a <b>.png")
    expect(page.get_by_test_id(COUNT)).to_contain_text("hit")
    page.get_by_label("Remove the picture from the search").click()
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{ITEMS} of {ITEMS} items")


def test_a_dropped_picture_and_a_dropped_text(page):
    """A picture is searched for; anything else is refused in one line."""
    drop = """(kind, name) => {
        const data = new DataTransfer();
        const bytes = kind === 'text/plain' ? 'hello' : Uint8Array.from(BYTES);
        data.items.add(new File([bytes], name, { type: kind }));
        window.dispatchEvent(new DragEvent('drop', { dataTransfer: data, cancelable: true }));
    }""".replace("BYTES", str(list(image_bytes())))
    page.evaluate(f"([kind, name]) => ({drop})(kind, name)", ["text/plain", "notes.txt"])
    expect(page.get_by_test_id("message")).to_contain_text("is not an image")
    page.evaluate(f"([kind, name]) => ({drop})(kind, name)", ["image/png", "dropped.png"])
    expect(page.get_by_role("search")).to_contain_text("dropped.png")
    expect(page.get_by_test_id(COUNT)).to_contain_text("hit")


def test_more_like_this_and_less_like_that(page):
    """Two examples are two chips; the wanted one is the best hit; without chips all items are back."""
    page.locator("#cell-0").click()
    wanted = page.get_by_test_id("item-panel").locator("h2").first
    expect(wanted).not_to_have_text("…")
    name = wanted.inner_text()
    page.get_by_role("button", name="More like this").click()
    search = page.get_by_role("search")
    expect(search).to_contain_text(f"like {name}")
    expect(page.get_by_test_id(COUNT)).to_contain_text("hit")
    page.locator("#cell-5").click()
    expect(wanted).not_to_have_text(name)
    page.get_by_role("button", name="Less like this").click()
    expect(search).to_contain_text("not like")
    for _ in range(2):
        search.locator(".chip button").first.click()
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{ITEMS} of {ITEMS} items")


def test_the_filter_is_completed_by_keyboard(page):
    """A column, then a value: the arrow chooses and Enter accepts."""
    box = page.get_by_label("Filter", exact=True)
    box.press_sequentially("ki")
    options = page.get_by_role("listbox", name="Completions")
    expect(options.get_by_role("option").first).to_contain_text("kind")
    box.press("ArrowDown")
    box.press("Enter")
    assert box.input_value().startswith("kind")
    box.press("End")
    box.press_sequentially(" = 'sc")
    expect(options.get_by_role("option").first).to_contain_text("scan")
    box.press("ArrowDown")
    box.press("Enter")
    box.press("Escape")
    box.press("Enter")
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{ITEMS - SCENES} of {ITEMS} items")


def test_a_wrong_filter_says_what_is_wrong_and_keeps_the_grid(page):
    """The sentence of the command line is below the filter, and the next filter clears it."""
    filter_by(page, "kimd = 'scan'")
    error = page.get_by_role("alert")
    expect(error).to_contain_text("kimd")
    assert count_text(page) == f"{ITEMS} of {ITEMS} items"
    expect(page.get_by_label("Filter", exact=True)).to_have_attribute("aria-invalid", "true")
    filter_by(page, "kind = 'scan'")
    expect(error).to_be_hidden()
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{ITEMS - SCENES} of {ITEMS} items")


def test_a_filter_that_nothing_matches_offers_a_way_back(page):
    """The empty grid says so, and a button clears the filters."""
    filter_by(page, "false")
    page.get_by_role("button", name="Clear the filters").click()
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{ITEMS} of {ITEMS} items")


def test_facets_count_and_choose(page):
    """Two values of one facet are both counted and both shown; a chip removes one."""
    facet = page.get_by_role("region", name="split")
    train = facet.get_by_role("button", name="train")
    val = facet.get_by_role("button", name="val")
    train.click()
    expect(train).to_have_attribute("aria-pressed", "true")
    counted = int(train.inner_text().split()[-1])
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{counted} of {ITEMS} items")
    expect(val).to_be_visible()
    val.focus()
    page.keyboard.press("Enter")
    both = counted + int(val.inner_text().split()[-1])
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{both} of {ITEMS} items")
    page.get_by_label("Remove the filter split: train").click()
    expect(page.get_by_test_id(COUNT)).to_have_text(f"{both - counted} of {ITEMS} items")


def test_the_order_of_a_column(page, scene_store):
    """The items are sorted on the server, in both directions."""
    ((first, last),) = store_rows(scene_store, "SELECT min(label), max(label) FROM items")
    order = page.get_by_label("Order")
    order.select_option("-label")
    caption = page.locator("#cell-0 .caption")
    expect(caption).to_have_text(last)
    order.select_option("+label")
    expect(caption).to_have_text(first)


def test_the_address_keeps_what_is_shown(page):
    """A reload shows the same filter, facets and words."""
    filter_by(page, "number >= 1")
    page.get_by_role("region", name="split").get_by_role("button", name="val").click()
    expect(page.get_by_label("Remove the filter split: val")).to_be_visible()
    before = page.get_by_test_id(COUNT)
    expect(before).not_to_have_text(f"{ITEMS} of {ITEMS} items")
    text = before.inner_text()
    page.reload()
    expect(page.get_by_test_id(COUNT)).to_have_text(text)
    assert page.get_by_label("Filter", exact=True).input_value() == "number >= 1"


def test_words_of_a_column_count_by_choice(page):
    """The ranking by words is offered for a text, kept in the address, and says which words are unknown."""
    ranking = page.get_by_label("Ranking")
    expect(ranking).to_be_hidden()
    page.get_by_label("Search", exact=True).fill("scan zeppelin")
    page.keyboard.press("Enter")
    ranking.select_option("kind")
    expect(page.get_by_test_id("notes")).to_have_text("no text of kind has 'zeppelin'")
    page.reload()
    expect(page.get_by_test_id("notes")).to_have_text("no text of kind has 'zeppelin'")
    ranking.select_option("")
    expect(page.get_by_test_id("notes")).to_be_hidden()


def test_the_page_says_which_replica_it_searches_by_and_how_far_that_lags(own_store, visits, tmp_path):
    """New items are counted as what the copy lacks and found all the same; the store itself can be chosen."""
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    with es.open(own_store) as store:
        store.replicate(f"qdrant://{tmp_path / 'qdrant'}", name="copy")
    with serving(own_store, "--replica", "copy") as server:
        page = visits.open(server)
        choice = page.get_by_label("Search by")
        expect(choice.locator("option").first).to_have_text("by replica copy (qdrant, up to date)")
        page.get_by_label("Search", exact=True).fill("a red heart")
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("notes")).to_have_text("found by replica copy")
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "a.png").write_bytes(image_bytes(7))
        with es.open(own_store) as store:
            store.embed(tmp_path / "new")
        expect(choice.locator("option").first).to_have_text("by replica copy (qdrant, lacks 1 item)")
        page.get_by_label("Clear the search").click()
        page.get_by_label("Search", exact=True).fill("a blue star")
        page.keyboard.press("Enter")
        expect(page.get_by_test_id("notes")).to_contain_text("lacks 1 of the matching items")
        choice.select_option("")
        expect(page.get_by_test_id("notes")).to_be_hidden()
