"""The sources of the page: types, lint, unit tests, and types of the API that are not stale."""

import subprocess

import pytest

from tests.conftest import ROOT
from tools.page_types import PROGRAM, TYPES, write_types

WEB = ROOT / "web"


@pytest.fixture(scope="module")
def packages():
    """The packages of the page, which the build installs."""
    if not PROGRAM.is_file():
        pytest.skip("the packages of the page are not here: python hatch_build.py")


@pytest.mark.parametrize("check", ["check", "lint", "test"])
def test_the_sources_are_checked(packages, check):
    """svelte-check, eslint and vitest find nothing."""
    result = subprocess.run(["npm", "run", "--silent", check], cwd=WEB, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]


def test_the_types_are_those_of_the_api(packages, tmp_path):
    """A route that changed without `python -m tools.page_types` is found here."""
    fresh = tmp_path / "api.d.ts"
    write_types(fresh)
    assert fresh.read_text() == TYPES.read_text(), "run `python -m tools.page_types`"
