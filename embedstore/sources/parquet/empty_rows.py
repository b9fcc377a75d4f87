"""Why a row of a table that holds its items has none."""

from __future__ import annotations

from embedstore.types import FailureReason

NO_IMAGE = (FailureReason.MISSING, "the row has neither bytes nor a path")
NO_TEXT = (FailureReason.EMPTY, "the cell is empty")
