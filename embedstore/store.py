"""The store as a person has it: every verb in one class, and how it is made and opened. No logic of its own."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Unpack

from embedstore.backbones import load
from embedstore.backbones.runtimes.runtime import Runtime, parse_runtime, require_onnx_export
from embedstore.errors import StoreExists
from embedstore.operations.advise import Advising
from embedstore.operations.edit import Changing
from embedstore.operations.evaluate import ZeroShot
from embedstore.operations.ingest import Putting
from embedstore.operations.maintenance import Caring
from embedstore.operations.recipes import BackboneOptions, recipe_of
from embedstore.operations.search import Asking
from embedstore.storage.storage import Storage

__all__ = ["BackboneOptions", "Store", "ZeroShot", "create", "open_store"]


class Store(Putting, Asking, Changing, Advising, Caring):
    """One store: a folder with items, spaces and their vectors.

    Made by :func:`embedstore.create` and :func:`embedstore.open`.
    """


def create(
    path: str | Path,
    backbone: str | None = None,
    *,
    dtype: str = "float16",
    name: str | None = None,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    **options: Unpack[BackboneOptions],
) -> Store:
    """Make a store, with the space of a backbone unless none is named.

    Args:
        path: a new folder.
        backbone: ``timm/<name>[.tag]``, ``open_clip/<arch>:<pretrained>``, ``module:factory`` or an alias.
            None makes a store for precomputed vectors, or for a backbone named later.
        dtype: of the vectors on disk, ``float16`` or ``float32``.
        name: of the space. device, precision: ``auto`` or as torch names them.
        runtime: ``auto``, ``eager``, ``onnx`` or ``compile``; no part of the space, see :func:`open_store`.
        options: see :class:`BackboneOptions`.

    Raises:
        StoreExists: something is at ``path``.
        UnknownBackbone, WeightsNotFound, WeightsMismatch, BadBackbone: as their names say; nothing is made then.
    """
    if backbone is None:
        return Store(Storage.create(path), device=device, precision=precision, runtime=runtime)
    if Path(path).exists() and any(Path(path).iterdir()):
        raise StoreExists(f"{path} exists already; open it, or choose another folder")
    recipe = recipe_of(backbone, **options)
    if parse_runtime(runtime) is Runtime.ONNX:
        require_onnx_export()
    network = load(recipe, device=device, precision=precision, allow_code={recipe.backbone})
    how = {"device": device, "precision": precision, "runtime": runtime}
    store = Store(Storage.create(path), **how, allow_code={recipe.backbone})
    store.register(network, recipe, name=name, dtype=dtype)
    return store


def open_store(
    path: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    runtime: str = "auto",
    decoder: str = "auto",
    allow_code: Collection[str] = (),
) -> Store:
    """Open a store; a crash's traces are mended first.

    Args:
        path: its folder.
        device, precision: for backbones loaded later.
        runtime: ``auto`` (eager for short runs; onnxruntime where it is installed, pays and is as exact), ``eager``,
            ``onnx`` or ``compile``. Vectors are the same in all; one that is further off than cosine 0.9999 is refused.
        decoder: ``auto``, ``pillow`` (the libraries' own bytes) or ``quick``; on a GPU ``device`` and ``hardware`` too.
            Held to the same bound.
        allow_code: ``module:factory`` names that this store's spaces may import.

    Raises:
        StoreNotFound, NotAStore, StoreTooNew, StoreDamaged: as their names say.
    """
    how = {"device": device, "precision": precision, "runtime": runtime, "decoder": decoder}
    return Store(Storage.open(path), **how, allow_code=allow_code)
