"""What a run needs to go on after a kill: one description that is replaced whole, and the tensors it names."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from embedstore.errors import StoreDamaged, StoreIOError
from embedstore.storage import durable_files

STATE_FILE = "state.json"


@dataclass(frozen=True)
class ResumeState:
    """A run as it stood at the end of an epoch.

    Attributes:
        facts: plain values. tensors: by name. best: those of the best epoch.
    """

    facts: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    best: dict[str, torch.Tensor]


def save(
    folder: Path, metadata: dict[str, Any], tensors: dict[str, torch.Tensor], best_tensors: dict[str, torch.Tensor]
) -> None:
    """Put a state in the place of the one before; a kill leaves the one or the other.

    Args:
        folder: of the run. facts: plain values, with ``epoch`` (of the state) and ``best`` (the epoch of the best).

    Raises:
        StoreIOError: the disk is full or fails; the state before stands.
    """
    names = {"state": f"state-{metadata['epoch']:06d}.safetensors", "best": f"best-{metadata['best']:06d}.safetensors"}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = {"state": write_tensors(folder / names["state"], tensors)}
        known = _description(folder).get("files", {})
        same = known.get("best", {}).get("file") == names["best"]
        files["best"] = known["best"] if same else write_tensors(folder / names["best"], best_tensors)
        durable_files.write_synced(folder / STATE_FILE, json.dumps({"files": files, "facts": metadata}).encode())
        for path in folder.glob("*.safetensors*"):
            if path.name not in names.values():
                path.unlink()
    except OSError as e:
        raise StoreIOError(
            f"cannot write {folder}: {e.strerror or e}; make room and run it again; it goes on from the epoch before"
        ) from e


def load(folder: Path) -> ResumeState | None:
    """The state of a run, None where it has not come to the end of an epoch.

    Raises:
        StoreDamaged: the files are not what was written.
    """
    known = _description(folder)
    if not known:
        return None
    tensors = {name: read_tensors(folder / entry["file"], entry) for name, entry in known["files"].items()}
    return ResumeState(known["facts"], tensors["state"], tensors["best"])


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """A safetensors file, whole and on the disk or not there: ``{"file", "bytes", "xxh3"}``."""
    with durable_files.atomic_path(path) as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary)
    return {"file": path.name, "bytes": path.stat().st_size, "xxh3": durable_files.file_xxh3(path)}


def read_tensors(path: Path, entry: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A safetensors file, compared with what was noted of it.

    Raises:
        StoreDamaged: it is another, or cannot be read.
    """
    cure = f"remove {path.parent} and run it again"
    try:
        if path.stat().st_size != entry["bytes"] or durable_files.file_xxh3(path) != entry["xxh3"]:
            raise StoreDamaged(f"{path} is not what was written; {cure}")
        found: dict[str, torch.Tensor] = load_file(path)
    except OSError as e:
        raise StoreDamaged(f"cannot read {path}: {e.strerror or e}; {cure}") from e
    return found


def discard(folder: Path) -> None:
    """Remove a run's folder; its description first, so that a kill leaves no half of it."""
    if folder.is_dir():
        (folder / STATE_FILE).unlink(missing_ok=True)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def _description(folder: Path) -> dict[str, Any]:
    """What stands in the folder, {} for nothing."""
    path = folder / STATE_FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
        return dict(found) if {"files", "facts"} <= set(found) else {}
    except (ValueError, RecursionError) as e:
        raise StoreDamaged(f"{path} is damaged ({type(e).__name__}); remove {folder} and run it again") from e


def bytes_of(tensors: dict[str, torch.Tensor]) -> int:
    """Bytes of some tensors."""
    return sum(t.numel() * t.element_size() for t in tensors.values())


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written where a folder is."""
    import shutil

    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
