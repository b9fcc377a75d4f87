"""A user's own network, named ``module:factory``: imported only where the user has allowed it."""

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

import torch
from torch import nn

from embedstore.backbones import weights
from embedstore.backbones.base import LoadedNetwork
from embedstore.backbones.error_text import apply_preprocess_overrides, one_line
from embedstore.backbones.registry import FACTORY_PATTERN
from embedstore.errors import BadBackbone, CodeNotAllowed, UnknownBackbone, WeightsNotFound
from embedstore.space import Family, Preprocess, Recipe

REQUIRED_PREPROCESS = ("size", "mean", "std")


def load(recipe: Recipe, allow_code: Collection[str]) -> LoadedNetwork:
    """The network that ``factory(**args)`` gives: forward ``(B, 3, H, W)`` to ``(B, D)``.

    Raises:
        CodeNotAllowed: the name is not in ``allow_code``.
        UnknownBackbone: no such module or factory.
        BadBackbone: the factory fails, gives no network, or says nothing of its preprocessing.
        WeightsNotFound, WeightsMismatch: the weights file is absent, or does not fit exactly.
    """
    name = recipe.backbone
    if not FACTORY_PATTERN.fullmatch(name):
        raise UnknownBackbone(f"unknown backbone {name!r}; use timm/…, open_clip/… or module:factory")
    if name not in ({allow_code} if isinstance(allow_code, str) else allow_code):
        raise CodeNotAllowed(
            f"backbone {name} is Python code of module {name.partition(':')[0]}, which a store must not run by itself; "
            f"if you trust it, add --allow-code {name}"
        )
    if recipe.layer or recipe.pool:
        raise BadBackbone(f"{name} gives its own vectors; --layer and --pool are for timm and open_clip")
    factory = _factory(name)
    module = _module(recipe, factory)
    own = _own_preprocess(module, recipe)
    return LoadedNetwork(
        family=Family.CUSTOM,
        architecture=f"{name}#{_fingerprint(factory)}",
        weights=("random:" if recipe.random_init else "") + weights.digest(module),
        module=module,
        features=module,
        preprocess=apply_preprocess_overrides(own, recipe.preprocess),
        layer="",
        pool="",
        origin=recipe.weights or (f"random weights of seed {recipe.seed}" if recipe.random_init else name),
    )


def _factory(name: str) -> Callable[..., Any]:
    """Import ``module:factory``, with the current folder first on the path.

    Raises:
        UnknownBackbone, BadBackbone: not there, or its import fails.
    """
    module_name, _, attribute = name.partition(":")
    with _here_on_path():
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name and module_name.startswith(error.name):
                raise UnknownBackbone(f"no module {module_name!r} in {Path.cwd()} or on the Python path") from error
            raise BadBackbone(f"importing {module_name} failed: {one_line(error)}") from error
        except Exception as error:  # a user's own code may fail in any way
            raise BadBackbone(f"importing {module_name} failed: {one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UnknownBackbone(f"module {module_name} has no callable {attribute!r}")
    return factory  # type: ignore[no-any-return]


@contextmanager
def _here_on_path() -> Iterator[None]:
    """The current folder on ``sys.path``, as ``python -m`` has it."""
    here = str(Path.cwd())
    added = here not in sys.path and "" not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        yield
    finally:
        if added and here in sys.path:
            sys.path.remove(here)


def _module(recipe: Recipe, factory: Callable[..., Any]) -> nn.Module:
    """The network with its weights: of a file, random on purpose, or the factory's own."""
    module = _called(recipe, factory, recipe.seed)
    if recipe.weights:
        path = weights.resolve_file(recipe.weights)
        weights.load_strict(module, weights.read(path), recipe.backbone, str(path))
    elif not recipe.random_init:
        other = _called(recipe, factory, recipe.seed + 1)
        if weights.digest(module) != weights.digest(other):
            raise WeightsNotFound(
                f"{recipe.backbone} gives random weights: every call gives others; give a file with --weights FILE, "
                "load the weights in the factory, or say --random-init"
            )
    return module


def _called(recipe: Recipe, factory: Callable[..., Any], seed: int) -> nn.Module:
    """``factory(**args)`` under a seed.

    Raises:
        BadBackbone: it fails, or gives something else than a network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = factory(**recipe.args)
        except Exception as error:  # a user's own code may fail in any way
            raise BadBackbone(f"{recipe.backbone} failed with {recipe.args}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise BadBackbone(f"{recipe.backbone} must return a torch.nn.Module, not {type(module).__name__}")
    return module.eval()


def _own_preprocess(module: nn.Module, recipe: Recipe) -> Preprocess:
    """Preprocessing from the network's ``pretrained_cfg`` (timm's scheme), else from the recipe alone.

    Raises:
        BadBackbone: a size, mean or std that neither of them says: a guess would give wrong vectors in silence.
    """
    config = dict(getattr(module, "pretrained_cfg", None) or {})
    said = {"size": "input_size" in config, "mean": "mean" in config, "std": "std" in config}
    if lacking := [n for n in REQUIRED_PREPROCESS if not said[n] and n not in recipe.preprocess]:
        raise BadBackbone(
            f"{recipe.backbone} does not say how images are prepared ({', '.join(lacking)}); give --preprocess size=… "
            "--preprocess mean=… --preprocess std=…, or a pretrained_cfg on the network"
        )
    if config:
        from embedstore.backbones.timm_models import timm_preprocess

        return timm_preprocess(module)  # what it does not say is overridden by the recipe
    blank = Preprocess((1, 1), (1, 1), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return apply_preprocess_overrides(
        blank, {n: recipe.preprocess[n] for n in REQUIRED_PREPROCESS if n in recipe.preprocess}
    )


def _fingerprint(factory: Callable[..., Any]) -> str:
    """8 digits of the code that the factory stands in; comments and spaces do not count.

    The weights alone do not say what a network computes: a changed forward is another space.
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
