"""The interpreters that jobs are forked from, and the recorder in it, for every test here."""

from tests.reliability.disk_simulation import commands, shim, warm

__all__ = ["commands", "shim", "warm"]
