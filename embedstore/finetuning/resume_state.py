"""The state that an interrupted run resumes from: one JSON file that is replaced atomically, and its tensor files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embedstore.errors import StoreDamaged, StoreIOError
from embedstore.finetuning.history import TrainingHistory
from embedstore.finetuning.tensor_files import read_tensors, write_tensors
from embedstore.storage import durable_files
from embedstore.storage.store_files import read_json_object

STATE_FILE = "state.json"
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class ResumeState:
    """The state of a run at the end of an epoch; all tensors are on the CPU.

    Attributes:
        history: the history of the epochs.
        weights: trainable weights by name.
        average: their moving average; empty without EMA.
        optimizer: optimizer state by ``parameter/key``.
        best_weights: candidate weights of the best epoch.
    """

    history: TrainingHistory
    weights: Tensors
    average: Tensors
    optimizer: Tensors
    best_weights: Tensors


def save(folder: Path, state: ResumeState) -> None:
    """Replace the stored state; an interruption leaves the previous one or this one.

    Args:
        folder: the folder of the run.
        state: at the end of an epoch.

    Raises:
        StoreIOError: if the disk is full or fails; the previous state stays.
    """
    epoch, best = state.history.epochs[-1].number, state.history.best_epoch
    groups = {"weights": state.weights, "average": state.average, "optimizer": state.optimizer}
    tensors = {
        f"state-{epoch:06d}.safetensors": {f"{group}/{n}": t for group, ts in groups.items() for n, t in ts.items()},
        f"best-{best:06d}.safetensors": state.best_weights,
    }
    facts = {"epoch": epoch, "best": best, "history": state.history.to_json()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A file that the previous state names is kept: to replace it would break that state until the JSON is written.
        entries = {e["file"]: e for e in _read_json(folder).get("files", {}).values()}
        written = [entries.get(name) or write_tensors(folder / name, ts) for name, ts in tensors.items()]
        files = dict(zip(("state", "best"), written, strict=True))
        durable_files.write_synced(folder / STATE_FILE, json.dumps({"files": files, "facts": facts}).encode())
        for path in folder.glob("*.safetensors*"):
            if path.name not in tensors:
                path.unlink()
    except OSError as e:
        raise StoreIOError(
            f"cannot write {folder}: {e.strerror or e}; free disk space and run the same command again, which resumes "
            "from the previous epoch"
        ) from e


def load(folder: Path) -> ResumeState | None:
    """Return the stored state of a run, or None before the end of its first epoch.

    Raises:
        StoreDamaged: if the files differ from what was written.
    """
    stored = _read_json(folder)
    if not stored:
        return None
    try:
        tensors, best = (read_tensors(folder, stored["files"][name]) for name in ("state", "best"))
        groups: dict[str, Tensors] = {"weights": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            group, _, rest = name.partition("/")
            groups[group][rest] = tensor
        history = TrainingHistory.from_json(stored["facts"]["history"])
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        if isinstance(e, StoreDamaged):
            raise
        raise _damaged(folder, e) from e
    return ResumeState(history, groups["weights"], groups["average"], groups["optimizer"], best)


def stored_threads(folder: Path) -> int:
    """Return how many threads computed the stored state of a run; 0 if there is none, or it does not say.

    Raises:
        StoreDamaged: if the state file is damaged.
    """
    try:
        return int(_read_json(folder)["facts"]["history"].get("threads", 0))
    except KeyError:
        return 0
    except (TypeError, ValueError, AttributeError) as e:
        raise _damaged(folder, e) from e


def _read_json(folder: Path) -> dict[str, Any]:
    """Return the state file's object, or {} where there is none."""
    path = folder / STATE_FILE
    if not path.is_file():
        return {}
    try:
        stored = read_json_object(path)
        return stored if {"files", "facts"} <= set(stored) else {}
    except (OSError, ValueError, TypeError) as e:
        raise _damaged(folder, e) from e


def _damaged(folder: Path, error: Exception) -> StoreDamaged:
    return StoreDamaged(
        f"{folder / STATE_FILE} is damaged ({type(error).__name__}); remove {folder} and run the same command again"
    )
