"""Fixtures for every test here: the processes that jobs are forked from, and the recorder of file operations."""

from tests.reliability.disk_simulation import commands, fork_server, recorder

__all__ = ["commands", "fork_server", "recorder"]
