"""Run a command of embedstore in this process."""

from collections.abc import Callable
from typing import Any

from embedstore.cli import main


def command_runner(capsys: Any) -> Callable[..., tuple[int, str]]:
    """Return a function that runs a command, and returns its exit status and what it printed to standard error."""

    def run(*arguments: object) -> tuple[int, str]:
        status = 0
        try:
            main([str(a) for a in arguments])
        except SystemExit as end:
            status = int(end.code or 0)
        return status, capsys.readouterr().err

    return run
