"""An approximate index of a space: built from its vector files, measured against exact search, kept if it is good."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.errors import QueryError
from embedstore.search.index import approximate, files
from embedstore.search.index.approximate import IndexSettings
from embedstore.search.index.faiss_library import faiss
from embedstore.storage import disk_errors
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.storage import Storage
from embedstore.storage.vectors import BLOCK_ROWS, VectorReader

RECALL_QUERIES = 200  # held-out rows that recall is measured with: its standard error at 0.95 is under 0.5%
_NEAREST = 10  # of each, that an index should find
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
ProgressCallback = Callable[[str], None]


@dataclass(frozen=True)
class IndexBuild:
    """What a build made.

    Attributes:
        sidecar: of the index kept. tried: settings that missed, one sentence each.
    """

    sidecar: files.IndexSidecar
    tried: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**_told(self.sidecar), "tried": list(self.tried)}


def build_index(
    storage: Storage,
    space: SpaceRecord,
    *,
    recall: float = 0.95,
    max_memory: str | int = "4GB",
    kind: str | None = None,
    progress: ProgressCallback = lambda _: None,
) -> IndexBuild:
    """Build the first index that fits the memory and reaches the recall; older ones of the space are removed.

    Searches go on meanwhile, and so do writers: rows added since are searched beside the index.

    Args:
        storage, space: what to index.
        recall: of the exact ten nearest, how many a search must find, on average.
        max_memory: of the index, loaded or while it is built: bytes, or text such as ``4GB``.
        kind: flat, hnsw or ivf; None chooses.
        report: called with a sentence at every step.

    Raises:
        QueryError: nothing to index, an impossible target, or nothing reaches it.
        StoreIOError: the disk is full.
    """
    if not 0 < recall <= 1:
        raise QueryError(f"recall is above 0 and at most 1, not {recall}")
    if kind not in (None, "flat", "hnsw", "ivf"):
        raise QueryError(f"an index is flat, hnsw or ivf, not {kind!r}")
    vectors = storage.vector_reader(space.space).map_shards()
    if not len(vectors):
        raise QueryError(f"space {space.name} has no vectors to index yet")
    memory = parse_size(max_memory)
    possible = approximate.candidate_settings(len(vectors), vectors.dim, recall=recall, memory_bytes=memory, kind=kind)
    if not possible:
        raise QueryError(f"no index of {len(vectors):,} × {vectors.dim} fits {max_memory}; allow more memory")
    order = np.random.default_rng(0).permutation(len(vectors))
    truth = _Truth.of(vectors, np.sort(order[:RECALL_QUERIES]))
    others = order[RECALL_QUERIES:] if len(order) > 2 * RECALL_QUERIES else order
    tried: list[str] = []
    for setting in possible:
        begin = time.perf_counter()
        index = _built(setting, vectors, np.sort(others[: setting.training_rows]), space.space.unit, progress)
        probe, found, ms = _tuned(index, setting, truth, recall)
        seconds = time.perf_counter() - begin
        if found >= recall:
            measured = {
                "probe": probe, "recall": round(found, 4), "queries": len(truth.own), "target": recall,
                "ms": round(ms, 3), "seconds": round(seconds, 2),
            }  # fmt: skip
            facts = _facts(space, vectors, setting) | measured
            return IndexBuild(_kept(storage, space, index, facts), tuple(tried))
        tried.append(f"{setting.factory} reached recall {found:.3f} of {recall} in {seconds:.0f} s")
        progress(f"{tried[-1]}: trying the next setting")
    raise QueryError(f"no index within {max_memory} reaches recall {recall}: {'; '.join(tried)}")


def list_indexes(storage: Storage) -> list[dict[str, Any]]:
    """Every index of every space: what its sidecar says, and whether it can be used as the store stands."""
    out = []
    for space in storage.spaces():
        folder = storage.layout.index_folder(space.key)
        shards = storage.vector_reader(space.space).shard_sizes
        for path, sidecar in files.read_sidecars(folder):
            if isinstance(sidecar, str):
                out.append({"space": space.name, "file": path.name, "usable": False, "why": sidecar})
                continue
            why = files.mismatch_reason(sidecar, space.key, space.space.dim, shards) or files.file_problem(
                folder, sidecar
            )
            since = sum(rows for _, rows in shards) - sidecar.rows
            out.append({**_told(sidecar), "space": space.name, "usable": why is None, "why": why, "rows_since": since})
    return out


def indexes_match_shards(storage: Storage, space: SpaceRecord) -> bool:
    """No index of the space covers vector files that are gone, and so may hold vectors that were wiped."""
    shards = storage.vector_reader(space.space).shard_sizes
    found = [s for _, s in files.read_sidecars(storage.layout.index_folder(space.key))]
    return all(isinstance(s, files.IndexSidecar) and files.covers_prefix(s, shards) for s in found)


def rebuild_index(
    storage: Storage, space: SpaceRecord, *, progress: ProgressCallback = lambda _: None
) -> IndexBuild | None:
    """Remove a space's indexes and build the newest again with its own settings; None where there is none.

    Raises:
        QueryError: it does not reach its recall any more; there is no index then.
    """
    known = [
        s for _, s in files.read_sidecars(storage.layout.index_folder(space.key)) if isinstance(s, files.IndexSidecar)
    ]
    if not known:
        return None
    with disk_errors.disk_errors(f"remove an index from {storage.layout.index_folder(space.key)}"):
        files.remove_indexes(storage.layout.index_folder(space.key))  # first: it may hold vectors that were wiped
    if not len(storage.vector_reader(space.space)):
        return None
    last = known[0]
    return build_index(
        storage,
        space,
        recall=last.target,
        max_memory=rebuild_memory_bytes(last.memory, space.space.dim),
        kind=last.kind,
        progress=progress,
    )


def repair_index(storage: Storage, space: SpaceRecord) -> IndexBuild | None:
    """Build a space's index again where it has one that cannot be used; None where there is nothing to do.

    With the settings of the newest whose sidecar can be read, else with the usual ones.

    Raises:
        QueryError: it does not reach its recall any more; there is no index then.
    """
    folder, vectors = storage.layout.index_folder(space.key), storage.vector_reader(space.space)
    if not (folder.is_dir() and any(p.suffix in (".json", ".faiss") for p in folder.iterdir())):
        return None
    found = files.find_usable_index(folder, space=space.key, dim=vectors.dim, shards=vectors.shard_sizes)
    if found.index is not None and not found.notes:
        return None
    return rebuild_index(storage, space) or (build_index(storage, space) if len(vectors) else None)


def rebuild_memory_bytes(memory: int, dim: int) -> int:
    """Bytes in which an index that takes ``memory`` when loaded can be built again, k-means at its least included."""
    return max(4 * memory, approximate.MIN_TRAINING_BYTES_PER_DIM * dim)


def parse_size(size: str | int) -> int:
    """Bytes of ``4GB``, ``500 MB``, ``1.5G`` or a number.

    Raises:
        QueryError: it is no size.
    """
    found = re.fullmatch(r"\s*([0-9.]+)\s*([KMGT]?)i?B?\s*", str(size), re.IGNORECASE)
    try:
        return int(float(found[1]) * _UNITS[found[2].upper()]) if found else int(size)
    except ValueError:
        raise QueryError(f"a size is written as 4GB or 500MB, not {size!r}") from None


@dataclass(frozen=True)
class _Truth:
    """Held-out queries and their ten nearest rows, themselves left out."""

    queries: NDArray[np.float32]
    own: NDArray[np.int64]
    nearest: list[set[int]]

    @classmethod
    def of(cls, vectors: VectorReader, held_out: NDArray[np.int64]) -> _Truth:
        """By exact search for all of them at once, block by block."""
        queries = _scaled(vectors.read_float32(held_out))
        scores = np.full((len(queries), _NEAREST + 1), -np.inf, np.float32)
        places = np.full(scores.shape, -1, np.int64)
        for first, rows in vectors.iter_blocks():
            found, where = faiss().knn(queries, _scaled(rows), len(scores[0]), metric=faiss().METRIC_INNER_PRODUCT)
            found[where < 0] = -np.inf
            both = np.hstack([scores, found]), np.hstack([places, np.where(where < 0, -1, where + first)])
            best = np.argsort(-both[0], axis=1, kind="stable")[:, : _NEAREST + 1]
            scores, places = (np.take_along_axis(a, best, axis=1) for a in both)
        nearest = [
            set([p for p in row if p not in (own, -1)][:_NEAREST])
            for row, own in zip(places.tolist(), held_out.tolist(), strict=True)
        ]
        return cls(queries, held_out, nearest)


def _built(
    setting: IndexSettings, vectors: VectorReader, sample: NDArray[np.int64], unit: bool, report: ProgressCallback
) -> Any:
    """One index, whole, trained with the rows at some positions; rows that have length 1 are taken as they are."""
    report(f"building {setting.factory} over {len(vectors):,} rows")
    index = approximate.train_index(setting, _gathered(vectors, sample))
    last = time.monotonic()
    for first, rows in vectors.iter_blocks():
        index.add(rows if unit else _scaled(rows))
        if time.monotonic() - last > 5:  # seconds between two signs of life
            last = time.monotonic()
            report(f"{setting.factory}: {first + len(rows):,} of {len(vectors):,} rows")
    return approximate.link_centroids(index)


def _gathered(vectors: VectorReader, positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Unit rows at ascending positions; the files are not kept in memory."""
    out = np.empty((len(positions), vectors.dim), np.float32)
    for begin in range(0, len(positions), BLOCK_ROWS):
        part = slice(begin, begin + BLOCK_ROWS)
        out[part] = _scaled(vectors.read_float32(positions[part]))
        vectors.release_memory()
    return out


def _scaled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1."""
    scaled: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


def _tuned(index: Any, setting: IndexSettings, truth: _Truth, target: float) -> tuple[int, float, float]:
    """``(probe, recall, milliseconds a query)`` of the cheapest probe that reaches the target, else of the best."""
    probe, recall, ms, count = (
        0,
        0.0,
        0.0,
        approximate.proposal_count(approximate.RANK_TIERS[0], lossless=setting.lossless),
    )
    for probe in setting.probes:
        begin = time.perf_counter()
        found = [approximate.propose_rows(index, q, count, probe=probe) for q in truth.queries]
        ms = 1000 * (time.perf_counter() - begin) / len(found)
        hits = sum(len(near & set(f.tolist())) for near, (_, f) in zip(truth.nearest, found, strict=True))
        recall = hits / max(1, sum(len(near) for near in truth.nearest)) if any(truth.nearest) else 1.0
        if recall >= target:
            break
    return probe, recall, ms


def _facts(space: SpaceRecord, vectors: VectorReader, setting: IndexSettings) -> dict[str, Any]:
    """The sidecar's fields that are not measured."""
    return {
        "space": space.key, "dim": vectors.dim, "metric": "cosine", "shards": [list(c) for c in vectors.shard_sizes],
        "rows": len(vectors), "kind": setting.kind, "setting": setting.factory, "memory": setting.memory,
        "lossless": setting.lossless and space.space.unit and space.dtype == "float16",
        "created": datetime.now(UTC).isoformat(),
    }  # fmt: skip


def _kept(storage: Storage, space: SpaceRecord, index: Any, facts: dict[str, Any]) -> files.IndexSidecar:
    """Write the index, then remove the older ones."""
    folder = storage.layout.index_folder(space.key)
    with disk_errors.disk_errors(f"write an index to {folder}"):
        sidecar = files.write_index(folder, index, facts)
        files.remove_indexes(folder, keep_file=sidecar.file)
    return sidecar


def _told(sidecar: files.IndexSidecar) -> dict[str, Any]:
    """A sidecar without its list of vector files."""
    return {k: v for k, v in asdict(sidecar).items() if k not in ("shards", "format")}
