"""Find the files that kill the process that embeds them: a range that kills its process is halved until one is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from embedstore.errors import ImageError, PartsError
from embedstore.storage.inbox.part_list import PartFile
from embedstore.storage.inbox.part_result import FileOutcome, PartResult, join_results
from embedstore.types import Failure, FailureReason

MAX_DEATHS = 200  # of processes of one part: about 16 files of 1,024 that kill
MAX_FIRST_DEATHS = 40  # before the first range that does not kill; one file costs at most 18 of a part of 65,536


class RangeProcess(Protocol):
    """A process that embeds ranges of the files of one part; one that died is replaced."""

    def embed(self, first: int, end: int) -> PartResult:
        """Return the result of the files from ``first`` to before ``end``.

        Raises:
            ImageError: if the process dies.
            PartsError: if it cannot embed for another reason.
        """


OpenProcess = Callable[[], AbstractContextManager[RangeProcess]]


def embed_without_killers(part: int, files: Sequence[PartFile], open_process: OpenProcess) -> PartResult:
    """Return the result of a part in which a file that kills its process alone is a failure.

    One death may be by chance, so a file is a failure at the second death: of a range that it was in, and alone.

    Args:
        part: the number of the part.
        files: its files.
        open_process: starts a process that embeds ranges of the part.

    Raises:
        PartsError: if the processes die too often for that, or cannot embed for another reason.
    """
    results: list[PartResult] = []
    ranges, deaths, decoder = [(0, len(files), False)], 0, ""
    with open_process() as process:
        while ranges:
            first, end, is_suspect = ranges.pop()
            try:
                results.append(process.embed(first, end))
                decoder = results[-1].decoder
            except ImageError as e:
                deaths += 1
                _require_few(part, deaths, MAX_DEATHS if decoder else MAX_FIRST_DEATHS, e)
                if is_suspect and end - first == 1:
                    results.append(_failure(part, files[first], e))
                else:
                    ranges += _halves(first, end)
    return replace(join_results(part, results), decoder=decoder)


def _halves(first: int, end: int) -> list[tuple[int, int, bool]]:
    """Return what is embedded in place of a range whose process died, the first half last."""
    middle = (first + end) // 2
    return [(a, b, True) for a, b in ((middle, end), (first, middle)) if a < b]


def _failure(part: int, file: PartFile, error: ImageError) -> PartResult:
    """Return the result of a file that kills its process."""
    failure = Failure.from_ref(file.ref, FailureReason.CRASHED, error.detail)
    return PartResult(part, "", [FileOutcome("", failure=failure)])


def _require_few(part: int, deaths: int, most: int, error: ImageError) -> None:
    """Require that processes died so rarely that files may be the cause."""
    if deaths > most:
        raise PartsError(
            f"part {part} cannot be embedded: {deaths} processes died in it ({error.detail}); look for what kills "
            "them, such as too little memory, and run it again"
        ) from error
