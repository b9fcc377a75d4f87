"""Tensors as safetensors files that are complete on disk, with the size and checksum to verify them by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from embedstore.errors import StoreDamaged
from embedstore.storage import durable_files, reading

FileEntry = dict[str, Any]
"""``{"file", "bytes", "xxh3"}``: name, size and checksum of a file, as manifests store them."""


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> FileEntry:
    """Write a safetensors file atomically and return its entry.

    Raises:
        OSError: if the disk is full or fails.
    """
    with durable_files.atomic_path(path) as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary)
    return {"file": path.name, "bytes": path.stat().st_size, "xxh3": durable_files.file_xxh3(path)}


def read_tensors(folder: Path, entry: FileEntry) -> dict[str, torch.Tensor]:
    """Read a safetensors file after comparing it with its entry.

    Args:
        folder: the folder that holds the file.
        entry: the entry of a manifest, which may come from somebody else.

    Raises:
        StoreDamaged: if the entry names no file of the folder, or the file is missing or differs from it.
        StoreUnreadable: if the file cannot be read now.
    """
    cure = f"remove {folder} and run the same command again"
    name = entry.get("file")
    if not isinstance(name, str) or not name or Path(name).name != name or "\0" in name:
        raise StoreDamaged(f"the manifest in {folder} names {name!r}, which is not a file of this folder; {cure}")
    path = folder / name
    try:
        with reading.read_errors(path):
            if path.stat().st_size != entry["bytes"] or durable_files.file_xxh3(path) != entry["xxh3"]:
                raise StoreDamaged(f"{path} does not match its size and checksum; {cure}")
    except KeyError as e:
        raise StoreDamaged(f"the manifest in {folder} lacks {e} of {name}; {cure}") from e
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as e:
        raise StoreDamaged(f"{path} is not a safetensors file ({e}); {cure}") from e
    except OSError as e:  # the file was read a moment ago, but safetensors calls every error a missing file
        raise reading.unreadable(path, e) from e
    return tensors
