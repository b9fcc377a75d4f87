"""Encode queries: with the loaded backbone if there is one, else with exported towers, which do not need PyTorch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from embedstore import timing
from embedstore.backbones.runtimes.onnx_encoder import (
    MAX_QUERY_THREADS,
    OnnxEncoder,
    Unavailable,
    is_exported,
    open_tower,
    record_refusal,
    tower_folder,
    was_refused,
)
from embedstore.backbones.runtimes.runtime import (
    Encoder,
    Runtime,
    Tower,
    has_onnx_export,
    require_onnx_export,
)
from embedstore.errors import (
    BadBackbone,
    EmbedstoreError,
    ItemError,
    NoTextTower,
    RuntimeMismatch,
    StoreIOError,
)
from embedstore.media.image import decode, preprocess
from embedstore.modality import Modality
from embedstore.operations.session import Session
from embedstore.resources import available_cores
from embedstore.sources.locations import read_item
from embedstore.storage.disk_errors import disk_errors
from embedstore.storage.layout import DERIVED_LOCK
from embedstore.storage.lock import writer_lock
from embedstore.storage.queries import items
from embedstore.storage.spaces import RecipeSpace, SpaceRecord

VALIDATION_IMAGES = 16  # images of the store on which an exported tower is compared with the eager backbone
TOWER_PRECISIONS = ("auto", "fp32")  # an exported tower computes in float32


def encoder(session: Session, record: SpaceRecord, tower: Tower) -> Encoder:
    """Return what encodes queries of one kind.

    Raises:
        NoTextTower: if a text query meets a space of an image-only backbone.
        MissingExtra: if the runtime ``onnx`` was requested and is not installed.
        RuntimeMismatch: if the runtime ``onnx`` was requested and its vectors differ from the eager backbone's.
        BadBackbone: if the runtime ``onnx`` was requested and the backbone cannot be exported.
    """
    plural = record.space.modality.plural
    if tower is Tower.IMAGE and record.space.modality is not Modality.IMAGE:
        raise BadBackbone(
            f"space {record.name} is of {plural}, not of images; search it with a file of {plural}, an item, or words"
        )
    if tower is Tower.TEXT and not record.space.text:
        raise NoTextTower(
            f"space {record.name} ({record.space.architecture or 'precomputed'}) has no text tower; "
            f"{_text_cure(record.space.modality)}"
        )
    runtime = session.options.runtime
    loaded = session.loaded_backbone(record.key)
    if loaded is not None and runtime is not Runtime.ONNX:
        return loaded
    if record.space.modality is not Modality.IMAGE and runtime is Runtime.ONNX:
        raise BadBackbone(f"--runtime onnx is for backbones of images; leave it out for space {record.name}")
    if runtime in (Runtime.AUTO, Runtime.ONNX) and isinstance(record, RecipeSpace):
        exported = _exported_encoder(session, record, tower)
        if exported is None and runtime is Runtime.ONNX:
            require_onnx_export()
            _export(session, record, tower)
            exported = _exported_encoder(session, record, tower)
        if exported is not None:
            return exported
    with timing.time_step(f"load PyTorch and the backbone of {record.name}"):
        backbone = session.any_backbone(record.key)
    if record.space.modality is Modality.IMAGE:  # the towers of other modalities are not exported
        session.eager_towers.add((record.key, tower))
    return backbone


def _text_cure(modality: Modality) -> str:
    """Return what searches items of a modality by words."""
    if modality is Modality.AUDIO:
        return "clips are searched by words with CLAP, e.g. `--backbone hf/laion/clap-htsat-unfused`, or by a clip"
    return "text queries need a CLIP, e.g. `--backbone clip`; `embedstore backbones --text` lists them"


def export_towers(session: Session, space: str | None, towers: Sequence[str] | None, *, wait: float) -> list[str]:
    """Export towers of a space; see :meth:`embedstore.Store.export_towers`."""
    require_onnx_export()
    record = session.space(space)
    wanted = [Tower(t) for t in towers or ("image", "text")]
    if towers is None and not record.space.text:
        wanted.remove(Tower.TEXT)
    folder = session.storage.layout.towers_folder(record.key)
    with disk_errors(f"write towers to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
    with writer_lock(folder / DERIVED_LOCK, f"export towers of {record.name}", wait=wait):
        return [_export(session, record, tower) for tower in wanted]


def export_used_towers(session: Session) -> list[str]:
    """Export the towers that this process ran with PyTorch, so that the next process starts without it.

    A tower that cannot be exported never raises: the refusal is recorded and not tried again.

    Returns:
        One sentence per tower.
    """
    writable = os.access(session.path / "spaces", os.W_OK)
    if session.options.runtime is not Runtime.AUTO or not has_onnx_export() or not writable:
        return []
    sentences = []
    for key, tower in sorted(session.eager_towers):
        record = session.space(key)
        folder = session.storage.layout.towers_folder(key)
        if was_refused(folder, tower) or is_exported(folder, tower, key):
            continue
        try:
            sentences.append(_export(session, record, tower))
        except (BadBackbone, RuntimeMismatch) as e:
            sentences.append(f"the {tower} tower of {record.name} cannot be exported for faster searches: {e}")
            record_refusal(folder, tower, str(e))
        except EmbedstoreError as e:
            sentences.append(f"the {tower} tower of {record.name} was not exported: {e}")
    return sentences


def _exported_encoder(session: Session, record: SpaceRecord, tower: Tower) -> OnnxEncoder | None:
    """Return the exported tower of a space, None if there is none that fits the device and precision."""
    if session.options.device not in ("auto", "cpu") or session.options.precision not in TOWER_PRECISIONS:
        return None
    key = (record.key, tower)
    if key not in session.towers:
        with timing.time_step(f"open the {tower} tower"):
            folder = session.storage.layout.towers_folder(record.key)
            threads = min(available_cores(), MAX_QUERY_THREADS)
            opened = open_tower(folder, tower, record.key, threads=threads, fast_start=True)
        if isinstance(opened, Unavailable):
            return None
        image, text = (opened, None) if tower is Tower.IMAGE else (None, opened)
        session.towers[key] = OnnxEncoder(record.space, image=image, text=text)
    return session.towers[key]


def _export(session: Session, record: SpaceRecord, tower: Tower) -> str:
    """Export one tower and return a sentence about it."""
    from embedstore.backbones.runtimes.export import export_tower

    backbone = session.backbone(record.key)
    folder = session.storage.layout.towers_folder(record.key)
    pixels = _validation_pixels(session, record) if tower is Tower.IMAGE else None
    try:
        agreement, seconds = export_tower(backbone, folder, tower, pixels)
    except OSError as e:
        raise StoreIOError(f"cannot write the {tower} tower to {folder}: {e.strerror or e}") from e
    session.towers.pop((record.key, tower), None)
    size = sum(p.stat().st_size for p in tower_folder(folder, tower).iterdir())
    return (
        f"exported the {tower} tower of {record.name} for searches without PyTorch: {size / 1e6:,.0f} MB, "
        f"{agreement}, {seconds:.1f} s"
    )


def _validation_pixels(session: Session, record: SpaceRecord) -> NDArray[np.uint8] | None:
    """Return preprocessed images of the store, None if no file can be read."""
    settings = record.space.preprocess
    if settings is None:
        return None
    pixels = [preprocess.resize_and_crop(image, settings) for image in validation_images(session, record)]
    return np.stack(pixels) if pixels else None


def validation_images(session: Session, record: SpaceRecord) -> Iterator[Image]:
    """Yield upright RGB images of the store, at most :data:`VALIDATION_IMAGES`; those that can be read."""
    settings = record.space.preprocess
    found = 0
    for uri, path in items.embedded_files(session.storage, record.key, limit=4 * VALIDATION_IMAGES):
        try:
            image = decode.open_image(read_item(uri, path), settings.decoding_settings if settings else {})[0]
        except ItemError:
            continue
        yield image
        found += 1
        if found == VALIDATION_IMAGES:
            return
