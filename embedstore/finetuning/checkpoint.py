"""A checkpoint folder: weights and head as safetensors, a JSON manifest, and figures; published atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged, StoreError, StoreIOError
from embedstore.finetuning.checkpoint_manifest import dump_manifest, parse_manifest
from embedstore.finetuning.history import TrainingSummary
from embedstore.finetuning.tensor_files import read_tensors, write_tensors
from embedstore.storage import durable_files, reading
from embedstore.storage.store_files import read_bounded

WEIGHTS_FILE, HEAD_FILE, MANIFEST_FILE = "weights.safetensors", "head.safetensors", "checkpoint.json"


def write_files(
    folder: Path,
    weights: dict[str, torch.Tensor],
    head: tuple[NDArray[np.float32], NDArray[np.float32]],
    metadata: dict[str, Any],
) -> None:
    """Write a checkpoint into a folder that is not published yet.

    Args:
        folder: created if it does not exist.
        weights: the weights of the whole network, by name.
        head: weights ``(K, D)`` and biases ``(K,)``.
        metadata: plain values: parent, license, classes, settings, history.

    Raises:
        StoreIOError: if the disk is full or fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [write_tensors(folder / WEIGHTS_FILE, weights)]
        tensors = {"weight": torch.from_numpy(head[0].copy()), "bias": torch.from_numpy(head[1].copy())}
        files.append(write_tensors(folder / HEAD_FILE, tensors))
        for entry in files:
            entry["sha256"] = durable_files.file_sha256(folder / entry["file"])
        durable_files.write_synced(folder / MANIFEST_FILE, dump_manifest({"files": files, **metadata}))
    except OSError as e:
        raise _write_error(folder, e) from e


def publish(temporary: Path, target: Path) -> None:
    """Move a complete checkpoint to its final name; an existing one has the same weights and is kept.

    Args:
        temporary: the folder that :func:`write_files` filled.
        target: its final name.

    Raises:
        StoreIOError: if the disk is full or fails.
    """
    try:
        durable_files.sync_tree(temporary)
        if (target / MANIFEST_FILE).is_file():
            for path in temporary.iterdir():
                path.unlink()
            temporary.rmdir()
        else:
            temporary.rename(target)
        durable_files.sync_folder(target.parent)
    except OSError as e:
        raise _write_error(target, e) from e


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a checkpoint, or {} where there is none.

    Raises:
        StoreDamaged: if it is not what was written.
        StoreUnreadable: if it cannot be read now.
    """
    path = folder / MANIFEST_FILE
    if not reading.is_file(path):
        return {}
    try:
        with reading.read_errors(path):
            data = read_bounded(path)
        return parse_manifest(data)
    except StoreError:
        raise
    except (ValueError, TypeError, RecursionError) as e:
        raise StoreDamaged(f"cannot use {path} ({e}); restore it from a backup") from e


def read_summary(folder: Path) -> TrainingSummary:
    """Return the facts about the run that made a checkpoint.

    Raises:
        StoreDamaged: if the manifest cannot be read or lacks them.
    """
    try:
        return TrainingSummary.from_json(read_manifest(folder))
    except (KeyError, TypeError) as e:
        raise StoreDamaged(f"{folder / MANIFEST_FILE} lacks facts about its run ({e}); restore it from a backup") from e


def read_head(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the head of a checkpoint: weights ``(K, D)`` and biases ``(K,)``.

    Raises:
        StoreDamaged: if the file is missing or does not match its checksum.
    """
    files = read_manifest(folder).get("files", [])
    entries = [e for e in files if isinstance(e, dict)] if isinstance(files, list) else []
    entry = next((e for e in entries if e.get("file") == HEAD_FILE), None)
    if entry is None:
        raise StoreDamaged(f"{folder / MANIFEST_FILE} names no {HEAD_FILE}; restore it from a backup")
    tensors = read_tensors(folder, entry)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if weight is None or bias is None or weight.ndim != 2 or bias.shape != weight.shape[:1]:
        raise StoreDamaged(f"{folder / HEAD_FILE} holds no linear head; restore it from a backup")
    return weight.float().numpy(), bias.float().numpy()


def _write_error(path: Path, error: OSError) -> StoreIOError:
    return StoreIOError(
        f"cannot write {path}: {error.strerror or error}; free disk space and run the same command again"
    )
