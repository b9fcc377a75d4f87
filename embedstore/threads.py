"""Work in parts on the cores of this process: a thread per core, in which linear algebra uses that thread only.

The threads of OpenBLAS and OpenMP wait actively for each other at the end of every product. Where another program uses
a core, a fit of many small products took 75 s of processor time with two such threads, and 16 s with one.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
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

    def limited(
        part: Part,
    ) -> Result:  # not around the whole: who leaves early may keep the iterator, as a traceback does
        with single_threaded_algebra():
            return work(part)

    pool = _kept_pool(threads)
    try:
        for part in chain(first, parts):
            waiting.append(pool.submit(limited, part))
            if len(waiting) >= _AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        wait(waiting)


def _kept_pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads that compute parts, which are kept: starting them took a tenth of a fit of many passes."""
    with _pools_lock:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads, "parts", initializer=_start_thread)
        return _pools[threads]


def _forget_pools() -> None:
    """Forget the threads of the parent after a fork, which do not exist in the child."""
    global _pools_lock  # noqa: PLW0603 - a thread that is not here may hold it
    _pools.clear()
    _pools_lock = Lock()


_pools: dict[int, ThreadPoolExecutor] = {}  # by their number of threads
_pools_lock = Lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pools)


@contextmanager
def single_threaded_algebra() -> Iterator[None]:
    """Let matrix products use the thread that calls them only; several threads may do so at once, in any order.

    OpenBLAS has one limit for the process, which the last one to leave removes; OpenMP has one for each thread.
    """
    libraries = _libraries().lib_controllers
    before = [(library, library.num_threads) for library in libraries if _is_per_thread(library)]
    _process_limit.enter([library for library in libraries if not _is_per_thread(library)])
    try:
        for library, _ in before:
            library.set_num_threads(1)
        yield
    finally:
        for library, threads in before:
            library.set_num_threads(threads)
        _process_limit.leave()


class _ProcessLimit:
    """The limit of one thread of the libraries that have one for the process: the last one to leave removes it."""

    def __init__(self) -> None:
        self._lock, self._inside = Lock(), 0
        self._before: dict[str, tuple[Any, int]] = {}

    def enter(self, libraries: Sequence[Any]) -> None:
        """Limit the libraries, also those that were loaded since another one entered."""
        with self._lock:
            self._inside += 1
            for library in libraries:
                if library.filepath not in self._before:
                    self._before[library.filepath] = library, library.num_threads
                    _set_for_process(library, 1)

    def leave(self) -> None:
        """Restore the numbers of threads, unless somebody else is inside."""
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                for library, threads in self._before.values():
                    _set_for_process(library, threads)
                self._before.clear()


_process_limit, _thread = _ProcessLimit(), local()


def _start_thread() -> None:
    """Note in a new thread that what it computes is a part."""
    _thread.computes_parts = True


def _set_for_process(library: Any, threads: int) -> None:
    """Set the limit of a process from any thread.

    threadpoolctl lets only the thread that set a limit change it, and ignores the others without a word: where the last
    thread to leave is not the first that entered, the process would keep one thread.
    """
    release = getattr(library, "clear_controlling_thread", None)  # since 3.7
    if release is not None:
        release(force=True)
    library.set_num_threads(threads)
    if release is not None:
        release(force=True)


def _is_per_thread(library: Any) -> bool:
    """Return whether a library has a limit for each thread: OpenMP, and an OpenBLAS that was built with it."""
    return library.user_api == "openmp" or getattr(library, "threading_layer", "") == "openmp"


def _libraries() -> Any:
    """Return the thread pools of the libraries of linear algebra that are loaded."""
    return _libraries_of(_ALGEBRA.intersection(sys.modules))


@cache
def _libraries_of(_loaded: frozenset[str]) -> Any:
    """Return the same, searched for once per set of loaded packages: that takes 5 ms."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # comes with scikit-learn

    return ThreadpoolController()
