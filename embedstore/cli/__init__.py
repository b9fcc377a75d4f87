"""The command line: verbs that parse, call the store and print. No logic."""

from __future__ import annotations

import gc
import logging
import sys

from embedstore import timing
from embedstore.errors import EmbedstoreError

_INTERRUPTED = (130, 143)  # 128 and the number of SIGINT, of SIGTERM


def main(arguments: list[str] | None = None) -> None:
    """Run one command; an error of ours is one line on stderr with exit status 1, a usage error has status 2."""
    gc.set_threshold(100_000)  # imports make no garbage, and looking for some took 5% of the time of a short command
    with timing.record_command() as command:
        try:
            _run(arguments)
        finally:
            for name, seconds in (
                timing.step_report(command.steps) if command.print_requested and not sys.stderr.closed else ()
            ):
                print(f"{seconds:8.3f} s  {name}", file=sys.stderr)


def load_commands() -> None:
    """Import the modules of the verbs; each adds its verbs to the application."""
    from embedstore.cli import (  # noqa: F401
        classify,
        edit,
        finetuning,
        label_and_clean,
        maintenance,
        measure,
        put_in,
        quickstart,
        search,
    )


def _run(arguments: list[str] | None) -> None:
    """Run one command, and print an error as one line."""
    load_commands()
    from embedstore.cli import interrupt
    from embedstore.cli.app import app
    from embedstore.cli.console import StderrLogHandler
    from embedstore.reports.terminal_text import guarded_streams, visible

    logger = logging.getLogger("embedstore")
    if not logger.handlers:
        logger.addHandler(StderrLogHandler())
    timing.add_step("Python and the command itself", timing.process_age() or 0.0)
    try:
        with guarded_streams(), interrupt.interruptible():
            app(args=arguments, prog_name="embedstore")
    except EmbedstoreError as e:
        print(f"embedstore: {visible(str(e))}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        _print_interrupted()
        sys.exit(130)
    except SystemExit as e:
        if e.code in _INTERRUPTED:  # Typer raises it in place of a KeyboardInterrupt
            _print_interrupted()
        raise
    except BrokenPipeError:  # the reader of our output closed it
        sys.stderr.close()
        sys.exit(0)


def _print_interrupted() -> None:
    print("embedstore: interrupted; what was committed is kept, run the command again to continue", file=sys.stderr)
