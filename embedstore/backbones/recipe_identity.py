"""What decides which network a recipe loads, as one text: while it is unchanged, so is the space.

The text is kept next to the exported towers of a space. A command that names the backbone again compares it, and
neither loads the network nor imports PyTorch to learn which space is meant.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from embedstore.backbones.stored_recipes import names_code, own_folder
from embedstore.space import Recipe
from embedstore.storage import durable_files
from embedstore.storage.store_files import read_bounded
from embedstore.versions import package_version

IDENTITY_FILE = "recipe.json"
_LIBRARIES = ("embedstore", "torch", "timm", "open_clip_torch", "transformers")


def recipe_identity(recipe: Recipe) -> str | None:
    """Return what decides which network a recipe loads: the recipe, the libraries, and the bytes of its weights file.

    Args:
        recipe: how to load a backbone; its weights file has an absolute path.

    Returns:
        None where that cannot be known without loading it: code, a network's own folder, a file that cannot be read.
    """
    if names_code(recipe) or own_folder(recipe.backbone) is not None:
        return None
    try:
        weights = durable_files.file_xxh3(Path(recipe.weights)) if recipe.weights else ""
    except OSError:
        return None
    versions = {name: package_version(name) for name in _LIBRARIES}
    return json.dumps({"recipe": recipe.to_json(), "weights": weights, "versions": versions}, indent=1) + "\n"


def keep_identity(towers_folder: Path, identity: str | None) -> None:
    """Keep the identity of the recipe that gave a space, unless the folder cannot be written.

    Args:
        towers_folder: the folder of the space's towers.
        identity: what :func:`recipe_identity` returned before the network was loaded; None removes an older one.
    """
    file = towers_folder / IDENTITY_FILE
    with suppress(OSError):
        if identity is None:
            file.unlink(missing_ok=True)
            return
        towers_folder.mkdir(parents=True, exist_ok=True)
        durable_files.write_synced(file, identity.encode())


def has_identity(towers_folder: Path, recipe: Recipe) -> bool:
    """Return whether a recipe would load the network that gave a space."""
    try:
        kept = read_bounded(towers_folder / IDENTITY_FILE)
    except (OSError, ValueError):
        return False
    identity = recipe_identity(recipe)
    return identity is not None and kept == identity.encode()
