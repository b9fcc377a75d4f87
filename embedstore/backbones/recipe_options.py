"""What a recipe asks of any library's network: constructor arguments, preprocessing, random weights."""

from __future__ import annotations

from collections.abc import Collection

from embedstore.backbones.error_text import one_line
from embedstore.errors import BadBackbone
from embedstore.space import JsonScalar, Preprocess, Recipe, override_preprocess

# The preprocessing of a network that declares none: the recipe must override size, mean and std.
UNDECLARED_PREPROCESS = Preprocess((1, 1), (1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def reject_reserved_args(recipe: Recipe, reserved: Collection[str]) -> None:
    """Refuse constructor arguments that embedstore sets itself.

    Raises:
        BadBackbone: when the recipe gives one of them.
    """
    if forbidden := sorted(set(reserved) & set(recipe.args)):
        raise BadBackbone(f"--backbone-arg {', '.join(forbidden)} is set by embedstore; leave it out")


def apply_preprocess_overrides(preprocess: Preprocess, overrides: dict[str, JsonScalar]) -> Preprocess:
    """Return the network's own preprocessing with the user's overrides.

    Raises:
        BadBackbone: when a name is unknown or a value does not parse.
    """
    try:
        return override_preprocess(preprocess, overrides)
    except ValueError as error:
        raise BadBackbone(f"--preprocess: {one_line(error)}") from error


def requested_size(recipe: Recipe) -> tuple[int, int] | None:
    """Return the input size ``(height, width)`` of ``--preprocess size=``, or None if the recipe has none.

    Raises:
        BadBackbone: when the size does not parse.
    """
    if "size" not in recipe.preprocess:
        return None
    return apply_preprocess_overrides(UNDECLARED_PREPROCESS, {"size": recipe.preprocess["size"]}).size


def weights_origin(recipe: Recipe, default: str) -> str:
    """Return where the weights come from: a seed, the recipe's file, or ``default``."""
    if recipe.random_init:
        return f"random weights of seed {recipe.seed}"
    return recipe.weights or default
