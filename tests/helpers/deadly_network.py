"""A network that kills its process when it sees a certain picture."""

import os
import signal
from typing import ClassVar

import torch
from PIL import Image
from torch import nn

COLOR = (255, 0, 255)


class DeadlyNetwork(nn.Module):
    """The mean color of an image; a picture that is all magenta kills the process."""

    pretrained_cfg: ClassVar = {"input_size": (3, 32, 32), "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return ``(B, 3)``."""
        deadly = torch.tensor(COLOR, dtype=images.dtype).view(1, 3, 1, 1) / 255
        if len(images) and bool(((images - deadly).abs() < 0.01).all(dim=(1, 2, 3)).any()):
            os.kill(os.getpid(), signal.SIGKILL)
        return images.mean((2, 3)) * self.scale + 0.1


def make_deadly() -> nn.Module:
    """Return the network."""
    return DeadlyNetwork()


def deadly_picture() -> Image.Image:
    """Return the picture that kills."""
    return Image.new("RGB", (40, 40), COLOR)
