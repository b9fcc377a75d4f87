"""The page of doubtful labels in a real browser: boxes are ticked, the table is saved, and `edit` reads it."""

import pytest
from playwright.sync_api import expect

from embedstore.cli import main
from tests.helpers.clusters import clusters, store_of


def test_a_ticked_box_is_saved_and_edited(browser, tmp_path):
    """One wrong label is ticked and changed; the box of another one that is right becomes the command that says so."""
    X, y = clusters(60, noise=0.2)
    wrong = ["c1" if n == 0 else label for n, label in enumerate(y)]
    store = store_of(tmp_path / "s.store", X, label=wrong)
    page_file, table = tmp_path / "review.html", tmp_path / "label-review.csv"
    with pytest.raises(SystemExit, match="0"):
        main(["label-errors", str(store.path), "--all", "--limit", "3", "-o", str(page_file)])
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.goto(page_file.as_uri())
    first, second = page.locator("figure").nth(0), page.locator("figure").nth(1)
    first.locator("input.right").check()
    first.get_by_label("it is c0").check()
    expect(first.locator("input.right")).not_to_be_checked()
    expect(page.locator("#count")).to_have_text("1 label to change")
    second.locator("input.right").check()
    item = second.locator("input.right").get_attribute("data-item")
    expect(page.locator("#right")).to_contain_text(f"embedstore label-errors STORE label --confirm {item}")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save label-review.csv").click()
    download.value.save_as(table)
    context.close()
    with pytest.raises(SystemExit, match="0"):
        main(["edit", str(store.path), str(table)])
    assert [label for (label,) in store.sql("SELECT label FROM items ORDER BY item").rows] == y
