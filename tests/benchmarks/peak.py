"""Run work in other processes: measure its peak memory, and report a failure in one line."""

from __future__ import annotations

import json
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


def measured(work: Callable[..., Any], *arguments: Any) -> tuple[Any, float, float]:
    """Return ``(result, seconds, peak resident GiB)`` of a call in a fresh interpreter."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run_child, args=(sender, work, arguments))
    child.start()
    sender.close()
    out = json.loads(receiver.recv())
    child.join()
    return out["value"], out["seconds"], out["peak"]


def _run_child(pipe: Any, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Run the work and send its result and its cost."""
    begin = time.perf_counter()
    value = work(*arguments)
    seconds = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    pipe.send(json.dumps({"value": value, "seconds": seconds, "peak": peak}))


def last_line(run: subprocess.CompletedProcess[str]) -> str:
    """Return the last line that a failed process wrote to stderr: the error at the end of a traceback."""
    lines = run.stderr.strip().splitlines()
    return lines[-1] if lines else f"exit status {run.returncode}"
