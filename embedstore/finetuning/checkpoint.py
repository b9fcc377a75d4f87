"""A tuned network as files: weights and head in safetensors, everything else in one JSON, put in place whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from embedstore.errors import StoreDamaged, StoreIOError
from embedstore.finetuning.checkpoint_manifest import dump_manifest, parse_manifest
from embedstore.finetuning.resume_state import read_tensors, write_tensors
from embedstore.storage import durable_files

WEIGHTS_FILE, HEAD_FILE, MANIFEST_FILE = "weights.safetensors", "head.safetensors", "checkpoint.json"


def write_files(
    folder: Path,
    weights: dict[str, torch.Tensor],
    head: tuple[NDArray[np.float32], NDArray[np.float32]],
    metadata: dict[str, Any],
) -> None:
    """Fill a folder that is not in its place yet.

    Args:
        folder: made if need be. weights: the whole network's. head: weights ``(K, D)`` and biases ``(K,)``.
        facts: plain values: parent, licence, classes, settings, history.

    Raises:
        StoreIOError: the disk is full or fails.
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
        raise StoreIOError(f"cannot write {folder}: {e.strerror or e}; make room and run it again") from e


def publish(temporary: Path, target: Path) -> None:
    """Move a whole checkpoint to its name; one that is there already has the same weights and stays.

    Raises:
        StoreIOError: the disk refuses.
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
        raise StoreIOError(f"cannot write {target}: {e.strerror or e}; make room and run it again") from e


def read_manifest(folder: Path) -> dict[str, Any]:
    """What is noted of a checkpoint, {} where there is none.

    Raises:
        StoreDamaged: it cannot be read, or is not what was written.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return {}
    try:
        return parse_manifest(path.read_bytes())
    except (OSError, ValueError, TypeError, RecursionError) as e:
        raise StoreDamaged(f"{path} cannot be used ({e}); bring it back from a backup") from e


def read_head(folder: Path) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The head of a checkpoint: weights ``(K, D)`` and biases ``(K,)``.

    Raises:
        StoreDamaged: not what was written.
    """
    entry = next(e for e in read_manifest(folder)["files"] if e["file"] == HEAD_FILE)
    tensors = read_tensors(folder / HEAD_FILE, entry)
    return tensors["weight"].numpy(), tensors["bias"].numpy()
