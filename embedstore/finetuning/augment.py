"""Random augmentation of training images with torchvision's transforms, each image by its own seed."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from embedstore.finetuning.settings import AugmentationSettings
from embedstore.media.image.preprocess import resize_and_crop
from embedstore.space import Preprocess

DEFAULT_MIN_CROP_SCALE = 0.6  # smallest fraction of the area by default
SMALL_INPUT = 96  # pixels: smaller inputs are shifted by an eighth instead of cropped, as He et al. 2015 do for CIFAR
SHIFT_DIVISOR = 8
MAX_JPEG_QUALITY = 95  # Pillow advises against higher values: files grow without a visible gain
CAPTION_HEIGHT = 16  # pixels below each row of the augmentation sheet
SHEET_GAP = 4  # pixels between its images

Transform = Callable[[Image.Image, int], torch.Tensor]


def build_transform(augment: AugmentationSettings, preprocess: Preprocess) -> Transform:
    """Return a function of an RGB image and a seed that gives uint8 ``(3, H, W)`` at the network's size.

    Args:
        augment: what is varied.
        preprocess: the space's own preprocessing, used for what is not varied.
    """
    from torchvision.transforms import v2

    pipeline = v2.Compose(_crop_steps(augment, preprocess) + _pixel_steps(augment, preprocess))

    def apply(image: Image.Image, seed: int) -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            out: torch.Tensor = pipeline(image)
        return out

    return apply


def _crop_steps(augment: AugmentationSettings, preprocess: Preprocess) -> list[Any]:
    """Return the steps from an image to pixels at the network's size."""
    from torchvision.transforms import v2

    filter_ = v2.InterpolationMode(preprocess.interpolation.value)
    shift = augment.min_crop_scale is None and is_small_input(preprocess)
    scale = augment.min_crop_scale or (1.0 if shift else DEFAULT_MIN_CROP_SCALE)
    steps: list[Any] = []
    if augment.rotate:
        steps.append(v2.RandomRotation(augment.rotate, filter_, fill=preprocess.fill))
    if scale < 1:
        steps.append(v2.RandomResizedCrop(preprocess.size, scale=(scale, 1.0), interpolation=filter_))
        steps.append(v2.PILToTensor())
    else:
        steps.append(lambda image: torch.from_numpy(resize_and_crop(image, preprocess)))
    if shift:
        padding = [preprocess.size[1] // SHIFT_DIVISOR, preprocess.size[0] // SHIFT_DIVISOR]
        steps.append(v2.RandomCrop(preprocess.size, padding=padding, padding_mode="reflect"))
    return steps


def _pixel_steps(augment: AugmentationSettings, preprocess: Preprocess) -> list[Any]:
    """Return the steps on pixels at the network's size."""
    from torchvision.transforms import v2

    steps: list[Any] = []
    if augment.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augment.randaugment:
        steps.append(v2.RandAugment(num_ops=2, magnitude=augment.randaugment))
    if augment.color_jitter:
        steps.append(v2.ColorJitter(augment.color_jitter, augment.color_jitter, augment.color_jitter))
    if augment.min_jpeg_quality:
        recompress = partial(recompress_jpeg, min_quality=augment.min_jpeg_quality)
        steps.append(v2.RandomApply([v2.Lambda(recompress)], p=0.5))
    if augment.cutout:
        steps.append(v2.Lambda(partial(cutout, fraction=augment.cutout, fill=preprocess.mean)))
    return steps


def recompress_jpeg(image: torch.Tensor, *, min_quality: int) -> torch.Tensor:
    """Compress and decode an image as JPEG, with and without chroma subsampling, as files in the wild have it.

    Args:
        image: uint8 ``(3, H, W)``.
        min_quality: the quality is drawn from here to 95.
    """
    quality, halved = int(torch.randint(min_quality, MAX_JPEG_QUALITY + 1, ())), bool(torch.rand(()) < 0.5)
    file = io.BytesIO()
    pixels_to_image(image).save(file, "JPEG", quality=quality, subsampling=2 if halved else 0)
    with Image.open(file) as decoded:
        return torch.from_numpy(np.array(decoded)).permute(2, 0, 1).contiguous()


def cutout(image: torch.Tensor, *, fraction: float, fill: tuple[float, ...]) -> torch.Tensor:
    """Paint a square of one color; its center is anywhere in the image, so it may reach over the edge.

    Args:
        image: uint8 ``(3, H, W)``.
        fraction: side of the square as a fraction of the shorter side.
        fill: color per channel, 0 to 1.
    """
    height, width = image.shape[1:]
    side = max(1, round(fraction * min(height, width)))
    top, left = (int(torch.randint(0, n, ())) - side // 2 for n in (height, width))
    out = image.clone()
    color = torch.tensor(fill).mul(255).round().clamp(0, 255).to(torch.uint8)[:, None, None]
    out[:, max(0, top) : max(0, top + side), max(0, left) : max(0, left + side)] = color
    return out


def is_small_input(preprocess: Preprocess) -> bool:
    """Return whether the input is so small that a resized crop would blur it."""
    return max(preprocess.size) < SMALL_INPUT


def build_batch_mixer(
    augment: AugmentationSettings, classes: int
) -> Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return a function that mixes float images and class numbers into images and class probabilities.

    Args:
        augment: the settings of augmentation with ``mixup`` and ``cutmix``; where both are 0 the images stay as they
            are.
        classes: number of classes.
    """
    from torchvision.transforms import v2

    mixers = [v2.MixUp(alpha=augment.mixup, num_classes=classes)] if augment.mixup else []
    mixers += [v2.CutMix(alpha=augment.cutmix, num_classes=classes)] if augment.cutmix else []
    if not mixers:
        return lambda images, y: (images, torch.nn.functional.one_hot(y, classes).float())
    return v2.RandomChoice(mixers) if len(mixers) > 1 else mixers[0]  # type: ignore[no-any-return]


def pixels_to_image(pixels: torch.Tensor) -> Image.Image:
    """Return uint8 ``(3, H, W)`` as an image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def augmentation_sheet(rows: list[tuple[str, Image.Image, list[Image.Image]]]) -> Image.Image:
    """Draw one row per training image: as evaluation sees it, then augmented.

    Args:
        rows: label, evaluation image and augmented images, all of one size.
    """
    width, height = rows[0][1].size
    scale = max(1, 96 // max(width, height))
    w, h, gap = width * scale, height * scale, SHEET_GAP
    columns = 1 + len(rows[0][2])
    size = columns * (w + gap) + 2 * gap, len(rows) * (h + CAPTION_HEIGHT + gap) + gap
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for r, (label, plain, augmented) in enumerate(rows):
        y = gap + r * (h + CAPTION_HEIGHT + gap)
        for c, image in enumerate([plain, *augmented]):
            x = gap + c * (w + gap) + (gap if c else 0)
            sheet.paste(image.resize((w, h), Image.Resampling.NEAREST), (x, y))
        caption = f"{label}: left as in evaluation, then as in training"
        draw.text((gap, y + h), caption[: columns * w // 6], "black", font)
    return sheet
