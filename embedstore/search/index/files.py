"""Index files: written once and never changed, each with a JSON sidecar that describes it. Unusable ones are ignored.

A FAISS file has no checksum: most damaged ones load and answer wrongly. So no file is loaded unless its bytes, space,
dimension and shards are those of its sidecar, and its content is an index that embedstore writes: somebody else's file
may have a sidecar that fits. Ids in an index are row numbers over the shards that the sidecar lists,
in that order. Shards are ordered by number and later ones come last, so these are the first positions of the space,
whatever was added since.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import xxhash

from embedstore.errors import StoreDamaged, StoreUnreadable
from embedstore.search.index.approximate import InvertedLists, enable_parallel_search
from embedstore.search.index.faiss_format import check_index_file
from embedstore.search.index.faiss_library import faiss
from embedstore.storage import durable_files
from embedstore.storage.description_checksum import DESCRIPTION_CHECKSUM_KEY, check_index_description, dump_description
from embedstore.storage.reading import exists, file_size, is_file, list_folder, passing_error, read_errors, unreadable
from embedstore.storage.store_files import read_json_object

SIDECAR_FORMAT = 3  # with a checksum of its own
_READABLE_FORMATS = (2, 3)  # format 1 stored rows as residuals, and was measured with other numbers of proposals
SUFFIXES = (".json", ".faiss")
_MAX_ROW_BYTES, _MAX_OTHER_BYTES = 4096, 1 << 26  # of links and ids of a row, and of everything that no row has
_MAX_VECTOR_BYTES = 1 << 40  # bytes that one vector inside an index file may claim

INDEX_FILE_NAME = re.compile(r"[\w.,=+-]{1,200}\.faiss", re.ASCII)

FolderState = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class IndexSidecar:
    """What an index file is. The fields are the keys of the JSON file.

    Attributes:
        file: name of the index file.
        xxh3: XXH3-128 of its bytes.
        bytes: its length.
        space: key of the space.
        dim: the length of its vectors.
        metric: ``cosine``: the vectors were scaled to length 1.
        shards: ``[number, rows]`` of every shard it covers, in order.
        rows: their sum.
        kind: flat, hnsw or ivf.
        setting: FAISS's factory string.
        probe: efSearch or nprobe, as tuned.
        recall: recall at 10, measured against exact search.
        queries: number of rows that it was measured with.
        target: the recall that was requested.
        ms: milliseconds of one query, measured.
        memory: bytes of the loaded index.
        lossless: whether it holds the rows as the vector files do, so that its scores are theirs.
        seconds: time of the build.
        created: UTC time, ISO 8601.
        format: version of this sidecar.
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


_FIELD_TYPES = {f.name: {"str": str, "int": int, "float": float, "bool": bool}.get(str(f.type), list)
                for f in fields(IndexSidecar)}  # fmt: skip


@dataclass(frozen=True)
class LoadedIndex:
    """A loaded index.

    Attributes:
        sidecar: what it is.
        faiss: the FAISS index.
    """

    sidecar: IndexSidecar
    faiss: Any

    @cached_property
    def inverted_lists(self) -> InvertedLists | None:
        """The list of every row of an IVF; None for other kinds."""
        return InvertedLists.from_index(self.faiss)


@dataclass(frozen=True)
class IndexLookup:
    """The index to use.

    Attributes:
        index: the index, or None.
        notes: why other indexes were ignored, one sentence each.
        unread: the indexes among them that cannot be read now, and may be whole.
    """

    index: LoadedIndex | None
    notes: tuple[str, ...]
    unread: tuple[StoreUnreadable, ...] = ()


def folder_state(folder: Path) -> FolderState:
    """Return names, sizes and times of the index files of a folder: it changes whenever an index does."""
    try:
        with os.scandir(folder) as entries:
            stats = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(SUFFIXES)]
    except OSError:  # there is no folder, or a file was removed meanwhile; the next look-up differs
        return ()
    return tuple(sorted((name, s.st_size, s.st_mtime_ns) for name, s in stats))


def write_index(folder: Path, index: Any, sidecar_fields: dict[str, Any]) -> IndexSidecar:
    """Write an index and its sidecar under temporary names, force them to the disk, and rename them into place.

    Args:
        folder: the folder of the space's indexes.
        index: a FAISS index.
        sidecar_fields: the sidecar's fields but file, xxh3 and bytes.

    Raises:
        OSError: if the disk is full or fails; nothing is left then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary, sidecar_temporary = (folder / f".{os.getpid()}.{kind}.tmp" for kind in ("faiss", "json"))
    try:
        digest = _write_faiss(index, temporary)
        name = f"{sidecar_fields['kind']}-{sidecar_fields['rows']}-{digest[:8]}"
        sidecar = IndexSidecar(file=f"{name}.faiss", xxh3=digest, bytes=temporary.stat().st_size, **sidecar_fields)
        sidecar_temporary.write_bytes(dump_description(asdict(sidecar), DESCRIPTION_CHECKSUM_KEY) + b"\n")
        durable_files.sync_file(sidecar_temporary)
        for path, final in ((temporary, sidecar.file), (sidecar_temporary, f"{name}.json")):
            path.replace(folder / final)
            durable_files.sync_folder(folder)  # also after a power cut, no sidecar is there without its index
    except BaseException:
        temporary.unlink(missing_ok=True)
        sidecar_temporary.unlink(missing_ok=True)
        raise
    durable_files.sync_folder(folder.parent)  # the folder of a first index is new, too
    return sidecar


def _write_faiss(index: Any, path: Path) -> str:
    """Write an index and return its XXH3-128. FAISS writes through our file: it does not notice a disk that is full.

    Raises:
        OSError: if the disk refuses.
    """
    h, refused = xxhash.xxh3_128(), list[OSError]()

    def write(data: bytes) -> int:
        try:
            if not refused:
                f.write(data)
                h.update(data)
        except OSError as e:  # raised below: FAISS would turn it into another error
            refused.append(e)
        return len(data)

    with path.open("wb") as f:
        faiss().write_index(index, faiss().PyCallbackIOWriter(write))
        if refused:
            raise refused[0]
        f.flush()
        os.fsync(f.fileno())
    return h.hexdigest()


def read_sidecars(folder: Path) -> list[tuple[Path, IndexSidecar | str]]:
    """Return every sidecar of a folder, newest first; a text says why one cannot be used.

    Raises:
        StoreUnreadable: if the folder or a sidecar cannot be read now.
    """
    sidecars = [(path, _read_sidecar(path)) for path in list_folder(folder, "*.json")]
    return sorted(sidecars, key=lambda s: "" if isinstance(s[1], str) else s[1].created, reverse=True)


def _read_sidecar(path: Path) -> IndexSidecar | str:
    """Return a sidecar, or why it cannot be used; raise StoreUnreadable if it cannot be read now."""
    try:
        with read_errors(path):
            facts = read_json_object(path)
        if facts["format"] not in _READABLE_FORMATS:
            return f"has format {facts['format']!r:.40}"
        facts = check_index_description(facts)
        _check_types(facts)
        return IndexSidecar(**facts)
    except (ValueError, TypeError, KeyError) as e:
        return f"cannot be read ({type(e).__name__}: {e})"


def _check_types(facts: dict[str, Any]) -> None:
    """Check the type of every field of a sidecar, and that its counts agree.

    Raises:
        TypeError: if a value has another type, or is negative.
        ValueError: if the rows are not those of the vector files, or the file is not named as an index is.
        KeyError: if a field is not known.
    """
    for name, value in facts.items():
        kind = _FIELD_TYPES[name]
        allowed: tuple[type, ...] = (int, float) if kind is float else (kind,)
        if type(value) not in allowed or (kind in (int, float) and value < 0):
            raise TypeError(f"{name} is {value!r:.40}")
    shards = facts["shards"]
    if not all(type(s) is list and len(s) == 2 and all(type(n) is int and n >= 0 for n in s) for s in shards):
        raise TypeError("shards are not pairs of numbers")
    if not INDEX_FILE_NAME.fullmatch(facts["file"]):
        raise ValueError(f"file is {facts['file']!r:.40}")
    if facts["rows"] != sum(rows for _, rows in shards):
        raise ValueError("its rows are not those of its vector files")


def find_usable_index(folder: Path, *, space: str, dim: int, shards: Sequence[tuple[int, int]]) -> IndexLookup:
    """Return the usable index that covers most rows, the newest among equals.

    Args:
        folder: the folder of the space's indexes.
        space: key of the space.
        dim: the length of the vectors of the space.
        shards: ``(number, rows)`` of the generation that is searched, ordered by number.
    """
    try:
        sidecars = read_sidecars(folder)
    except StoreUnreadable as e:
        return IndexLookup(None, (f"no index is used: {e}",), (e,))
    notes: list[str] = []
    fitting: list[tuple[Path, IndexSidecar]] = []
    unread: list[StoreUnreadable] = []
    for path, sidecar in sidecars:
        if isinstance(sidecar, str):
            notes.append(_ignored(path, sidecar))
        elif problem := mismatch_reason(sidecar, space, dim, shards):
            notes.append(_ignored(path, problem))
        else:
            fitting.append((path, sidecar))
    for path, sidecar in sorted(fitting, key=lambda f: f[1].rows, reverse=True):
        try:
            return IndexLookup(LoadedIndex(sidecar, load_index(folder, sidecar)), tuple(notes), tuple(unread))
        except StoreDamaged as e:
            notes.append(_ignored(path, e))
        except StoreUnreadable as e:
            notes.append(f"index {path.name} is not used: {e}")
            unread.append(e)
    return IndexLookup(None, tuple(notes), tuple(unread))


def _ignored(path: Path, problem: object) -> str:
    """Return the note on an index that cannot be used."""
    return f"index {path.name} {problem}; it is ignored: run `embedstore index STORE` to build a new one"


def load_index(folder: Path, sidecar: IndexSidecar) -> Any:
    """Map a FAISS index after every byte was compared with its checksum, once in a process.

    Raises:
        StoreDamaged: if the file is missing, or is not the one that the sidecar describes.
        StoreUnreadable: if the file cannot be read now.
    """
    path = folder / sidecar.file
    if Path(sidecar.file).name != sidecar.file or not exists(path):
        raise StoreDamaged("has lost its .faiss file")
    with read_errors(path):
        stat = path.stat()
    most = sidecar.rows * (8 * sidecar.dim + _MAX_ROW_BYTES) + _MAX_OTHER_BYTES
    if stat.st_size != sidecar.bytes or stat.st_size > most:
        raise StoreDamaged(f"has {stat.st_size:,} bytes, its sidecar says {sidecar.bytes:,}")
    return _load_faiss(path, sidecar.xxh3, sidecar.rows, sidecar.dim, (stat.st_ino, stat.st_size, stat.st_mtime_ns))


@lru_cache(maxsize=8)
def _load_faiss(path: Path, xxh3: str, rows: int, dim: int, _identity: tuple[int, ...]) -> Any:
    """Check a FAISS file, then map it."""
    with read_errors(path):
        if durable_files.file_xxh3(path) != xxh3:
            raise StoreDamaged("does not match its checksum")
        check_index_file(path, path.stat().st_size, rows=rows, dim=dim)
    faiss().set_deserialization_vector_byte_limit(_MAX_VECTOR_BYTES)
    try:
        index = faiss().read_index(str(path), faiss().IO_FLAG_MMAP_IFC)
    except (RuntimeError, MemoryError) as e:
        if problem := passing_error(path, str(e)):
            raise problem from e
        if isinstance(e, MemoryError):
            raise unreadable(path, OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))) from e
        raise StoreDamaged("cannot be read by FAISS") from e
    if (index.ntotal, index.d) != (rows, dim):
        raise StoreDamaged(f"holds {index.ntotal} rows of {index.d}, its sidecar says {rows} of {dim}")
    return enable_parallel_search(index)


def remove_indexes(folder: Path, keep_file: str | None = None) -> None:
    """Remove every index but one, sidecars first: an index without a sidecar is never used."""
    for suffix in SUFFIXES:
        for path in list(folder.glob(f"*{suffix}")) if folder.is_dir() else []:
            if keep_file is None or path.stem != Path(keep_file).stem:
                path.unlink(missing_ok=True)
        if folder.is_dir():
            durable_files.sync_folder(folder)


def mismatch_reason(sidecar: IndexSidecar, space: str, dim: int, shards: Sequence[tuple[int, int]]) -> str | None:
    """Return why an index does not fit the vectors that are searched, or None."""
    if (sidecar.space, sidecar.dim) != (space, dim):
        return f"is of space {sidecar.space} (D={sidecar.dim}), this is {space} (D={dim})"
    if not covers_prefix(sidecar, shards):
        return "covers vector files that were merged or removed since"
    return None


def covers_prefix(sidecar: IndexSidecar, shards: Sequence[tuple[int, int]]) -> bool:
    """Return whether the vector files that an index was built from are still the first ones."""
    return list(shards[: len(sidecar.shards)]) == [tuple(s) for s in sidecar.shards]


def file_problem(folder: Path, sidecar: IndexSidecar) -> str | None:
    """Return a problem if the index file is missing or has another length, else None."""
    path = folder / sidecar.file
    return None if is_file(path) and file_size(path) == sidecar.bytes else "has lost its .faiss file"
