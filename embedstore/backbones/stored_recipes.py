"""What a recipe of a store may name: the store may come from somebody else."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

from embedstore.backbones.registry import FACTORY_PATTERN, HF_PREFIX, LOCAL_DIR_PREFIX
from embedstore.errors import UnsafeStore
from embedstore.space import Recipe

_LOCAL_DIR = f"open_clip/{LOCAL_DIR_PREFIX}"
_HF_FOLDER = f"{HF_PREFIX}/"  # an absolute path; any other name is one of the hub


def recipe_problem(recipe: Recipe, store: Path) -> str:
    """Return what a recipe names that no recipe of a store of ours names, or "".

    Weights are a checkpoint of the store, or a file outside of it that the maker of the store gave; a network's own
    folder (``open_clip/local-dir:``, ``hf/``) is outside of it, since its description is not part of any checksum.

    Args:
        recipe: how to load a backbone.
        store: the folder of the store.
    """
    weights = recipe.weights
    if weights and (_is_inside(weights, store) or not Path(weights).is_absolute()):
        is_checkpoint = _is_inside(weights, store, "checkpoints") and weights.endswith(".safetensors")
        if not is_checkpoint:
            return f"weights {weights!r:.200}, which are not a checkpoint of the store"
    folder = own_folder(recipe.backbone)
    if folder is not None and (not Path(folder).is_absolute() or _is_inside(folder, store)):
        return f"the network in {folder!r:.200}, which is inside the store"
    return ""


def own_folder(backbone: str) -> str | None:
    """Return the folder that a backbone names; None if it names none."""
    if backbone.startswith(_LOCAL_DIR):
        return backbone.removeprefix(_LOCAL_DIR)
    return backbone.removeprefix(HF_PREFIX) if backbone.startswith(_HF_FOLDER) else None


def names_code(recipe: Recipe) -> bool:
    """Return whether a backbone is Python code, which runs only if its name is allowed."""
    return FACTORY_PATTERN.fullmatch(recipe.backbone) is not None


def require_safe_recipe(recipe: Recipe, store: Path) -> None:
    """Refuse a recipe that names something inside the store other than a checkpoint.

    Raises:
        UnsafeStore: if it does.
    """
    if problem := recipe_problem(recipe, store):
        raise UnsafeStore(
            f"a space of {store} names {problem}; name the backbone and its weights yourself: `embedstore embed STORE "
            f"SOURCE --backbone NAME --weights FILE{recipe_options(recipe)}`"
        )


def recipe_options(recipe: Recipe) -> str:
    """Return the options of `embed` that describe a backbone beside its name and weights, each after a blank."""
    given = {"layer": recipe.layer, "pool": recipe.pool}
    words = [part for name, value in given.items() if value is not None for part in (f"--{name}", value)]
    for option, values in (("--backbone-arg", recipe.args), ("--preprocess", recipe.preprocess)):
        words += [part for name, value in values.items() for part in (option, f"{name}={json.dumps(value)}")]
    return "".join(f" {shlex.quote(word)}" for word in words)


def _is_inside(path: str, store: Path, folder: str = "") -> bool:
    """Return whether a path, from the store on, is inside a folder of the store, whatever links lead there."""
    real, root = os.path.realpath(store / path), os.path.realpath(store / folder)
    return real == root or real.startswith(root + os.sep)
