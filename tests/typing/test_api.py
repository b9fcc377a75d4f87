"""The public API is typed: what a user's type checker sees."""

import pytest

from tests.conftest import ROOT


def test_the_public_api_has_the_types_that_it_promises():
    """mypy --strict accepts every line of api.py, and refuses misspelt keywords and wrong types."""
    api = pytest.importorskip("mypy.api", reason="mypy is not installed")
    out, err, status = api.run(
        [str(ROOT / "tests" / "typing" / "api.py"), "--config-file", str(ROOT / "pyproject.toml")]
    )
    assert status == 0, out + err
