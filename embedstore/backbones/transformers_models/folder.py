"""The folder of a model: a local one, or the files of a repository of the hub, from the cache or downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedstore.backbones import weights
from embedstore.backbones.error_text import one_line
from embedstore.backbones.registry import HF_PREFIX
from embedstore.errors import BadBackbone, MissingExtra, WeightsMismatch, WeightsNotFound
from embedstore.json_objects import parse_json_object
from embedstore.space import Recipe

CONFIG_FILE = "config.json"
WEIGHTS_PATTERNS = ("*.safetensors", "*.bin")
HUB_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "[0-9]_*/*")  # no weights for other frameworks


@dataclass(frozen=True)
class ModelFolder:
    """The files of a model.

    Attributes:
        path: the folder.
        name: the name of the model in messages, as the user wrote it.
        config: the parsed configuration of ``transformers``.
    """

    path: Path
    name: str
    config: Any

    @property
    def model_type(self) -> str:
        """The architecture, such as ``bert``."""
        return str(self.config.model_type)

    def has(self, *names: str) -> bool:
        """Return whether one of some files is there."""
        return any((self.path / name).is_file() for name in names)

    def json(self, name: str) -> Any:
        """Return what a JSON file says; None without such a file.

        Raises:
            BadBackbone: if it cannot be read.
        """
        file = self.path / name
        if not file.is_file():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise BadBackbone(f"{file} cannot be read: {one_line(error)}; bring the file of the model back") from error

    def facts(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file; an empty one without such a file.

        Raises:
            BadBackbone: if it cannot be read, or is no object.
        """
        facts = self.json(name)
        if not isinstance(facts, dict | None):
            raise BadBackbone(f"{self.path / name} is no JSON object; bring the file of the model back")
        return facts or {}


def require_transformers(name: str) -> None:
    """Check that the library is installed.

    Raises:
        MissingExtra: when it is not.
    """
    if find_spec("transformers") is None:
        raise MissingExtra(f"{name} needs the package transformers; run `pip install 'embedstore[text]'`")


def open_folder(recipe: Recipe) -> ModelFolder:
    """Return the files of a recipe's model, after a download if necessary.

    Raises:
        WeightsNotFound: when they are not on this machine and cannot be downloaded.
        BadBackbone: when the configuration cannot be read, or the model is code of its own.
    """
    name = recipe.backbone
    body = name.removeprefix(HF_PREFIX)
    path = Path(body) if body.startswith("/") else _from_hub(body, recipe)
    file = path / CONFIG_FILE
    if not file.is_file():
        raise WeightsNotFound(f"{name}: no {CONFIG_FILE} in {path}; name a folder that save_pretrained() wrote")
    try:
        facts = parse_json_object(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise BadBackbone(f"{file} cannot be read: {one_line(error)}; bring the file of the model back") from error
    return ModelFolder(path, name, _parse_config(facts, path, name))


def has_weights(folder: ModelFolder) -> bool:
    """Return whether the folder holds weights that ``from_pretrained`` finds."""
    found = [f.name for pattern in WEIGHTS_PATTERNS for f in folder.path.glob(pattern)]
    return any(name.startswith(("model", "pytorch_model")) for name in found)


@contextmanager
def quiet_library() -> Iterator[None]:
    """Keep what the library logs and the bars that it draws off the terminal: what matters is checked here."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


def _parse_config(facts: dict[str, Any], path: Path, name: str) -> Any:
    """Return the configuration as the library understands it."""
    from transformers import AutoConfig

    if "auto_map" in facts and "model_type" not in facts:
        raise BadBackbone(f"{name} is code of its own, and code in a model's folder is never run; name another model")
    try:
        with quiet_library():
            return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # a damaged configuration fails in any way
        raise BadBackbone(
            f"{name}: transformers does not know the model in {path / CONFIG_FILE} ({one_line(error, 160)}); update "
            "transformers, or name another model"
        ) from error


def _from_hub(repo: str, recipe: Recipe) -> Path:
    """Return the folder of a repository."""
    patterns = HUB_PATTERNS if not (recipe.weights or recipe.random_init) else HUB_PATTERNS[:3]
    return weights.fetch_folder_from_hub(repo, patterns, CONFIG_FILE, recipe.backbone)


def load_module(folder: ModelFolder, recipe: Recipe, auto_class: Any, *, ignored: tuple[str, ...] = ()) -> Any:
    """Return a network with its weights: those of the folder, of a file, or random ones.

    Args:
        folder: the files of the model.
        recipe: what was requested.
        auto_class: a class with ``from_pretrained`` and ``from_config``.
        ignored: what the names of parameters begin with that no vector depends on.

    Raises:
        WeightsNotFound: when the folder has no weights.
        WeightsMismatch: when they leave a parameter random.
        BadBackbone: when the configuration does not accept an argument.
    """
    config = _with_args(folder, recipe)
    if recipe.random_init:
        return _random_module(config, recipe, auto_class, folder.name)
    if recipe.weights:
        return _module_of_file(config, recipe, auto_class, folder.name, ignored)
    if not has_weights(folder):
        raise WeightsNotFound(
            f"{folder.name}: no model.safetensors in {folder.path}; give a file with --weights FILE, or --random-init"
        )
    for file in folder.path.glob("*.safetensors"):
        weights.check_claimed_size(file)
    return _pretrained_module(folder, config, auto_class, ignored)


def _with_args(folder: ModelFolder, recipe: Recipe) -> Any:
    """Return the configuration with the arguments of the recipe."""
    unknown = [name for name in recipe.args if not hasattr(folder.config, name)]
    if unknown:
        raise BadBackbone(f"{folder.name} has no --backbone-arg {', '.join(unknown)}; its config.json has the names")
    for name, value in recipe.args.items():
        setattr(folder.config, name, value)
    return folder.config


def _random_module(config: Any, recipe: Recipe, auto_class: Any, name: str) -> Any:
    """Return a network with random weights of the recipe's seed."""
    from embedstore.backbones.random_state import seeded_cpu

    with seeded_cpu(recipe.seed), quiet_library():
        try:
            return auto_class.from_config(config).float().eval()
        except Exception as error:  # a configuration that contradicts itself fails in any way
            raise BadBackbone(f"{name} cannot be built: {one_line(error)}; look at its config.json") from error


def _module_of_file(config: Any, recipe: Recipe, auto_class: Any, name: str, ignored: tuple[str, ...]) -> Any:
    """Return a network with the weights of a file, whose names may begin with that of the whole network."""
    path = weights.resolve_file(str(recipe.weights))
    state = {k: v.float() if v.is_floating_point() else v for k, v in weights.read(path).items()}
    module = _random_module(config, recipe, auto_class, name)
    wanted = set(module.state_dict())
    prefixes = sorted({k[: -len(w)] for k in state for w in wanted if k.endswith("." + w)} - {""}, key=len)
    best = max(["", *prefixes], key=lambda p: sum(p + w in state for w in wanted))
    fitting = {w: state[best + w] for w in wanted if best + w in state}
    missing = [w for w in wanted - set(fitting) if not w.startswith(ignored or ("\0",))]
    weights.check_keys(name, str(path), sorted(missing), [])
    try:
        module.load_state_dict(fitting, strict=False)
    except RuntimeError as error:
        raise weights.mismatch_error(name, str(path), error) from error
    return module


def _pretrained_module(folder: ModelFolder, config: Any, auto_class: Any, ignored: tuple[str, ...]) -> Any:
    """Return a network with the weights of its folder."""
    import torch

    from embedstore.backbones.random_state import seeded_cpu

    try:
        with seeded_cpu(0), quiet_library():  # parameters that a network has for its training only may be in no file
            module, loading = auto_class.from_pretrained(
                folder.path,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except Exception as error:  # a damaged or foreign file fails in any way
        raise WeightsMismatch(
            f"{folder.name}: the weights in {folder.path} cannot be loaded: {one_line(error, 200)}; bring the files "
            "of the model back"
        ) from error
    missing = [k for k in loading["missing_keys"] if not k.startswith(ignored or ("\0",))]
    weights.check_keys(folder.name, str(folder.path), sorted(missing), [])
    if loading["mismatched_keys"]:
        raise WeightsMismatch(f"{folder.name}: weights of another shape in {folder.path}: {loading['mismatched_keys']}")
    return module.eval()
