"""Every queue of clean mode by keys alone: open, decide, take back, decide again, remembered by the store."""

import re
import shutil

from playwright.sync_api import expect

from tests.browser.conftest import expect_rows, serving
from tests.server.test_queues import faulty  # noqa: F401 - a fixture

KEYS = {
    "Label errors": "k",
    "Copies with two labels": "s",
    "Near-duplicates": "k",
    "Leaks between splits": "r",
    "Outliers": "k",
    "Blurred": "r",
    "Dark": "k",
    "Bright": "s",
    "Little in it": "r",
    "Odd shapes": "k",
    "Tiny": "r",
}
DECISIONS = "SELECT count(*) FROM runs WHERE verb = 'decide'"


def test_every_queue_is_decided_by_keys(faulty, visits, tmp_path):  # noqa: F811 - the fixture
    """Enter opens a queue; a digit, K, R or S decides its first row, U takes that back; failures are only looked at."""
    path = shutil.copytree(faulty, tmp_path / "s")
    with serving(path) as server:
        page = visits.open(server, "mode=clean")
        conflicts = page.locator(".queues li button").filter(has_text="Copies with two labels")
        conflicts.focus()
        page.keyboard.press("Enter")
        labels = page.get_by_role("button", name=re.compile("^[12] Label: "))
        expect(labels).to_have_count(2)
        chosen = labels.nth(1).inner_text().partition("Label: ")[2]
        page.keyboard.press("2")
        expect(page.get_by_test_id("message")).to_contain_text(f"2 items: label = {chosen}")
        page.keyboard.press("u")
        expect(labels).to_have_count(2)
        for name, key in KEYS.items():
            queue = page.locator(".queues li button").filter(has_text=name)
            queue.focus()
            page.keyboard.press("Enter")
            expect(queue).to_have_attribute("aria-pressed", "true")
            place = page.get_by_role("region", name="Decision").get_by_role("status")
            expect(place).to_have_text(re.compile(r"1 of \d+"))
            page.keyboard.press(key)
            expect(queue).to_contain_text(re.compile(r"[1-9]\d* decided"))
            page.keyboard.press("u")
            expect(queue).not_to_contain_text("decided")
            expect(place).to_have_text(re.compile(r"1 of \d+"))
            page.keyboard.press(key)
            expect(queue).to_contain_text(re.compile(r"[1-9]\d* decided"))
        failures = page.locator(".queues li button").filter(has_text="Failures")
        failures.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("region", name="To decide")).to_contain_text("broken.png")
        for key in "krs":
            page.keyboard.press(key)
        expect(failures).not_to_contain_text("decided")
    expect_rows(path, DECISIONS, [(2 * len(KEYS),)])
