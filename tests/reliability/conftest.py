"""The interpreter that jobs are forked from, and the recorder in it, for every test here."""

from tests.reliability.steps import shim, warm

__all__ = ["shim", "warm"]
