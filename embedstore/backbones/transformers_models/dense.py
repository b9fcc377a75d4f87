"""The dense layers of a folder of sentence-transformers: a linear map of the pooled vector and its activation."""

from __future__ import annotations

from typing import Any

from torch import nn

from embedstore.backbones import weights
from embedstore.backbones.random_state import seeded_cpu
from embedstore.backbones.transformers_models.folder import ModelFolder
from embedstore.errors import BadBackbone, WeightsNotFound
from embedstore.space import Recipe

NAME = "sentence_dense"  # of the layers inside the network: its digest and its checkpoints have them
FILES = ("model.safetensors", "pytorch_model.bin")
MAX_FEATURES = 1 << 16  # a description from somebody else must not claim more memory than any network needs
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "Identity": nn.Identity,
    "Tanh": nn.Tanh,
    "ReLU": nn.ReLU,
    "GELU": nn.GELU,
    "Sigmoid": nn.Sigmoid,
    "SiLU": nn.SiLU,
}


def add_dense_layers(module: nn.Module, folder: ModelFolder, paths: tuple[str, ...], recipe: Recipe) -> nn.Module:
    """Add the dense layers of a folder to its network, with their weights, and return them.

    A weights file of the recipe that has the layers, such as that of a fine-tuned network, outweighs the folder.

    Args:
        module: the network.
        folder: the files of the model.
        paths: the paths of the layers inside the folder, in the order of their work.
        recipe: what was requested.

    Raises:
        WeightsNotFound: when a layer has no weights.
        WeightsMismatch: when they do not fit.
        BadBackbone: when its description cannot be used.
    """
    with seeded_cpu(recipe.seed):
        layers = nn.Sequential(*[_Dense(folder, path) for path in paths])
    if not recipe.random_init:
        tuned = _of_file(recipe)
        if tuned:
            weights.load_strict(layers, tuned, folder.name, str(recipe.weights))
        else:
            for layer, path in zip(layers, paths, strict=True):
                _fill(layer, folder, path)
    module.add_module(NAME, layers)
    return layers.eval()


class _Dense(nn.Sequential):
    """A linear map and its activation, with the names of the library's files.

    Args:
        folder: the files of the model.
        path: the path of the layer inside the folder.
    """

    def __init__(self, folder: ModelFolder, path: str) -> None:
        super().__init__()
        facts = folder.facts(f"{path}/config.json")
        inputs, outputs = (_size(facts.get(name)) for name in ("in_features", "out_features"))
        activation = ACTIVATIONS.get(str(facts.get("activation_function") or "Identity").rpartition(".")[2])
        is_pooled = facts.get("module_input_name") in (None, "sentence_embedding")
        if activation is None or not is_pooled or not inputs or not outputs:
            raise BadBackbone(
                f"{folder.name}: the layer in {path} has the settings {facts!s:.160}, which are not supported; name "
                f"a model whose dense layers map the pooled vector and have one of {', '.join(ACTIVATIONS)}"
            )
        self.linear = nn.Linear(inputs, outputs, bias=bool(facts.get("bias", True)))
        self.activation = activation()


def _size(value: object) -> int:
    """Return a number of dimensions; 0 for what is none, or more than any network has."""
    return value if type(value) is int and 0 < value <= MAX_FEATURES else 0


def _of_file(recipe: Recipe) -> dict[str, Any]:
    """Return the weights of dense layers in the recipe's file; none if it has none."""
    if not recipe.weights:
        return {}
    state = weights.read(weights.resolve_file(str(recipe.weights)))
    return {name.removeprefix(f"{NAME}."): value for name, value in state.items() if name.startswith(f"{NAME}.")}


def _fill(layer: nn.Module, folder: ModelFolder, path: str) -> None:
    """Load the weights that the folder has of a layer."""
    file = next((folder.path / path / name for name in FILES if folder.has(f"{path}/{name}")), None)
    if file is None:
        raise WeightsNotFound(
            f"{folder.name}: no {FILES[0]} in {folder.path / path}, which its modules.json names; copy it there"
        )
    weights.check_claimed_size(file)
    weights.load_strict(layer, weights.read(file), folder.name, str(file))
