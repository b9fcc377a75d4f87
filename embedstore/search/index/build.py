"""Build an approximate index from the vector files of a space, and keep it if its measured recall is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.arrays import unit_rows
from embedstore.errors import QueryError
from embedstore.resources import memory_share
from embedstore.search.index import approximate, files
from embedstore.search.index.approximate import IndexSettings
from embedstore.search.index.files import IndexSidecar
from embedstore.search.index.recall import RECALL_QUERIES, GroundTruth, ProbeTuning
from embedstore.storage.disk_errors import disk_errors
from embedstore.storage.layout import DERIVED_LOCK
from embedstore.storage.lock import writer_lock
from embedstore.storage.query_limits import parse_size, size_text
from embedstore.storage.reading import list_folder
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, VectorReader
from embedstore.tables import OneRow
from embedstore.wording import counted

_MEMORY_BYTES = 4 << 30  # for an index, unless the user says more
KINDS = ("flat", "hnsw", "ivf")
_PROGRESS_SECONDS = 5  # between two messages while rows are added
ProgressCallback = Callable[[str], None]


def _no_progress(message: str) -> None:
    """Ignore a message."""


@dataclass(frozen=True)
class IndexInfo:
    """An index as ``info`` shows it.

    Attributes:
        space: the name of the space.
        file: the name of the index file; that of its description where this cannot be read.
        usable: whether searches use it.
        why: why they do not; None if they do.
        rows_since: how many rows were added since; None where the description cannot be read.
        sidecar: facts of the index: its recall, its rows, how it was built; None where they cannot be read.
    """

    space: str
    file: str
    usable: bool
    why: str | None
    rows_since: int | None = None
    sidecar: IndexSidecar | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values in one level; of an index whose description cannot be read what is known."""
        facts = {"space": self.space, "file": self.file, "usable": self.usable, "why": self.why}
        if self.sidecar is None:
            return facts
        return _sidecar_json(self.sidecar) | facts | {"rows_since": self.rows_since}


@dataclass(frozen=True)
class IndexBuild(OneRow):
    """The result of a build.

    Attributes:
        sidecar: facts of the index.
        rejected_settings: settings that missed the recall, one sentence each.
    """

    sidecar: IndexSidecar
    rejected_settings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**_sidecar_json(self.sidecar), "tried": list(self.rejected_settings)}


@dataclass(frozen=True)
class IndexTarget:
    """What an index should reach.

    Attributes:
        recall: the share of the exact ten nearest rows that a search finds, on average.
        max_memory: memory of the index, loaded or while it is built: bytes, or text such as ``4GB``. None is 4 GiB, or
            half of the memory of this process where that is less.
        kind: flat, hnsw or ivf; None chooses.
    """

    recall: float = 0.95
    max_memory: str | int | None = None
    kind: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.recall <= 1:
            raise QueryError(f"recall is above 0 and at most 1, not {self.recall}")
        if self.kind not in (None, *KINDS):
            raise QueryError(f"an index is {', '.join(KINDS[:-1])} or {KINDS[-1]}, not {self.kind!r}")
        _ = self.memory_bytes

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return memory_share(_MEMORY_BYTES, 2) if self.max_memory is None else parse_size(self.max_memory)

    def candidates(self, vectors: VectorReader) -> list[IndexSettings]:
        """Return the settings to try, the most promising first.

        Raises:
            QueryError: if no index fits the memory.
        """
        rows, memory = len(vectors), self.memory_bytes
        settings = approximate.candidate_settings(
            rows, vectors.dim, recall=self.recall, memory_bytes=memory, kind=self.kind
        )
        if not settings:
            raise QueryError(
                f"no index of {rows:,} × {vectors.dim} fits {size_text(memory)}; allow more memory with --max-memory "
                "SIZE (in Python max_memory=)"
            )
        return settings


def build_index(
    storage: Storage,
    space: SpaceRecord,
    target: IndexTarget,
    *,
    progress: ProgressCallback = _no_progress,
    wait: float = 0.0,
) -> IndexBuild:
    """Build the first index that fits the memory and reaches the recall, and remove the space's older indexes.

    Searches and writers continue meanwhile: rows added later are searched next to the index.

    Args:
        storage: the store.
        space: the space.
        target: what the index should reach.
        progress: called with a sentence at every step.
        wait: seconds to wait for another build of this space.

    Raises:
        QueryError: if the space has no vectors, nothing fits the memory, or nothing reaches the recall.
        StoreBusy: if another build of this space is running.
        StoreIOError: if the disk is full or may not be written to.
    """
    with _build_lock(storage, space, wait):
        return _build(storage, space, target, progress)


def rebuild_index(
    storage: Storage, space: SpaceRecord, *, progress: ProgressCallback = _no_progress, wait: float = 0.0
) -> IndexBuild | None:
    """Remove the indexes of a space and build the newest again with its own settings.

    Args:
        storage: the store.
        space: the space.
        progress: called with a sentence at every step.
        wait: seconds to wait for another build of this space.

    Returns:
        The build; None where there is no index, or no vector to index.

    Raises:
        QueryError: if the index does not reach its recall any more; there is no index then.
        StoreBusy: if another build of this space is running.
        StoreIOError: if the disk is full or may not be written to.
    """
    folder = storage.layout.index_folder(space.key)
    if not _readable_sidecars(storage, space):
        return None
    with _build_lock(storage, space, wait):
        known = _readable_sidecars(storage, space)
        with disk_errors(f"remove an index from {folder}"):
            files.remove_indexes(folder)  # first: it may hold vectors that were wiped
        if not known or not len(storage.vector_reader(space.space)):
            return None
        memory = rebuild_memory_bytes(known[0].memory, space.space.dim)
        return _build(storage, space, IndexTarget(known[0].target, memory, known[0].kind), progress)


def repair_index(storage: Storage, space: SpaceRecord) -> IndexBuild | None:
    """Build the index of a space again where it cannot be used.

    The settings are those of the newest index whose sidecar can be read, else the default ones.

    Returns:
        The build; None where there was nothing to do.

    Raises:
        QueryError: if the index does not reach its recall any more; there is no index then.
        StoreUnreadable: if an index cannot be read now; it is left as it is.
    """
    folder, vectors = storage.layout.index_folder(space.key), storage.vector_reader(space.space)
    if not any(p.suffix in files.SUFFIXES for p in list_folder(folder)):
        return None
    lookup = files.find_usable_index(folder, space=space.key, dim=vectors.dim, shards=vectors.shard_sizes)
    if lookup.unread:
        raise lookup.unread[0]
    if lookup.index is not None and not lookup.notes:
        return None
    return rebuild_index(storage, space) or (build_index(storage, space, IndexTarget()) if len(vectors) else None)


def list_indexes(storage: Storage) -> list[IndexInfo]:
    """Return the facts of every index of every space, and whether it can be used with the vectors as they are now."""
    out: list[IndexInfo] = []
    for space in storage.spaces():
        folder = storage.layout.index_folder(space.key)
        shards = storage.vector_reader(space.space).shard_sizes
        for path, sidecar in files.read_sidecars(folder):
            if isinstance(sidecar, str):
                out.append(IndexInfo(space.name, path.name, usable=False, why=sidecar))
                continue
            problem = files.mismatch_reason(sidecar, space.key, space.space.dim, shards)
            problem = problem or files.file_problem(folder, sidecar)
            since = sum(rows for _, rows in shards) - sidecar.rows
            out.append(IndexInfo(space.name, sidecar.file, problem is None, problem, rows_since=since, sidecar=sidecar))
    return out


def indexes_match_shards(storage: Storage, space: SpaceRecord) -> bool:
    """Return whether every index of the space covers current vector files only, and so no vector that was wiped."""
    shards = storage.vector_reader(space.space).shard_sizes
    sidecars = [s for _, s in files.read_sidecars(storage.layout.index_folder(space.key))]
    return all(isinstance(s, IndexSidecar) and files.covers_prefix(s, shards) for s in sidecars)


def rebuild_memory_bytes(memory_bytes: int, dim: int) -> int:
    """Return the memory in which an index of a loaded size can be built again, with k-means at its least."""
    return max(4 * memory_bytes, approximate.MIN_TRAINING_BYTES_PER_DIM * dim)


@contextmanager
def _build_lock(storage: Storage, space: SpaceRecord, wait: float) -> Iterator[None]:
    """Hold the build lock of a space: two builds would remove each other's files. Writers do not take it."""
    folder = storage.layout.index_folder(space.key)
    with disk_errors(f"write an index to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder / DERIVED_LOCK, f"index {space.name}", wait=wait):
        yield


def _build(storage: Storage, space: SpaceRecord, target: IndexTarget, progress: ProgressCallback) -> IndexBuild:
    """Build an index while the build lock is held."""
    vectors = storage.vector_reader(space.space).map_shards()
    if not len(vectors):
        raise QueryError(f"space {space.name} has no vectors to index yet")
    candidates = target.candidates(vectors)
    order = np.random.default_rng(0).permutation(len(vectors))
    truth = GroundTruth.compute(vectors, np.sort(order[:RECALL_QUERIES]))
    training_order = order[RECALL_QUERIES:] if len(order) > 2 * RECALL_QUERIES else order
    rejected: list[str] = []
    for settings in candidates:
        begin = time.perf_counter()
        sample = np.sort(training_order[: settings.training_rows])
        index = _fill_index(settings, vectors, sample, progress, unit=space.space.unit)
        tuning = truth.tune(index, settings, target.recall)
        seconds = time.perf_counter() - begin
        if tuning.recall >= target.recall:
            fields = _sidecar_fields(space, vectors, settings) | _measured_fields(tuning, truth, target, seconds)
            return IndexBuild(_publish(storage, space, index, fields), tuple(rejected))
        rejected.append(f"{settings.factory} reached recall {tuning.recall:.3f} of {target.recall} in {seconds:.0f} s")
        progress(f"{rejected[-1]}: trying the next setting")
    raise QueryError(
        f"no index within {size_text(target.memory_bytes)} reaches recall {target.recall}: {'; '.join(rejected)}"
    )


def _fill_index(
    settings: IndexSettings,
    vectors: VectorReader,
    sample: NDArray[np.int64],
    progress: ProgressCallback,
    *,
    unit: bool,
) -> Any:
    """Return an index of all rows, trained with the rows at some positions; rows of length 1 are added unchanged."""
    progress(f"building {settings.factory} over {counted(len(vectors), 'row')}")
    index = approximate.train_index(settings, _read_unit_rows(vectors, sample))
    last = time.monotonic()
    for first, rows in vectors.iter_blocks():
        index.add(rows if unit else unit_rows(rows))
        if time.monotonic() - last > _PROGRESS_SECONDS:
            last = time.monotonic()
            progress(f"{settings.factory}: {first + len(rows):,} of {len(vectors):,} rows")
    return approximate.link_centroids(index)


def _read_unit_rows(vectors: VectorReader, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return unit rows at ascending positions, without keeping the files in memory."""
    out = np.empty((len(positions), vectors.dim), np.float32)
    for begin in range(0, len(positions), BLOCK_ROWS):
        part = slice(begin, begin + BLOCK_ROWS)
        out[part] = unit_rows(vectors.read_float32(positions[part]))
        vectors.release_memory()
    return out


def _sidecar_fields(space: SpaceRecord, vectors: VectorReader, settings: IndexSettings) -> dict[str, Any]:
    """Return the fields of the index's metadata file that are known before the build."""
    return {
        "space": space.key, "dim": vectors.dim, "metric": "cosine", "shards": [list(c) for c in vectors.shard_sizes],
        "rows": len(vectors), "kind": settings.kind, "setting": settings.factory, "memory": settings.memory_bytes,
        "lossless": settings.lossless and space.space.unit and space.dtype == "float16",
        "created": datetime.now(UTC).isoformat(),
    }  # fmt: skip


def _measured_fields(tuning: ProbeTuning, truth: GroundTruth, target: IndexTarget, seconds: float) -> dict[str, Any]:
    """Return the fields of the index's metadata file that were measured."""
    return {
        "probe": tuning.probe, "recall": round(tuning.recall, 4), "queries": len(truth.queries),
        "target": target.recall, "ms": round(tuning.milliseconds, 3), "seconds": round(seconds, 2),
    }  # fmt: skip


def _publish(storage: Storage, space: SpaceRecord, index: Any, fields: dict[str, Any]) -> IndexSidecar:
    """Write the index, then remove the older ones."""
    folder = storage.layout.index_folder(space.key)
    with disk_errors(f"write an index to {folder}"):
        sidecar = files.write_index(folder, index, fields)
        files.remove_indexes(folder, keep_file=sidecar.file)
    return sidecar


def _readable_sidecars(storage: Storage, space: SpaceRecord) -> Sequence[IndexSidecar]:
    """Return the sidecars of a space that can be read, newest first."""
    folder = storage.layout.index_folder(space.key)
    return [s for _, s in files.read_sidecars(folder) if isinstance(s, IndexSidecar)]


def _sidecar_json(sidecar: IndexSidecar) -> dict[str, Any]:
    """Return a sidecar as plain values without its list of vector files."""
    return {k: v for k, v in asdict(sidecar).items() if k not in ("shards", "format")}
