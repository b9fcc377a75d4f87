"""Heads kept in a store, and what they say of its items."""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.heads.head_files import ARRAYS_FILE, METADATA_FILE
from embedstore.errors import BadHead, SpaceMismatch, StoreDamaged, UnknownHead, did_you_mean
from embedstore.storage import disk_errors
from embedstore.storage.durable_files import file_sha256, sync_folder, sync_tree
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import object_array, utc_now
from embedstore.storage.storage import Storage
from embedstore.storage.vector_stream import open_vector_stream

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
NO_LABEL = "none"  # how items are counted to which a head gives no label
_BLOCK_SCORES = 1 << 24  # scores held at once: 64 MiB of float32


@dataclass(frozen=True)
class HeadRecord:
    """One head of a store.

    Attributes:
        space: the key of the space it was trained in. kind: how it was made, e.g. ``logistic``.
        facts: classes, digest of its files, how it was judged, and whether it answers with sets of classes.
    """

    name: str
    space_key: str
    label: str
    kind: str
    metadata: dict[str, Any]
    created: datetime


def list_heads(storage: Storage) -> list[HeadRecord]:
    """Every head, oldest first."""
    with storage.catalog.read() as con:
        rows = con.execute(
            "SELECT head, space, label, kind, facts, created FROM heads ORDER BY created, head"
        ).fetchall()
    return [HeadRecord(n, s, lb, k, json.loads(f), c) for n, s, lb, k, f, c in rows]


def find_head(storage: Storage, name: str) -> HeadRecord:
    """One head by its name.

    Raises:
        UnknownHead: there is none of that name; names the near ones.
    """
    rows = list_heads(storage)
    for row in rows:
        if row.name.lower() == name.lower():
            return row
    names = [r.name for r in rows]
    raise UnknownHead(
        f"{storage.layout.root} has no head {name!r}{did_you_mean(name, names)}; it has {', '.join(names) or 'none'}; "
        f"`embedstore probe STORE LABEL --save {name}` makes one"
    )


def save_head(
    storage: Storage, space: SpaceRecord, name: str, estimator: Any, *, label: str, kind: str, metadata: dict[str, Any]
) -> HeadRecord:
    """Save a fitted head under a name; one of that name is replaced and its predictions are forgotten.

    Args:
        storage, space: where it was trained. name: letters, digits, ``_`` and ``-``. estimator: fitted.
        label, kind: the column, and how it was made. facts: how it was judged, kept beside it.

    Raises:
        BadHead: the name, or an estimator that cannot be stored without pickle.
    """
    if not _NAME.fullmatch(name):
        raise BadHead(f"a head's name has letters, digits, _ and -, at most 64 of them; {name!r} does not fit")
    folder = _folder(storage, name)
    with storage.writer(f"save head {name}", wait=10.0), disk_errors.disk_errors(f"save head {name} in {folder}"):
        _set_by(folder)
        heads.save(estimator, folder, {"space": space.key, "label": label, "name": name})
        known = {
            "classes": [str(c) for c in estimator.classes_],
            "digest": _digest(folder),
            "sets": heads.membership_threshold(estimator) is not None,
        } | metadata
        with storage.catalog.write() as con:
            con.execute("DELETE FROM heads WHERE lower(head) = lower(?)", [name])
            con.execute("DELETE FROM predictions WHERE lower(head) = lower(?)", [name])
            con.execute(
                "INSERT INTO heads BY NAME SELECT ? AS head, ? AS space, ? AS label, ? AS kind, ?::JSON AS facts, "
                "?::TIMESTAMP AS created",
                [name, space.key, label, kind, json.dumps(known), utc_now()],
            )
        _sweep(folder)
    return find_head(storage, name)


def load_head(storage: Storage, name: str, *, space: SpaceRecord | None = None) -> tuple[HeadRecord, Any]:
    """A kept head, checked against the catalog and against itself.

    Args:
        storage: the store. name: of the head. space: where it shall be used; by default its own.

    Raises:
        UnknownHead: no such name. SpaceMismatch: trained in another space. StoreDamaged: not the files that were saved.
    """
    row = find_head(storage, name)
    if space is not None and space.key != row.space_key:
        own = next((s.name for s in storage.spaces() if s.key == row.space_key), row.space_key)
        raise SpaceMismatch(
            f"head {row.name} was trained in space {own} and means nothing in {space.name}; leave --space out, or "
            f"train one there: `embedstore probe STORE {row.label} --space {space.name} --save NAME`"
        )
    folder = _settled(_folder(storage, row.name), row.metadata["digest"])
    cure = f"train it again: `embedstore probe STORE {row.label} --head {row.kind} --save {row.name}`"
    if not (folder / METADATA_FILE).is_file():
        raise StoreDamaged(f"the files of head {row.name} are gone from {folder}; {cure}")
    if _digest(folder) != row.metadata["digest"]:
        raise StoreDamaged(f"{folder / METADATA_FILE} is not what was saved; {cure}")
    return row, heads.load(folder, expected_binding={"space": row.space_key})


def write_predictions(
    storage: Storage, name: str, *, where: str | None = None, space: SpaceRecord | None = None
) -> dict[str, Any]:
    """Write a head's class and its probability for every matching item into ``predictions``; what it said of them
    before is replaced, in one transaction. Memory is bounded by a block of vectors and its scores.

    A head of several labels, or one that answers with sets of classes, writes a row for each; an item of which it says
    none has one row without a label, and the highest score that any class has.

    Args:
        storage: the store. name: of the head. where: a filter; ``"pred.NAME is null"`` takes what is new or changed.
        space: a space that the head must be of.

    Returns:
        ``{"head", "items", "contents", "labels": {class: items}, "seconds"}``; items without any class count as
        ``none``.

    Raises:
        UnknownHead, SpaceMismatch, StoreDamaged: as :func:`load`. BadFilter, UnknownColumn: the filter.
    """  # noqa: D205
    begin, started = time.perf_counter(), utc_now()
    row, estimator = load_head(storage, name, space=space)
    own = storage.space(row.space_key)
    names = [str(c) for c in estimator.classes_]
    answers = [
        *names,
        None if heads.membership_threshold(estimator) is not None else str(getattr(estimator, "abstain_label", "")),
    ]
    scratch = storage.catalog.scratch
    try:
        with open_vector_stream(storage, own, where, known_head=row.name) as stream:
            scratch.execute("CREATE OR REPLACE TABLE memory.main.said (n BIGINT, code INTEGER, score DOUBLE)")
            for first, _, X in stream.iter_blocks(max(256, min(16384, _BLOCK_SCORES // len(names)))):
                rows, codes, scores = _answer(estimator, X)
                block = {"n": first + rows, "code": codes, "score": scores}  # noqa: F841 - read by SQL
                scratch.execute("INSERT INTO memory.main.said SELECT n, code, score FROM block")
            result = _write(storage, row.name, answers)
            result |= {"contents": stream.rows, "seconds": round(time.perf_counter() - begin, 3)}
            with storage.writer(f"record predict {row.name}", wait=10.0) as writer:
                writer.record_run("predict", own.key, {"head": row.name, "where": where}, result, started)
    finally:
        scratch.execute("DROP TABLE IF EXISTS memory.main.said")
    return result


def export_head(storage: Storage, name: str, path: Path) -> Path:
    """A linear head as ``.npz`` or ``.onnx``.

    Raises:
        BadHead: another suffix, or a head that is not linear. MissingExtra: onnx is not installed.
    """
    if path.suffix not in (".npz", ".onnx"):
        raise BadHead(f"heads are exported to .npz or .onnx, not {path.name!r}")
    estimator = load_head(storage, name)[1]
    return heads.export_npz(estimator, path) if path.suffix == ".npz" else heads.export_onnx(estimator, path)


def drop_head(storage: Storage, name: str) -> None:
    """Remove a head and its predictions.

    Raises:
        UnknownHead: no such name.
    """
    row = find_head(storage, name)
    folder = _folder(storage, row.name)
    doing = f"forget head {row.name}"
    with storage.writer(doing, wait=10.0), disk_errors.disk_errors(doing):
        with storage.catalog.write() as con:
            con.execute("DELETE FROM heads WHERE head = ?", [row.name])
            con.execute("DELETE FROM predictions WHERE head = ?", [row.name])
        for file in (METADATA_FILE, ARRAYS_FILE):
            (folder / file).unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _answer(estimator: Any, X: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Rows, classes by number (one past the last where none is given) and their probabilities."""
    proba = heads.probabilities(estimator, X)
    codes, rows, given = proba.argmax(axis=1), np.arange(len(X)), heads.membership_threshold(estimator)
    if given is None:
        scores = proba[rows, codes]
        codes[scores < getattr(estimator, "threshold_", -np.inf)] = proba.shape[1]
    else:
        member = np.hstack([proba >= given, (proba.max(1) < given)[:, None]])
        best = proba.max(1)
        rows, codes = np.nonzero(member)
        scores = np.hstack([proba, best[:, None]])[rows, codes]
    return rows.astype(np.int64), codes.astype(np.int32), scores.astype(np.float64)


def _write(storage: Storage, name: str, answers: list[str | None]) -> dict[str, Any]:
    """The staged answers as the head's predictions of the streamed items."""
    with storage.writer(f"predict {name}", wait=10.0), storage.catalog.write() as con:
        codes = {"code": np.arange(len(answers), dtype=np.int32), "label": object_array(answers)}  # noqa: F841 - read by SQL
        con.execute(
            "DELETE FROM predictions WHERE head = ? AND item IN (SELECT item FROM memory.main.streamed_items)", [name]
        )
        con.execute(
            "INSERT INTO predictions BY NAME SELECT ? AS head, i.item, c.label::VARCHAR AS label, s.score, i.content "
            "FROM memory.main.said s JOIN memory.main.streamed v USING (n) "
            "JOIN memory.main.streamed_items i ON i.content = v.content JOIN codes c ON c.code = s.code "
            "ORDER BY i.item, s.score DESC",
            [name],
        )
        said = "FROM predictions WHERE head = ? AND item IN (SELECT item FROM memory.main.streamed_items)"
        found = con.execute(
            f"SELECT coalesce(label, '{NO_LABEL}'), count(*) {said} GROUP BY 1 ORDER BY 2 DESC, 1", [name]
        ).fetchall()
        items = con.execute(f"SELECT count(DISTINCT item) {said}", [name]).fetchall()[0][0]
    return {"head": name, "items": items, "labels": dict(found)}


def _folder(storage: Storage, name: str) -> Path:
    return storage.layout.root / "heads" / name


def _previous(folder: Path) -> Path:
    """Where a head's files stand by until the catalog knows those that replace them."""
    return folder.with_name(f".{folder.name}.previous")


def _set_by(folder: Path) -> None:
    """Copy the files that are to be replaced: a kill before the catalog's commit leaves the head that it names."""
    if folder.is_dir():
        shutil.rmtree(_previous(folder), ignore_errors=True)
        shutil.copytree(folder, _previous(folder))
        sync_tree(_previous(folder))
        sync_folder(folder.parent)


def _sweep(folder: Path) -> None:
    """Remove what stood by, and what killed processes left half written."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _settled(folder: Path, digest: str) -> Path:
    """The folder with the files that the catalog names."""
    for candidate in (folder, _previous(folder)):
        if (candidate / METADATA_FILE).is_file() and _digest(candidate) == digest:
            return candidate
    return folder


def _digest(folder: Path) -> str:
    """SHA-256 of the head's description, which itself holds that of its arrays."""
    return file_sha256(folder / METADATA_FILE)
