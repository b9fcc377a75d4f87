"""Vectors of items that no store holds: read -> decode -> forward as in an embedding run, without a commit."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.pipeline.decode import DecodeSettings, open_prepared_files
from embedstore.pipeline.forward import BatchEncoder, EncodedBatch, ForwardStage
from embedstore.pipeline.plan import PlanCounts, PlannedFile
from embedstore.pipeline.read import GROUP_FILES
from embedstore.pipeline.stage_times import StageTimers
from embedstore.sources.source import Source
from embedstore.types import Failure, ImageRef


@dataclass(frozen=True, slots=True)
class UnstoredImage:
    """One image of a source.

    Attributes:
        uri: its name.
        vector: float32 ``(D,)``, or None if it failed.
        failure: why it has no vector.
    """

    uri: str
    vector: NDArray[np.float32] | None
    failure: Failure | None


class ListedFiles:
    """The plan of a run without a store: every file is read, and no content is known.

    Args:
        refs: the files.
    """

    def __init__(self, refs: Sequence[ImageRef]) -> None:
        self.counts = PlanCounts(len(refs), len(refs), unchanged=0, known_failures=0, new_failures=0, skipped={})
        self._refs = refs

    def todo(self, chunk_rows: int) -> Iterator[list[PlannedFile]]:
        """Yield the files in order, at most ``chunk_rows`` at a time."""
        for first in range(0, len(self._refs), chunk_rows):
            yield [PlannedFile(ref, None) for ref in self._refs[first : first + chunk_rows]]

    def known(self, digests: Sequence[str]) -> set[str]:
        """Return no content: none has a vector."""
        return set()

    def learn(self, digests: Sequence[str]) -> None:
        """Forget the contents: a later copy is decoded again."""

    def claim_renamed(self, digests: Sequence[str | None]) -> list[int | None]:
        """Return no item for any file."""
        return [None] * len(digests)


@dataclass(frozen=True)
class FixedBatches:
    """An encoder of queries as the stage "forward" needs it.

    Attributes:
        encode: from the inputs of B items to float32 vectors ``(B, D)``.
        batch_size: items in one batch.
        concurrency: batches at once.
        notices: none: what a person should know about the choices of a run, of which there are none.
    """

    encode: Callable[[list[Any]], NDArray[np.float32]]
    batch_size: int = 16
    concurrency: int = 1
    notices: tuple[str, ...] = ()


def encode_unstored(
    source: Source, entries: Sequence[ImageRef | Failure], encoder: BatchEncoder, settings: DecodeSettings
) -> Iterator[UnstoredImage]:
    """Yield every entry of a scan with its vector, in order; one bad file costs one file.

    Args:
        source: reads the files.
        entries: the entries of its scan.
        encoder: from inputs to vectors.
        settings: how files are decoded.
    """
    files = _encode(source, ListedFiles([e for e in entries if isinstance(e, ImageRef)]), encoder, settings)
    with closing(files):
        for entry in entries:
            yield UnstoredImage(entry.uri, None, entry) if isinstance(entry, Failure) else next(files)


def _encode(
    source: Source, plan: ListedFiles, encoder: BatchEncoder, settings: DecodeSettings
) -> Generator[UnstoredImage]:
    """Yield every file with its vector; copies in one group are decoded once."""
    recent: dict[str, NDArray[np.float32]] = {}
    with (
        open_prepared_files(source, plan, settings, stop_requested=lambda: False, timers=StageTimers()) as files,
        closing(ForwardStage(encoder, max_files=GROUP_FILES)) as forward,
    ):
        for batch in forward.run(files):
            recent |= _vectors_by_digest(batch)
            for file in batch.files:
                vector = None if file.failure else recent[file.digest]
                yield UnstoredImage(file.planned.ref.uri, vector, file.failure)
            for digest in list(recent)[: -2 * GROUP_FILES]:
                del recent[digest]


def _vectors_by_digest(batch: EncodedBatch) -> dict[str, NDArray[np.float32]]:
    """Return the vector of each content that was computed."""
    if batch.vectors is None:
        return {}
    return dict(zip((f.digest for f in batch.files if f.input is not None), batch.vectors, strict=True))
