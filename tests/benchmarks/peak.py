"""The peak memory of one piece of work, in a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def measured(work: Callable[..., Any], *given: Any) -> tuple[Any, float, float]:
    """``(what it returned, seconds, peak resident GiB)`` of a call in a fresh interpreter."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=_child, args=(there, work, given))
    child.start()
    there.close()
    out = json.loads(here.recv())
    child.join()
    return out["value"], out["seconds"], out["peak"]


def _child(pipe: Any, work: Callable[..., Any], given: tuple[Any, ...]) -> None:
    """Work, and say what it took."""
    begin = time.perf_counter()
    value = work(*given)
    seconds = time.perf_counter() - begin
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
    pipe.send(json.dumps({"value": value, "seconds": seconds, "peak": peak}))
