"""The command line: verbs that parse, call the store and print. No logic."""

from __future__ import annotations

import gc
import logging
import os
import sys
import traceback
from typing import NoReturn

from embedstore import resources, timing
from embedstore.errors import EmbedstoreError

_INTERRUPTED = (129, 130, 143)  # 128 and the number of SIGHUP, of SIGINT, of SIGTERM


def main(arguments: list[str] | None = None) -> None:
    """Run one command.

    An error of ours is one line on stderr with exit status 1, and a usage error has status 2. An unexpected error is
    one line that names the file of its report, with status 70.
    """
    resources.limit_library_threads()
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
        checkup,
        classify,
        duplicates,
        edit,
        finetuning,
        label_and_clean,
        maintenance,
        mcp,
        measure,
        parts,
        put_in,
        quickstart,
        replicas,
        saved_heads,
        search,
        serve,
        shift,
    )


def _run(arguments: list[str] | None) -> None:
    """Run one command, and print an error as one line."""
    load_commands()
    timing.add_step("Python and the command itself", timing.process_age() or 0.0)
    try:
        _run_verb(arguments)
    except EmbedstoreError as e:
        _fail(str(e))
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
    except MemoryError:
        _fail("the process ran out of memory; what was committed is kept")
    except Exception as e:
        _fail_unexpectedly(e, arguments)


def _run_verb(arguments: list[str] | None) -> None:
    """Run one command and write its output to the end.

    Raises:
        OutputError: if standard output cannot be written.
    """
    from embedstore.cli import interrupt
    from embedstore.cli.app import app
    from embedstore.cli.console import StderrLogHandler
    from embedstore.cli.streams import checked_streams
    from embedstore.reports.terminal_text import guarded_streams

    logger = logging.getLogger("embedstore")
    if not logger.handlers:
        logger.addHandler(StderrLogHandler())
    with checked_streams(), guarded_streams(), interrupt.interruptible():
        app(args=arguments, prog_name="embedstore")


def _fail(message: str) -> NoReturn:
    """Print an error as one line, and exit with status 1."""
    from embedstore.reports.terminal_text import visible

    print(f"embedstore: {visible(message)}", file=sys.stderr)
    sys.exit(1)


def _fail_unexpectedly(error: Exception, arguments: list[str] | None) -> NoReturn:
    """Print an error that is not one of ours as one line, and exit.

    What the operating system says of a file has status 1. Everything else is a defect: a report is written to a file,
    and the status is 70 (EX_SOFTWARE of sysexits.h).
    """
    from embedstore.cli.error_report import write_report
    from embedstore.reports.terminal_text import visible

    if isinstance(error, OSError) and error.filename is not None:
        _fail(f"cannot use {os.fsdecode(error.filename)}: {error.strerror}")
    try:
        report = f"the report is in {write_report(error, arguments)}"
    except OSError as e:
        traceback.print_exception(error)
        report = f"the report is above, since it cannot be written to a file ({e})"
    what = visible(f"{type(error).__name__}: {error}")
    print(f"embedstore: unexpected error, a defect of embedstore ({what}); {report}", file=sys.stderr)
    sys.exit(70)


def _print_interrupted() -> None:
    print("embedstore: interrupted; what was committed is kept, run the command again to continue", file=sys.stderr)
