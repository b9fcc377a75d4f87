"""Where in a network of transformers the vectors of tokens or frames are taken."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch

from embedstore.errors import BadBackbone

LAST = "last"  # the output of the network, after its last normalization


def layer_output(module: Any, layer: str | None, name: str) -> tuple[str, Callable[..., torch.Tensor]]:
    """Return the name of a layer, and the function from the network's inputs to its vectors ``(B, L, D)``.

    Args:
        module: the network.
        layer: ``last``, or a number: 0 is what the first block reads, 1 what it gives, -1 is the last.
        name: the name of the model in messages.

    Raises:
        BadBackbone: when there is no such layer.
    """
    count = int(module.config.num_hidden_layers)
    index = _index(layer, count, name)

    def hidden(**inputs: torch.Tensor) -> torch.Tensor:
        on_device = {key: value.to(module.device) for key, value in inputs.items()}
        if index == count:
            last: torch.Tensor = module(**on_device).last_hidden_state
            return last
        states: torch.Tensor = module(**on_device, output_hidden_states=True).hidden_states[index]
        return states

    return (LAST if index == count else str(index)), hidden


def _index(layer: str | None, count: int, name: str) -> int:
    """Return the number of a layer, counted from 0."""
    if layer in (None, LAST):
        return count
    number = int(layer) if re.fullmatch("-?[0-9]+", layer) else None
    if number is None or not -count - 1 <= number <= count:
        raise BadBackbone(f"{name} has the layers 0 to {count}, counted from the end if negative, or last, not {layer}")
    return number % (count + 1)
