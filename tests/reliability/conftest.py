"""The recorder, for every test here."""

from tests.reliability.steps import shim

__all__ = ["shim"]
