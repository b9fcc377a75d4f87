"""Figures that are pinned to JSON files in ``tests/golden``."""

import json
import os
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "golden"
UPDATE = "EMBEDSTORE_UPDATE_GOLDEN"
TOLERANCE = 0.02  # another BLAS or decoder may change one or two rows of a hundred


def assert_golden(file: str, name: str, figures: dict[str, float]) -> None:
    """Assert that figures are within 0.02 of the recorded ones, or record them when the update variable is set."""
    path = FOLDER / file
    golden = json.loads(path.read_text()) if path.exists() else {}
    if os.environ.get(UPDATE):
        path.write_text(json.dumps({**golden, name: figures}, indent=2, sort_keys=True) + "\n")
        return
    command = f'{UPDATE}=1 pytest tests/classify -k real -m "slow or not slow"'
    assert figures == pytest.approx(golden[name], abs=TOLERANCE), f"if the change is intended, run: {command}"
