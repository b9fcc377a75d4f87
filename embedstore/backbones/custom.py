"""A user's own network, named ``module:factory``: imported only if the user has allowed it."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
import tokenize
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from embedstore.backbones import weights
from embedstore.backbones.base import LoadedNetwork
from embedstore.backbones.error_text import one_line
from embedstore.backbones.random_state import seeded_cpu
from embedstore.backbones.recipe_options import UNDECLARED_PREPROCESS, apply_preprocess_overrides, weights_origin
from embedstore.backbones.registry import FACTORY_PATTERN
from embedstore.errors import BadBackbone, CodeNotAllowed, UnknownBackbone, WeightsNotFound
from embedstore.space import Family, Preprocess, Recipe

REQUIRED_PREPROCESS = {"size": "input_size", "mean": "mean", "std": "std"}  # our name -> timm's in pretrained_cfg


def load(recipe: Recipe, allow_code: Collection[str]) -> LoadedNetwork:
    """Load the network that ``factory(**args)`` returns; its forward maps ``(B, 3, H, W)`` to ``(B, D)``.

    Raises:
        CodeNotAllowed: when the name is not in ``allow_code``.
        UnknownBackbone: when there is no such module or factory.
        BadBackbone: when the factory fails, returns no network, or does not declare its preprocessing.
        WeightsNotFound: when there is no such weights file, or the factory returns random weights.
        WeightsMismatch: when the weights do not fit exactly.
    """
    name = recipe.backbone
    if not FACTORY_PATTERN.fullmatch(name):
        raise UnknownBackbone(f"unknown backbone {name!r}; use timm/…, open_clip/… or module:factory")
    if name not in ({allow_code} if isinstance(allow_code, str) else allow_code):
        raise CodeNotAllowed(
            f"backbone {name} is Python code of module {name.partition(':')[0]}, and a store must not run code by "
            f"itself; if you trust it, add --allow-code {name}"
        )
    if recipe.layer or recipe.pool:
        raise BadBackbone(f"{name} returns its own vectors; --layer and --pool are for timm and open_clip")
    factory = _import_factory(name)
    module = _create_module(recipe, factory)
    return LoadedNetwork(
        family=Family.CUSTOM,
        architecture=f"{name}#{_code_digest(factory)}",
        weights=weights.digest(module, is_random=recipe.random_init),
        module=module,
        features=module,
        preprocess=apply_preprocess_overrides(_declared_preprocess(module, recipe), recipe.preprocess),
        layer="",
        pool="",
        origin=weights_origin(recipe, name),
    )


def _import_factory(name: str) -> Callable[..., Any]:
    """Import ``module:factory``, with the current folder first on the path.

    Raises:
        UnknownBackbone: when there is no such module or factory.
        BadBackbone: when importing the module fails.
    """
    module_name, _, attribute = name.partition(":")
    with _current_folder_on_path():
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # a user's own code may fail in any way
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing and module_name.startswith(missing):
                raise UnknownBackbone(f"no module {module_name!r} in {Path.cwd()} or on the Python path") from error
            raise BadBackbone(f"importing {module_name} failed: {one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UnknownBackbone(f"module {module_name} has no callable {attribute!r}")
    return factory  # type: ignore[no-any-return]


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """Put the current folder on ``sys.path``, as ``python -m`` does."""
    folder = str(Path.cwd())
    is_added = folder not in sys.path and "" not in sys.path
    if is_added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if is_added and folder in sys.path:
            sys.path.remove(folder)


def _create_module(recipe: Recipe, factory: Callable[..., Any]) -> nn.Module:
    """Return the network with its weights: from a file, random on request, or the factory's own.

    Raises:
        WeightsNotFound: when the factory returns random weights that the recipe does not ask for.
    """
    module = _call_factory(recipe, factory, recipe.seed)
    if recipe.weights:
        path = weights.resolve_file(recipe.weights)
        weights.load_strict(module, weights.read(path), recipe.backbone, str(path))
    elif not recipe.random_init:
        second = _call_factory(recipe, factory, recipe.seed + 1)
        if weights.digest(module) != weights.digest(second):
            raise WeightsNotFound(
                f"{recipe.backbone} returns random weights: two calls return different ones; give a file with "
                "--weights FILE, load the weights in the factory, or use --random-init"
            )
    return module


def _call_factory(recipe: Recipe, factory: Callable[..., Any], seed: int) -> nn.Module:
    """Call ``factory(**args)`` with a seed.

    Raises:
        BadBackbone: when the factory fails, or returns something else than a network.
    """
    with seeded_cpu(seed):
        try:
            module = factory(**recipe.args)
        except Exception as error:  # a user's own code may fail in any way
            raise BadBackbone(f"{recipe.backbone} failed with {recipe.args}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise BadBackbone(f"{recipe.backbone} must return a torch.nn.Module, not {type(module).__name__}")
    return module.eval()


def _declared_preprocess(module: nn.Module, recipe: Recipe) -> Preprocess:
    """Return the preprocessing of the network's ``pretrained_cfg`` (timm's scheme), for the recipe to override.

    Raises:
        BadBackbone: when neither declares the size, mean or std: a guess would give wrong vectors.
    """
    config = dict(getattr(module, "pretrained_cfg", None) or {})
    missing = [n for n, key in REQUIRED_PREPROCESS.items() if key not in config and n not in recipe.preprocess]
    if missing:
        raise BadBackbone(
            f"{recipe.backbone} does not declare its preprocessing ({', '.join(missing)}); give --preprocess size=… "
            "--preprocess mean=… --preprocess std=…, or set pretrained_cfg on the network"
        )
    if config:
        from embedstore.backbones.timm_models import timm_preprocess

        return timm_preprocess(module)
    return UNDECLARED_PREPROCESS


def _code_digest(factory: Callable[..., Any]) -> str:
    """Return 8 hexadecimal digits of the code in the factory's file, without comments and spaces.

    The weights alone do not determine what a network computes: a changed forward is another space.
    """
    try:
        source = Path(inspect.getsourcefile(factory) or "").read_text(encoding="utf-8")
        skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE}
        tokens = (
            t.string.strip() for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in skipped
        )
        text = "\0".join(t for t in tokens if t)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        text = ""  # no source: a compiled module or a notebook cell
    return hashlib.sha256(text.encode()).hexdigest()[:8] if text else "unknown"
