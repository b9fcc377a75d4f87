"""Training images varied: torchvision's transforms, on pictures in memory, each by a seed of its own."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from embedstore.finetuning.settings import AugmentationSettings
from embedstore.media.image.preprocess import resize_and_crop as apply_preprocess
from embedstore.space import Preprocess

DEFAULT_MIN_CROP_SCALE = 0.6  # least share of the area by default
SMALL_INPUT = 96  # pixels: smaller inputs are shifted by an eighth instead, as He et al. 2015 do for CIFAR
SHIFT_DIVISOR = 8
MAX_JPEG_QUALITY = 95  # quality; above it Pillow advises against, since files grow and nothing is seen
_LABEL = 16  # pixels below a picture of the contact sheet


def build_transform(
    augment: AugmentationSettings, preprocess: Preprocess
) -> Callable[[Image.Image, int], torch.Tensor]:
    """A function of an RGB image and a seed: uint8 ``(3, H, W)`` at the network's size.

    Args:
        augment: how. p: the space's own preprocessing; what is not varied is done as it says.
    """
    from torchvision.transforms import v2

    least = (
        augment.crop if augment.crop is not None else (1.0 if is_small_input(preprocess) else DEFAULT_MIN_CROP_SCALE)
    )
    first: list[Any] = (
        [v2.RandomRotation(augment.rotate, _mode(v2, preprocess), fill=preprocess.fill)] if augment.rotate else []
    )
    if least < 1:
        first += [
            v2.RandomResizedCrop(preprocess.size, scale=(least, 1.0), interpolation=_mode(v2, preprocess)),
            v2.PILToTensor(),
        ]
    else:
        first.append(lambda image: torch.from_numpy(apply_preprocess(image, preprocess)))
    steps: list[Any] = []
    if augment.crop is None and is_small_input(preprocess):
        room = [preprocess.size[1] // SHIFT_DIVISOR, preprocess.size[0] // SHIFT_DIVISOR]
        steps.append(v2.RandomCrop(preprocess.size, padding=room, padding_mode="reflect"))
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment.randaugment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=augment.randaugment))
    if augment.colour:
        steps.append(v2.ColorJitter(augment.colour, augment.colour, augment.colour))
    if augment.jpeg:
        steps.append(v2.RandomApply([v2.Lambda(partial(recompress_jpeg, min_quality=augment.jpeg))], p=0.5))
    if augment.erase:
        steps.append(v2.Lambda(partial(cutout, share=augment.erase, fill=preprocess.mean)))
    varied = v2.Compose(first + steps)

    def apply(image: Image.Image, seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            out: torch.Tensor = varied(image)
        return out

    return apply


def recompress_jpeg(image: torch.Tensor, *, min_quality: int) -> torch.Tensor:
    """Through JPEG at a random quality from ``lowest`` to 95, colours at half the resolution or not, as files come."""
    quality, halved = int(torch.randint(min_quality, MAX_JPEG_QUALITY + 1, ())), bool(torch.rand(()) < 0.5)
    file = io.BytesIO()
    plain = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    plain.save(file, "JPEG", quality=quality, subsampling=2 if halved else 0)
    with Image.open(file) as again:
        return torch.from_numpy(np.array(again)).permute(2, 0, 1).contiguous()


def cutout(image: torch.Tensor, *, share: float, fill: tuple[float, ...]) -> torch.Tensor:
    """A square of the network's mean colour, its centre anywhere, so that it may reach over the edge."""
    height, width = image.shape[1:]
    side = max(1, round(share * min(height, width)))
    top, left = (int(torch.randint(0, n, ())) - side // 2 for n in (height, width))
    out = image.clone()
    colour = torch.tensor(fill).mul(255).round().clamp(0, 255).to(torch.uint8)[:, None, None]
    out[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = colour
    return out


def is_small_input(preprocess: Preprocess) -> bool:
    """So small that cropping and enlarging would blur what there is."""
    return max(preprocess.size) < SMALL_INPUT


def build_batch_mixer(
    augment: AugmentationSettings, classes: int
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Mixes a batch of float images and class numbers into images and class shares; None of both leaves them."""
    from torchvision.transforms import v2

    made = [v2.MixUp(alpha=augment.mixup, num_classes=classes)] if augment.mixup else []
    made += [v2.CutMix(alpha=augment.cutmix, num_classes=classes)] if augment.cutmix else []
    if not made:
        return lambda images, y: (images, torch.nn.functional.one_hot(y, classes).float())
    return v2.RandomChoice(made) if len(made) > 1 else made[0]  # type: ignore[no-any-return]


def contact_sheet(rows: list[tuple[str, Image.Image, list[Image.Image]]]) -> Image.Image:
    """One row a training image: as evaluation sees it, then varied.

    Args:
        rows: label, the evaluation's picture, and the varied ones, all of one size.
    """
    width, height = rows[0][1].size
    scale = max(1, 96 // max(width, height))
    w, h, gap = width * scale, height * scale, 4
    columns = 1 + len(rows[0][2])
    sheet = Image.new("RGB", (columns * (w + gap) + 2 * gap, len(rows) * (h + _LABEL + gap) + gap), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for r, (label, plain, varied) in enumerate(rows):
        y = gap + r * (h + _LABEL + gap)
        for c, picture in enumerate([plain, *varied]):
            x = gap + c * (w + gap) + (gap if c else 0)
            sheet.paste(picture.resize((w, h), Image.Resampling.NEAREST), (x, y))
        draw.text((gap, y + h), f"{label}: left as evaluated, then as trained"[: columns * w // 6], "black", font)
    return sheet


def _mode(v2: Any, p: Preprocess) -> Any:
    """Torchvision's word for Pillow's filter."""
    return v2.InterpolationMode(p.interpolation.value)
