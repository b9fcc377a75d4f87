"""Add, rename, drop spaces, and set the default one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedstore.backbones import load, resolve_name
from embedstore.backbones.recipe_identity import has_identity, keep_identity, recipe_identity
from embedstore.backbones.runtimes.onnx_encoder import is_exported
from embedstore.backbones.runtimes.runtime import Runtime, Tower, require_onnx_export
from embedstore.classify.registry import HeadRecord
from embedstore.errors import BadOption, EmbedstoreError, LabelError, StoreExists
from embedstore.media.image.formats.registry import check_decoding
from embedstore.operations import evaluate, heads, zero_shot
from embedstore.operations.arguments import describe, python_scalar
from embedstore.operations.results import DefaultSpace, DroppedSpace
from embedstore.operations.session import OpenOptions, Session
from embedstore.space import JsonScalar, Recipe, decoding_overrides
from embedstore.storage import space_changes
from embedstore.storage.queries import spaces as queries
from embedstore.storage.shard import DTYPES
from embedstore.storage.spaces import RecipeSpace, SpaceRecord, related_spaces
from embedstore.storage.storage import Storage

if TYPE_CHECKING:
    from embedstore.backbones.base import Backbone
    from embedstore.backbones.sequence import SequenceBackbone


def make_recipe(
    backbone: str,
    *,
    weights: str | Path | None = None,
    backbone_args: Mapping[str, JsonScalar] | None = None,
    preprocess: Mapping[str, JsonScalar] | None = None,
    layer: str | None = None,
    pool: str | None = None,
    random_init: bool = False,
    seed: int = 0,
) -> Recipe:
    """Return how to load a backbone, from what a user says of it.

    Raises:
        BadOption: if a value is neither text nor a number, or the preprocessing has a setting of a decoder that no
            installed decoder has.
    """
    overrides = _plain_values("preprocess", preprocess or {})
    check_decoding(decoding_overrides(overrides))
    return Recipe(
        backbone=resolve_name(backbone),
        weights=str(Path(weights).absolute()) if weights else None,
        args=_plain_values("backbone_args", backbone_args or {}),
        preprocess=overrides,
        layer=layer,
        pool=pool,
        random_init=random_init,
        seed=seed,
    )


def _plain_values(parameter: str, values: Mapping[str, Any]) -> dict[str, JsonScalar]:
    """Return values that a recipe can record; numbers in a list become text with commas, as on the command line.

    Raises:
        BadOption: if a value is something else.
    """
    return {str(name): _plain_value(f"{parameter}[{name!r}]", value) for name, value in values.items()}


def _plain_value(name: str, value: Any) -> JsonScalar:
    """Return one such value."""
    is_list = np.iterable(value) and not isinstance(value, str | bytes | Mapping)
    parts = [python_scalar(part) for part in value] if is_list else [python_scalar(value)]
    allowed = int | float if is_list else JsonScalar
    if not all(isinstance(part, allowed) and (not isinstance(part, float) or math.isfinite(part)) for part in parts):
        raise BadOption(f"{name} is text, a number or a list of numbers, not {describe(value)}")
    return ",".join(map(str, parts)) if is_list else parts[0]


def default_space_name(backbone: str) -> str:
    """Return a short name: ``timm/resnet50.a1_in1k`` gives ``resnet50``, ``mine:tiny`` gives ``tiny``."""
    if "/" not in backbone:
        return backbone.rsplit(":", 1)[-1]
    return backbone.rsplit("/", 1)[-1].split(":", 1)[0].split(".", 1)[0]


def create_store(path: Path, recipe: Recipe, options: OpenOptions, *, dtype: str, space_name: str | None) -> Session:
    """Create a store with the space of a backbone; nothing is created if the backbone cannot be loaded."""
    if path.exists() and any(path.iterdir()):
        raise StoreExists(f"{path} exists already; open it, or choose another folder")
    if options.runtime is Runtime.ONNX:
        require_onnx_export()
    allowed = replace(options, allow_code=options.allow_code | {recipe.backbone})
    backbone = load(recipe, device=options.device, precision=options.precision, allow_code=allowed.allow_code)
    session = Session(Storage.create(path), allowed)
    register_space(session, backbone, recipe, dtype=dtype, space_name=space_name)
    return session


def add_space(session: Session, recipe: Recipe, *, dtype: str, space_name: str | None, wait: float) -> SpaceRecord:
    """Add the space of a backbone; see :meth:`embedstore.Store.add_space`."""
    require_dtype(dtype)
    session.allow_code(recipe.backbone)
    if known := _known_space(session, recipe):
        return known
    identity = recipe_identity(recipe)
    backbone = session.load_any(recipe)
    record = register_space(session, backbone, recipe, dtype=dtype, space_name=space_name, wait=wait)
    keep_identity(session.storage.layout.towers_folder(record.key), identity)
    return record


def _known_space(session: Session, recipe: Recipe) -> SpaceRecord | None:
    """Return the space that a recipe gave before, if its exported tower embeds; None where it has to be loaded."""
    if session.options.runtime not in (Runtime.AUTO, Runtime.ONNX) or not session.computes_on_cpu:
        return None
    for record in session.storage.spaces():
        folder = session.storage.layout.towers_folder(record.key)
        if (
            isinstance(record, RecipeSpace)
            and record.recipe == recipe
            and is_exported(folder, Tower.IMAGE, record.key)
            and has_identity(folder, recipe)
        ):
            return record
    return None


def register_space(
    session: Session,
    backbone: Backbone | SequenceBackbone,
    recipe: Recipe,
    *,
    dtype: str,
    space_name: str | None,
    wait: float = 0.0,
) -> SpaceRecord:
    """Add the space of a loaded backbone."""
    require_dtype(dtype)
    name = space_name or default_space_name(recipe.backbone)
    with session.storage.writer(f"add space {recipe.backbone}", wait=wait) as writer:
        writer.add_space(backbone.space, name=name, dtype=dtype, recipe=recipe)
    session.keep_backbone(backbone)
    return session.space(backbone.space.key)


def require_dtype(dtype: str) -> None:
    """Check the type of the vectors on disk.

    Raises:
        BadOption: if it is unknown.
    """
    if dtype not in DTYPES:
        raise BadOption(f"dtype must be {' or '.join(DTYPES)}, not {dtype!r}")


def rename(session: Session, old: str, new: str, *, wait: float) -> None:
    """Rename a space; see :meth:`embedstore.Store.rename_space`."""
    with session.storage.writer(f"rename space {old}", wait=wait) as writer:
        space_changes.rename_space(session.storage, writer, old, new)


def drop(session: Session, space: str, *, wait: float) -> DroppedSpace:
    """Remove a space; see :meth:`embedstore.Store.drop_space`."""
    record = session.space(space)
    with session.storage.writer(f"drop space {record.name}", wait=wait) as writer:
        counts = space_changes.drop_space(session.storage, writer, record)
    session.forget_backbone(record.key)
    return DroppedSpace(**counts)


def set_default(session: Session, space: str, *, refit_heads: bool, wait: float) -> DefaultSpace:
    """Set the default space; see :meth:`embedstore.Store.set_default`."""
    record = session.space(space)
    refitted, skipped = _refit_heads(session, record) if refit_heads else ([], [])
    with session.storage.writer(f"set default space {record.name}", wait=wait) as writer:
        writer.set_default(record.key)
    missing = queries.contents_without_vector(session.storage, record.key)
    return DefaultSpace(record.name, missing, refitted, skipped)


def _refit_heads(session: Session, record: SpaceRecord) -> tuple[list[str], list[str]]:
    """Fit the heads of all related spaces again in this one; return names, and why some were skipped."""
    related = related_spaces(session.storage.spaces(), record.key)
    refitted, skipped = [], []
    for head in heads.saved_heads(session):
        if head.space_key in related:
            try:
                _refit(session, head, record)
                refitted.append(head.name)
            except EmbedstoreError as e:
                skipped.append(f"{head.name} ({head.kind}): {e}")
    return refitted, skipped


def _refit(session: Session, head: HeadRecord, record: SpaceRecord) -> None:
    """Fit one head again with the options that it was made with."""
    from embedstore.classify.heads import HEAD_NAMES

    if head.metadata.get("numbers"):
        evaluate.probe(
            session, head.label, head=head.kind, task=head.metadata["task"], space=record.key, save_as=head.name
        )
        return
    if hasattr(heads.load(session, head.name), "head"):
        raise LabelError("it is calibrated or abstains: fit it again with the options that it was made with")
    if head.kind == "zero_shot":
        zero_shot.zero_shot(session, head.metadata["classes"], space=record.key).save(head.name, label=head.label)
        return
    if head.kind not in HEAD_NAMES:
        raise LabelError(f"a head of kind {head.kind} is fitted again by the command that made it")
    options = {"k": head.metadata["k"]} if head.kind == "knn" and "k" in head.metadata else {}
    evaluate.probe(session, head.label, head=head.kind, space=record.key, save_as=head.name, head_options=options)
