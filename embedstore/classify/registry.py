"""Heads that are stored with their space and label, and their predictions for the items of the store."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedstore.classify import heads
from embedstore.classify.head_folder import HeadFolder, is_head_name
from embedstore.classify.heads import head_files
from embedstore.errors import BadHead, SpaceMismatch, StoreDamaged, UnknownHead, did_you_mean
from embedstore.storage import disk_errors
from embedstore.storage.queries.heads import head_rows, open_prediction_stage
from embedstore.storage.reading import is_file
from embedstore.storage.spaces import SpaceRecord
from embedstore.storage.sql import utc_now
from embedstore.storage.storage import Storage
from embedstore.storage.vector_stream import open_vector_stream
from embedstore.tables import OneRow

_BLOCK_SCORES = 1 << 24  # scores in memory at once: 64 MiB of float32
DEFAULT_WAIT = 10.0  # seconds


@dataclass(frozen=True)
class HeadRecord(OneRow):
    """One head of a store.

    Attributes:
        name: its name.
        space_key: the key of the space that it was trained in.
        label: the column that it predicts.
        kind: how it was made, for example ``logistic``.
        metadata: its classes, the digest of its files, how it was evaluated, and whether it predicts sets of classes.
        created: when it was saved, in UTC.
    """

    name: str
    space_key: str
    label: str
    kind: str
    metadata: dict[str, Any]
    created: datetime

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"created": self.created.isoformat()}


def list_heads(storage: Storage) -> list[HeadRecord]:
    """Return every head, oldest first."""
    with storage.catalog.read() as con:
        return [HeadRecord(*row) for row in head_rows(con)]


def find_head(storage: Storage, name: str) -> HeadRecord:
    """Return a head by its name, whatever the case.

    Raises:
        UnknownHead: if there is none of that name; the message lists the near ones.
    """
    records = list_heads(storage)
    for record in records:
        if record.name.lower() == name.lower():
            return record
    names = [r.name for r in records]
    raise UnknownHead(
        f"{storage.layout.root} has no head {name!r}{did_you_mean(name, names)}; it has {', '.join(names) or 'none'}; "
        f"`embedstore probe STORE LABEL --save {name if is_head_name(name) else 'NAME'}` makes one"
    )


def save_head(
    storage: Storage,
    space: SpaceRecord,
    name: str,
    estimator: Any,
    *,
    label: str,
    kind: str,
    metadata: dict[str, Any],
    wait: float = DEFAULT_WAIT,
) -> HeadRecord:
    """Save a fitted head under a name. A head of that name is replaced and its predictions are deleted.

    Args:
        storage: the store.
        space: the space that the head was trained in.
        name: letters, digits, ``_`` and ``-``.
        estimator: the fitted head.
        label: the column that it predicts.
        kind: how it was made.
        metadata: how it was evaluated.
        wait: seconds to wait for another writer.

    Raises:
        BadHead: if the name does not fit, or the estimator cannot be stored without pickle.
        StoreBusy: if another process is writing after ``wait`` seconds.
    """
    folder = HeadFolder(storage.layout.root, name)
    operation = f"save head {name}"
    with storage.writer(operation, wait=wait) as writer, disk_errors.disk_errors(f"{operation} in {folder.path}"):
        replaced = [HeadFolder(storage.layout.root, r.name) for r in list_heads(storage) if _is_renamed(r.name, name)]
        digest = folder.replace(estimator, {"space": space.key, "label": label, "name": name})
        known = {
            "classes": [str(c) for c in getattr(estimator, "classes_", ())],
            "digest": digest,
            "sets": heads.predicts_sets(estimator),
        } | ({"numbers": True} if predicts_numbers(estimator) else {})
        writer.put_head(name, space=space.key, label=label, kind=kind, metadata=known | metadata)
        folder.clean_up()
        for old in replaced:
            old.delete(unless=folder)
    return find_head(storage, name)


def load_head(storage: Storage, name: str, *, space: SpaceRecord | None = None) -> tuple[HeadRecord, Any]:
    """Load a head after comparing its files with the catalog.

    Args:
        storage: the store.
        name: the head.
        space: where it shall be used; by default its own space.

    Returns:
        The record and the fitted estimator.

    Raises:
        UnknownHead: if there is no head of that name.
        SpaceMismatch: if it was trained in another space.
        StoreDamaged: if its files are missing or are not those that were saved.
    """
    record = find_head(storage, name)
    if space is not None and space.key != record.space_key:
        own = next((s.name for s in storage.spaces() if s.key == record.space_key), record.space_key)
        label, name = shlex.quote(record.label), shlex.quote(space.name)
        raise SpaceMismatch(
            f"head {record.name} was trained in space {own} and cannot be used in {space.name}; leave --space out, or "
            f"train one there: `embedstore probe STORE {label} --space {name} --save NAME`"
        )
    folder = HeadFolder(storage.layout.root, record.name).find(record.metadata["digest"])
    label = shlex.quote(record.label)
    cure = f"train it again: `embedstore probe STORE {label} --head {record.kind} --save {record.name}`"
    description = folder / head_files.METADATA_FILE
    if not is_file(description):
        raise StoreDamaged(f"the files of head {record.name} are missing from {folder}; {cure}")
    if head_files.file_digest(folder) != record.metadata["digest"]:
        raise StoreDamaged(f"{description} is not what was saved; {cure}")
    return record, heads.load(folder, expected_binding={"space": record.space_key})


def write_predictions(
    storage: Storage,
    name: str,
    *,
    where: str | None = None,
    space: SpaceRecord | None = None,
    wait: float = DEFAULT_WAIT,
) -> dict[str, Any]:
    """Write a head's class and probability (or number and interval) of every matching item into ``predictions``.

    Earlier predictions of the same items are replaced, in one transaction. Memory is bounded by a block of vectors and
    its scores. A head that predicts several labels or sets of classes writes one row per class; an item for which it
    predicts none gets one row without a label and with the highest score of any class. A predicted number is written as
    text, and its score is how far its interval reaches on either side.

    Args:
        storage: the store.
        name: the head.
        where: a filter; ``"pred.NAME is null"`` selects new and changed items.
        space: a space that the head must belong to.
        wait: seconds to wait for another writer.

    Returns:
        ``{"head", "items", "labels": {class: rows}, "contents", "seconds"}``; rows without a class count as ``none``,
        and numbers are not counted.

    Raises:
        UnknownHead: if there is no head of that name.
        SpaceMismatch: if it was trained in another space.
        StoreDamaged: if its files are missing or are not those that were saved.
        BadFilter: if the filter is not valid.
        UnknownColumn: if the filter names a column that the items do not have.
        StoreBusy: if another process is writing after ``wait`` seconds.
    """
    started = utc_now()
    record, estimator = load_head(storage, name, space=space)
    labels = _label_texts(estimator)
    block_rows = max(256, min(16384, _BLOCK_SCORES // max(1, len(labels))))
    with (
        open_vector_stream(storage, storage.space(record.space_key), where, known_head=record.name) as stream,
        open_prediction_stage(storage.catalog.scratch, stream.tables, labels) as stage,
    ):
        for first, _, X in stream.iter_blocks(block_rows):
            if predicts_numbers(estimator):
                stage.append_numbers(first + np.arange(len(X)), *_predict_numbers(estimator, X))
            else:
                rows, codes, scores = _predict_block(estimator, X)
                stage.append(first + rows, codes, scores)
        with storage.writer(f"predict {record.name}", wait=wait) as writer:
            settings = {"head": record.name, "where": where}
            return writer.put_predictions(record.name, record.space_key, stage, settings, started)


def export_head(storage: Storage, name: str, path: Path) -> Path:
    """Write a head as ``.npz`` (linear ones) or ``.onnx``.

    Raises:
        UnknownHead: if there is no head of that name.
        BadHead: if the suffix is another one, or the head cannot be written in that form.
        MissingExtra: if onnx is needed and not installed.
    """
    if path.suffix not in (".npz", ".onnx"):
        raise BadHead(f"heads are exported to .npz or .onnx, not {path.name!r}")
    estimator = load_head(storage, name)[1]
    return heads.export_npz(estimator, path) if path.suffix == ".npz" else heads.export_onnx(estimator, path)


def drop_head(storage: Storage, name: str, *, wait: float = DEFAULT_WAIT) -> None:
    """Delete a head, its files and its predictions.

    Raises:
        UnknownHead: if there is no head of that name.
        StoreBusy: if another process is writing after ``wait`` seconds.
    """
    record = find_head(storage, name)
    folder, operation = HeadFolder(storage.layout.root, record.name), f"drop head {record.name}"
    with storage.writer(operation, wait=wait) as writer, disk_errors.disk_errors(operation):
        writer.drop_head(record.name)
        folder.delete()


def _is_renamed(old: str, new: str) -> bool:
    """Return whether a save under ``new`` replaces ``old``, whose folder has another name."""
    return old.lower() == new.lower() and old != new


def predicts_numbers(estimator: Any) -> bool:
    """Return whether a head predicts numbers with intervals."""
    return hasattr(estimator, "predict_interval")


def _predict_numbers(estimator: Any, X: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of each row, and how far its interval reaches on the longer side."""
    numbers = estimator.predict(X)
    low, high = estimator.predict_interval(X)
    return numbers, np.maximum(numbers - low, high - numbers)


def _label_texts(estimator: Any) -> list[str | None]:
    """Return the classes and the text for "no class"; nothing for a head that predicts numbers."""
    if predicts_numbers(estimator):
        return []
    without = None if heads.predicts_sets(estimator) else _abstain_label(estimator)
    return [*(str(c) for c in estimator.classes_), without]


def _abstain_label(estimator: Any) -> str:
    return str(getattr(estimator, "abstain_label", ""))


def predicted_members(estimator: Any, proba: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which classes a head predicts, bool ``(N, K)``: none for a row that it does not answer.

    Args:
        estimator: the fitted head.
        proba: its probabilities ``(N, K)``.
    """
    if heads.predicts_sets(estimator):
        return heads.set_members(estimator, proba)
    members = np.zeros(proba.shape, dtype=bool)
    members[np.arange(len(proba)), proba.argmax(axis=1)] = True
    if isinstance(estimator, heads.SelectiveClassifier):
        members &= estimator.answers(proba)[:, None]
    return members


def _predict_block(
    estimator: Any, X: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float64]]:
    """Return rows, numbers of classes (one past the last for "no class") and their probabilities."""
    proba = heads.probabilities(estimator, X)
    members = predicted_members(estimator, proba)
    rows, codes = np.nonzero(np.hstack([members, ~members.any(axis=1, keepdims=True)]))
    scores = np.hstack([proba, proba.max(axis=1, keepdims=True)])[rows, codes]
    return rows.astype(np.int64), codes.astype(np.int32), scores.astype(np.float64)
