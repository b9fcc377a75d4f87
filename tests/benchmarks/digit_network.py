"""Vectors of images of digits by small networks, each trained on the images that are not among its own."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

EPOCHS, BATCH = 20, 100
WIDTH = 128  # numbers of a vector
_TURN, _SCALE, _SHIFT = 0.4, 0.2, 0.2  # radians, relative, half widths: ranges of random changes
_EVALUATED = 500  # images at once


def cross_fitted_vectors(
    images: NDArray[np.float32], classes: NDArray[np.int64], *, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Train a network on each half of the images, and return the vectors that it gives the other half.

    Args:
        images: float32 ``(N, 28, 28)``, 0 to 1.
        classes: int64 ``(N,)``, 0 to 9, some of them wrong.
        seed: of the halves, the first weights and the order.

    Returns:
        Vectors ``(N, WIDTH)``, and the half of each image, 0 or 1; the vectors of the halves are of different networks.
    """
    torch.manual_seed(seed)
    half = np.random.default_rng(seed).permutation(len(images)) % 2
    pixels, target = torch.from_numpy(images)[:, None], torch.from_numpy(classes)
    vectors = np.zeros((len(images), WIDTH), np.float32)
    for own in (0, 1):
        features = _trained(pixels[half != own], target[half != own])
        rows = np.flatnonzero(half == own)
        with torch.no_grad():
            for part in np.array_split(rows, -(-len(rows) // _EVALUATED)):
                vectors[part] = features(pixels[part]).numpy()
    return vectors, half


def _trained(pixels: Tensor, target: Tensor) -> nn.Module:
    """Return the layers below the classes of a network that was trained."""
    features = nn.Sequential(
        *_block(1, 16), *_block(16, 32), nn.Flatten(), nn.Dropout(0.3), nn.Linear(32 * 49, WIDTH), nn.ReLU()
    )
    network = nn.Sequential(features, nn.Dropout(0.3), nn.Linear(WIDTH, 10))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)
    steps = EPOCHS * (len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for step in range(steps):
        if step % (len(pixels) // BATCH) == 0:
            order = torch.randperm(len(pixels))
        begin = step % (len(pixels) // BATCH) * BATCH
        rows = order[begin : begin + BATCH]
        loss = functional.cross_entropy(network(_changed(pixels[rows])), target[rows], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return features.eval()


def _block(before: int, after: int) -> list[nn.Module]:
    """Return a convolution that halves the sides."""
    return [nn.Conv2d(before, after, 5, padding=2), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]


def _changed(images: Tensor) -> Tensor:
    """Return images turned, scaled and shifted at random."""
    n = len(images)
    turn, scale = (torch.rand(n) - 0.5) * _TURN, 1 + (torch.rand(n) - 0.5) * _SCALE
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = scale * torch.cos(turn)
    matrix[:, 1, 0] = torch.sin(turn)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    matrix[:, :, 2] = (torch.rand(n, 2) - 0.5) * _SHIFT
    grid = functional.affine_grid(matrix, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
