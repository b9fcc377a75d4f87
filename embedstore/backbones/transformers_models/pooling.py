"""From the vectors of tokens or frames to one vector, over the real ones alone. Padding is on the right."""

from __future__ import annotations

from collections.abc import Callable

import torch

PoolFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the real tokens.

    Args:
        hidden: ``(B, L, D)``.
        mask: ``(B, L)``, 1 for a real token and 0 for padding.

    Returns:
        ``(B, D)``.
    """
    return _sum(hidden, mask) / mask.sum(dim=1, keepdim=True).clamp(min=1)


def mean_sqrt(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the sum of the real tokens over the square root of their number; see :func:`mean`."""
    return _sum(hidden, mask) / mask.sum(dim=1, keepdim=True).clamp(min=1).sqrt()


def weighted(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean weighted by the position, from 1: a decoder's later tokens have read more of the text.

    Muennighoff, "SGPT: GPT Sentence Embeddings for Semantic Search", 2022, equation 4. See :func:`mean`.
    """
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device, dtype=mask.dtype)
    weights = mask * positions
    return _sum(hidden, weights) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def maximum(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the largest value of the real tokens in each dimension; see :func:`mean`."""
    return hidden.masked_fill(mask[..., None] == 0, float("-inf")).amax(dim=1)


def first(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the first token, which BERT calls CLS; see :func:`mean`."""
    return hidden[:, 0]


def last(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the last real token, which in XLNet is CLS; see :func:`mean`."""
    rows = torch.arange(len(hidden), device=hidden.device)
    return hidden[rows, (mask.sum(dim=1).long() - 1).clamp(min=0)]


POOLINGS: dict[str, PoolFunction] = {
    "mean": mean,
    "cls": first,
    "max": maximum,
    "last": last,
    "weighted": weighted,
    "mean-sqrt": mean_sqrt,
}


def pooling(name: str) -> PoolFunction:
    """Return the pooling of a name, or of several joined by ``+``, whose vectors are put one after the other."""
    functions = [POOLINGS[part] for part in name.split("+")]
    if len(functions) == 1:
        return functions[0]
    return lambda hidden, mask: torch.cat([pool(hidden, mask) for pool in functions], dim=1)


def is_pooling(name: str) -> bool:
    """Return whether a name is that of a pooling, or of several joined by ``+``."""
    return all(part in POOLINGS for part in name.split("+"))


def _sum(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum over the tokens; what is padded may hold anything, also NaN."""
    return torch.where(weights[..., None] > 0, hidden, 0.0).mul(weights[..., None]).sum(dim=1)
