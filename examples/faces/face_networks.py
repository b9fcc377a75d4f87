"""Networks of faces for embedstore, by `--backbone face_networks:vggface`: crops of faces in, vectors out.

Read README.md first: what may not be done with faces. Both functions declare how their pixels are prepared, so that the
store records it. Weights come from a file of yours (`--weights FILE`), of names as `torch.save(model.state_dict())`
writes them.
"""

from __future__ import annotations

import torch
from torch import nn

VGG16_BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))  # channels in units of the first block's, and convolutions
VGGFACE_MEAN = (129.1863 / 255, 104.7624 / 255, 93.5940 / 255)  # of red, green and blue (Parkhi et al. 2015)


class VGGFace(nn.Module):
    """VGG-16 up to its second fully connected layer, as Parkhi et al. 2015, "Deep Face Recognition", train it.

    Args:
        channels: of the first block; 64 is the network of the paper.
        units: of the fully connected layers; 4,096 in the paper.
    """

    def __init__(self, channels: int = 64, units: int = 4096) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for factor, convolutions in VGG16_BLOCKS:
            for _ in range(convolutions):
                layers += [nn.Conv2d(inputs, factor * channels, 3, padding=1), nn.ReLU()]
                inputs = factor * channels
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.fc6, self.fc7 = nn.Linear(inputs * 7 * 7, units), nn.Linear(units, units)
        self.pretrained_cfg = {"input_size": (3, 224, 224), "mean": VGGFACE_MEAN, "std": (1 / 255,) * 3}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return vectors ``(B, units)`` of images ``(B, 3, 224, 224)`` in red, green and blue, less the mean.

        The published weights are of pixels in the order blue, green, red.
        """
        maps = self.features(images.flip(1))
        return torch.relu(self.fc7(torch.relu(self.fc6(maps.flatten(1)))))


class FaceNet(nn.Module):
    """A network of timm with one linear layer and vectors of length 1 (Schroff et al. 2015, "FaceNet").

    Args:
        name: the network of timm.
        dim: of the vectors; 128 in the paper, 512 in later weights.
    """

    def __init__(self, name: str = "inception_resnet_v2", dim: int = 128) -> None:
        super().__init__()
        import timm

        self.body = timm.create_model(name, pretrained=False, num_classes=dim)
        self.pretrained_cfg = {"input_size": (3, 160, 160), "mean": (0.5, 0.5, 0.5), "std": (128 / 255,) * 3}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return vectors ``(B, dim)`` of length 1 of images ``(B, 3, 160, 160)``."""
        return nn.functional.normalize(self.body(images), dim=1)


def vggface(channels: int = 64, units: int = 4096) -> VGGFace:
    """Return VGGFace without weights; `--backbone-arg channels=4` makes a small one to try."""
    return VGGFace(channels, units)


def facenet(name: str = "inception_resnet_v2", dim: int = 128) -> FaceNet:
    """Return a FaceNet without weights; `--backbone-arg name=NAME` takes another network of timm."""
    return FaceNet(name, dim)
