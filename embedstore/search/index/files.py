"""Index files: written once, never changed, each with a JSON sidecar that says what it is; unusable ones are passed by.

A FAISS file has no checksum of its own: most damaged ones load and answer wrongly. So nothing is loaded whose bytes,
space, dimension or shards are not those of its sidecar. Ids in an index are row numbers over the shards that the
sidecar lists, in that order; since shards are ordered by number and later ones are added behind, these are the first
positions of the space, whatever was added since.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import xxhash

from embedstore.errors import StoreDamaged
from embedstore.search.index.approximate import InvertedLists, enable_parallel_search
from embedstore.search.index.faiss_library import faiss
from embedstore.storage import durable_files

SIDECAR_FORMAT = 2  # 1 held its rows as residuals, and was measured with other numbers of proposals
_LIMIT = 1 << 40  # bytes one vector inside an index file may claim
FolderState = tuple[tuple[str, int, int], ...]

_SIDECAR = 16 << 20  # bytes: half a million vector files


@dataclass(frozen=True)
class IndexSidecar:
    """What an index file is.

    Attributes:
        file: its name. xxh3: XXH3-128 of its bytes. bytes: its length.
        space: key of the space. dim, metric: of its vectors ("cosine": they were scaled to length 1).
        shards: ``[number, rows]`` of every shard it covers, in order. rows: their sum.
        kind: flat, hnsw or ivf. setting: the FAISS factory string. probe: efSearch or nprobe, as measured.
        recall: recall@10 against exact search. queries: rows it was measured with. target: what was asked for.
        ms: of one query, measured. memory: bytes it takes when loaded.
        lossless: it holds the rows as the vector files do, so that its scores are theirs.
    """

    file: str
    xxh3: str
    bytes: int
    space: str
    dim: int
    metric: str
    shards: list[list[int]]
    rows: int
    kind: str
    setting: str
    probe: int
    recall: float
    queries: int
    target: float
    ms: float
    memory: int
    lossless: bool
    seconds: float
    created: str
    format: int = SIDECAR_FORMAT


@dataclass(frozen=True)
class LoadedIndex:
    """A sidecar and its loaded FAISS index."""

    sidecar: IndexSidecar
    faiss: Any

    @cached_property
    def inverted_lists(self) -> InvertedLists | None:
        """Of an IVF: which row stands where."""
        return InvertedLists.from_index(self.faiss)


@dataclass(frozen=True)
class IndexLookup:
    """The index to use, or None, and why others were passed by."""

    index: LoadedIndex | None
    notes: tuple[str, ...]


def folder_state(folder: Path) -> FolderState:
    """Names, sizes and times of an index folder: it changes whenever an index does."""
    try:
        with os.scandir(folder) as found:
            stats = [(entry.name, entry.stat()) for entry in found]
    except (
        OSError
    ):  # there is none, or one of its files has just been removed: by a look at nothing it is looked up anew
        return ()
    return tuple(sorted((name, s.st_size, s.st_mtime_ns) for name, s in stats))


def write_index(folder: Path, index: Any, sidecar_fields: dict[str, Any]) -> IndexSidecar:
    """Write an index and its sidecar under temporary names, force them to the disk, and rename them into place.

    Args:
        folder: of the space's indexes. index: a FAISS index.
        facts: the sidecar's fields but file, xxh3 and bytes.

    Raises:
        OSError: the disk is full or fails; nothing is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{os.getpid()}.faiss.tmp"
    note = folder / f".{os.getpid()}.json.tmp"
    try:
        digest = _written(index, temporary)
        name = f"{sidecar_fields['kind']}-{sidecar_fields['rows']}-{digest[:8]}"
        sidecar = IndexSidecar(file=f"{name}.faiss", xxh3=digest, bytes=temporary.stat().st_size, **sidecar_fields)
        note.write_text(json.dumps(asdict(sidecar), indent=1) + "\n")
        durable_files.sync_file(note)
        for path, final in ((temporary, sidecar.file), (note, f"{name}.json")):
            path.replace(folder / final)
            durable_files.sync_folder(folder)  # a sidecar never stands there alone, also after a power cut
    except BaseException:
        temporary.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        raise
    durable_files.sync_folder(folder.parent)  # of the first index, its folder is new too
    return sidecar


def _written(index: Any, path: Path) -> str:
    """Write an index through a file of ours (FAISS's own does not notice a disk that is full at its end); its XXH3-128.

    Raises:
        OSError: the disk refuses.
    """
    h, refused = xxhash.xxh3_128(), list[OSError]()

    def put(data: bytes) -> int:
        try:
            if not refused:
                f.write(data)
                h.update(data)
        except OSError as e:  # FAISS would make something else of it
            refused.append(e)
        return len(data)

    with path.open("wb") as f:
        faiss().write_index(index, faiss().PyCallbackIOWriter(put))
        if refused:
            raise refused[0]
        f.flush()
        os.fsync(f.fileno())
    return h.hexdigest()


def read_sidecars(folder: Path) -> list[tuple[Path, IndexSidecar | str]]:
    """Every sidecar of a folder, newest first; a text says why one cannot be read."""
    found: list[tuple[Path, IndexSidecar | str]] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            known = json.loads(_text(path))
            found.append(
                (path, IndexSidecar(**known) if known["format"] == SIDECAR_FORMAT else f"has format {known['format']}")
            )
        except (OSError, ValueError, TypeError, KeyError) as e:
            found.append((path, f"cannot be read ({type(e).__name__})"))
    return sorted(found, key=lambda f: "" if isinstance(f[1], str) else f[1].created, reverse=True)


def find_usable_index(folder: Path, *, space: str, dim: int, shards: Sequence[tuple[int, int]]) -> IndexLookup:
    """The usable index that covers most rows; the newest among equals.

    Args:
        folder: of the space's indexes. space, dim: of the space.
        shards: ``(number, rows)`` of the generation that is searched, ordered by number.
    """
    notes: list[str] = []
    good: list[tuple[int, Path, IndexSidecar]] = []
    for path, sidecar in read_sidecars(folder):
        problem = sidecar if isinstance(sidecar, str) else mismatch_reason(sidecar, space, dim, shards)
        if problem or isinstance(sidecar, str):
            notes.append(f"index {path.name} {problem}; it was passed by: `embedstore index` makes a new one")
        else:
            good.append((sidecar.rows, path, sidecar))
    for _, path, sidecar in sorted(good, key=lambda g: g[0], reverse=True):
        try:
            return IndexLookup(LoadedIndex(sidecar, load_index(folder, sidecar)), tuple(notes))
        except StoreDamaged as e:
            notes.append(f"index {path.name} {e}; it was passed by: `embedstore index` makes a new one")
    return IndexLookup(None, tuple(notes))


def load_index(folder: Path, sidecar: IndexSidecar) -> Any:
    """A FAISS index, mapped, whose every byte was compared with its checksum (once in a process).

    Raises:
        StoreDamaged: the file is missing, or not the one the sidecar describes.
    """
    path = folder / sidecar.file
    if Path(sidecar.file).name != sidecar.file or not path.is_file():
        raise StoreDamaged("has lost its .faiss file")
    stat = path.stat()
    return _loaded(path, sidecar.xxh3, sidecar.rows, sidecar.dim, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=8)
def _loaded(path: Path, xxh3: str, rows: int, dim: int, _identity: tuple[int, ...]) -> Any:
    """Check, then map."""
    if durable_files.file_xxh3(path) != xxh3:
        raise StoreDamaged("does not match its checksum")
    faiss().set_deserialization_vector_byte_limit(_LIMIT)
    try:
        index = faiss().read_index(str(path), faiss().IO_FLAG_MMAP_IFC)
    except RuntimeError as e:
        raise StoreDamaged("cannot be read by FAISS") from e
    if (index.ntotal, index.d) != (rows, dim):
        raise StoreDamaged(f"holds {index.ntotal} rows of {index.d}, its sidecar says {rows} of {dim}")
    return enable_parallel_search(index)


def remove_indexes(folder: Path, keep_file: str | None = None) -> None:
    """Remove every index but one, sidecars first (an index without a sidecar is never used)."""
    for suffix in (".json", ".faiss"):
        for path in list(folder.glob(f"*{suffix}")) if folder.is_dir() else []:
            if keep_file is None or path.stem != Path(keep_file).stem:
                path.unlink(missing_ok=True)
        if folder.is_dir():
            durable_files.sync_folder(folder)


def mismatch_reason(sidecar: IndexSidecar, space: str, dim: int, shards: Sequence[tuple[int, int]]) -> str | None:
    """Why an index does not fit what is searched, or None."""
    if (sidecar.space, sidecar.dim) != (space, dim):
        return f"is of space {sidecar.space} (D={sidecar.dim}), this is {space} (D={dim})"
    if not covers_prefix(sidecar, shards):
        return "covers vector files that were merged or removed since"
    return None


def _text(path: Path) -> bytes:
    """A sidecar's bytes.

    Raises:
        ValueError: it is longer than any sidecar.
    """
    with path.open("rb") as f:
        data = f.read(_SIDECAR + 1)
    if len(data) > _SIDECAR:
        raise ValueError("too long")
    return data


def covers_prefix(sidecar: IndexSidecar, shards: Sequence[tuple[int, int]]) -> bool:
    """The vector files an index was made of are still the first ones."""
    return list(shards[: len(sidecar.shards)]) == [tuple(s) for s in sidecar.shards]


def file_problem(folder: Path, sidecar: IndexSidecar) -> str | None:
    """The index file is not there in its length, or None."""
    path = folder / sidecar.file
    return None if path.is_file() and path.stat().st_size == sidecar.bytes else "has lost its .faiss file"
