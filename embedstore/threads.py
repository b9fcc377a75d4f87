"""Work in parts on the cores of this process: a thread per core, in which linear algebra uses that thread only.

The threads of OpenBLAS and OpenMP wait actively for each other at the end of every product. Where another program uses
a core, a fit of many small products took 75 s of processor time with two such threads, and 16 s with one.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import chain, islice
from threading import Lock, local
from typing import Any, TypeVar

from embedstore.resources import available_cores

Part = TypeVar("Part")
Result = TypeVar("Result")

_AHEAD = 2  # parts per thread that are begun before the result of the first is taken
_ALGEBRA = frozenset({"faiss", "scipy.linalg", "sklearn", "torch"})  # packages that bring libraries of their own


def map_parts(work: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
    """Yield the result of each part, in order; a few parts are computed ahead.

    A single part is computed by the caller's thread, and so are the parts of what is itself a part.

    Args:
        work: computes a part in a thread of its own; it must release the GIL to use more than one core, as NumPy and
            FAISS do.
        parts: what is computed.
    """
    parts = iter(parts)
    first = list(islice(parts, 2))
    if len(first) < 2 or hasattr(_thread, "computes_parts"):
        yield from map(work, chain(first, parts))
        return
    threads = available_cores()
    waiting: deque[Future[Result]] = deque()
    with single_threaded_algebra(), ThreadPoolExecutor(threads, "parts", initializer=_start_thread) as pool:
        try:
            for part in chain(first, parts):
                waiting.append(pool.submit(work, part))
                if len(waiting) >= _AHEAD * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def single_threaded_algebra() -> Iterator[None]:
    """Let matrix products use the thread that calls them only; several threads may do so at once."""
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


class _SharedLimit:
    """The limit of one thread, which is set for the process: the last one to leave removes it."""

    def __init__(self) -> None:
        self._lock, self._inside, self._limiter = Lock(), 0, None

    def enter(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._limiter = _libraries().limit(limits=1)
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._limiter.restore_original_limits()  # type: ignore[attr-defined]


_limit, _thread = _SharedLimit(), local()


def _start_thread() -> None:
    """Limit OpenMP in a new thread: its limits are those of a thread, where OpenBLAS has one for the process."""
    _thread.computes_parts = True
    for library in _libraries().lib_controllers:
        if library.user_api == "openmp":
            library.set_num_threads(1)


def _libraries() -> Any:
    """Return the thread pools of the libraries of linear algebra that are loaded."""
    return _libraries_of(_ALGEBRA.intersection(sys.modules))


@cache
def _libraries_of(_loaded: frozenset[str]) -> Any:
    """Return the same, searched for once per set of loaded packages: that takes 5 ms."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # comes with scikit-learn

    return ThreadpoolController()
