"""axe-core finds nothing serious on any view, light or dark, wide or narrow."""

import pytest

from tests.conftest import ROOT

AXE = ROOT / "web" / "node_modules" / "axe-core" / "axe.min.js"
READY = {
    "look": "[role=option] img",
    "map": "[data-testid=map][data-drawn=true]",
    "label": "[data-testid=label-mode]",
    "clean": "[data-testid=clean-mode] li",
    "judge": "[data-testid=judge-mode]",
}


def serious(page):
    """Return the rules that are broken seriously once nothing moves any more, each with the first element."""
    page.add_script_tag(path=str(AXE))
    page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
    result = page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
    return [
        (rule["id"], rule["nodes"][0]["html"][:200])
        for rule in result["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("mode", READY)
def test_nothing_serious(charted, visits, mode):
    """The script of axe needs a window without the content policy; every other test has the policy."""
    if not AXE.is_file():
        pytest.skip("axe-core is not here: python hatch_build.py")
    scheme, width = ("dark", 390) if mode in ("map", "clean") else ("light", 1280)
    page = visits.open(
        charted, f"mode={mode}", bypass_csp=True, color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    page.locator(READY[mode]).first.wait_for()
    if mode == "look":
        page.locator("#cell-0").click()
        page.get_by_test_id("neighbours").wait_for()
    assert serious(page) == []
