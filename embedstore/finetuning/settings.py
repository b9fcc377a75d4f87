"""Settings of a fine-tuning run, validated before any network is loaded."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, TypedDict

from embedstore.errors import FinetuneError, did_you_mean

LAYERS_PATTERN = re.compile(r"head|all|lora|(last|first)-[1-9][0-9]*")
TYPE_DESCRIPTIONS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a word"}


class HeadInit(StrEnum):
    """Initial weights of the classification head."""

    PROBE = "probe"  # logistic regression on the cached features: LP-FT (Kumar et al. 2022)
    TEXT = "text"  # text vectors of the class names: the zero-shot head of WiSE-FT (Wortsman et al. 2022)
    RANDOM = "random"  # zeros: plain fine-tuning


class WeightAverage(StrEnum):
    """Weights of a run among which validation chooses."""

    NONE = "none"  # the weights at the end of each epoch
    EMA = "ema"  # their exponential moving average
    WISE = "wise"  # linear interpolation between the old weights and the best epoch's (Wortsman et al. 2022)


class SelectionMetric(StrEnum):
    """Validation metric that selects an epoch; the log-loss breaks ties."""

    ACCURACY = "accuracy"
    RECALL = "recall"  # mean over the classes
    LOSS = "loss"


@dataclass(frozen=True)
class AugmentationSettings:
    """Random augmentation of the training images; evaluation images are never augmented.

    Attributes:
        min_crop_scale: smallest fraction of the image area that a random crop keeps; 1 uses the evaluation crop.
            None means 0.6, or for inputs below 96 pixels the evaluation crop shifted by up to an eighth.
        flip: mirror half of the images.
        rotate: largest rotation in degrees, in either direction.
        color_jitter: strength of random brightness, contrast and saturation; 0 disables it.
        randaugment: magnitude (0 to 30) of RandAugment's two operations (Cubuk et al. 2020); 0 disables it.
        min_jpeg_quality: lowest quality at which half of the images are recompressed, drawn up to 95; 0 disables it.
        cutout: side of a gray square at a random place, as a fraction of the input (Cutout, DeVries and Taylor
            2017); 0 disables it.
        mixup: alpha of MixUp (Zhang et al. 2018); 0 disables it.
        cutmix: alpha of CutMix (Yun et al. 2019); 0 disables it.
    """

    min_crop_scale: float | None = None
    flip: bool = True
    rotate: float = 0.0
    color_jitter: float = 0.2
    randaugment: int = 0
    min_jpeg_quality: int = 0
    cutout: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _check_range("min_crop_scale", 1 if self.min_crop_scale is None else self.min_crop_scale, 0.05, 1)
        _check_range("rotate", self.rotate, 0, 180)
        _check_range("color_jitter", self.color_jitter, 0, 1)
        _check_range("randaugment", self.randaugment, 0, 30)
        _check_range("min_jpeg_quality", self.min_jpeg_quality, 0, 95)
        _check_range("cutout", self.cutout, 0, 0.9)
        _check_range("mixup", self.mixup, 0, 10)
        _check_range("cutmix", self.cutmix, 0, 10)


@dataclass(frozen=True)
class FinetuneSettings:
    """Settings of one run. The defaults are LP-FT of all layers at a low rate, smaller for earlier layers.

    Attributes:
        layers: ``head``, ``last-N`` blocks, ``first-N`` blocks (for damaged images of the same subjects: Lee et al.
            2023), ``all``, or ``lora``: adapters in the linear layers of the blocks.
        head_init: initial weights of the head.
        weight_average: weights among which validation chooses.
        selection_metric: validation metric that selects an epoch.
        epochs: largest number of epochs.
        patience: epochs without a better validation score before training stops.
        lr: learning rate of the last block, for AdamW. None means 1e-4 for convolutional networks and 1e-5 for
            transformers, ten and a hundred times below the usual 1e-3, and 1e-3 for adapters, which begin at zero.
        layer_decay: factor on the learning rate per block towards the input (Clark et al. 2020).
        warmup_ratio: fraction of the steps in which the rate rises from 0; afterwards it falls as a cosine.
        weight_decay: weight decay of matrices and kernels; vectors do not decay.
        label_smoothing: label smoothing (Szegedy et al. 2016).
        class_weights: weight the loss in inverse proportion to the class frequency.
        batch_size: images per step.
        micro_batch_size: images in memory at once; gradients are accumulated. None starts with the batch size and
            halves it when memory runs out.
        update_batchnorm: update the BatchNorm statistics with the training images; otherwise they stay fixed.
        refit: after validation has selected the epoch, train again from the same start on the training and
            validation items together, up to that epoch. Doubles the time.
        wise_alpha: weight of the new network when it is mixed with the old one. None lets ``wise`` choose by
            validation, and otherwise keeps the new weights alone. Wortsman et al. 2022 find 0.5 near the best where
            validation cannot choose.
        lora_rank: rank of the adapters.
        seed: random seed of the split, the order, the augmentation and the initial weights.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        num_workers: processes that prepare images; 0 uses the training process, and gives the same images.
        augment: augmentation of the training images.
    """

    layers: str = "all"
    head_init: HeadInit = HeadInit.PROBE
    weight_average: WeightAverage = WeightAverage.EMA
    selection_metric: SelectionMetric = SelectionMetric.ACCURACY
    epochs: int = 10
    patience: int = 4
    lr: float | None = None
    layer_decay: float = 0.8
    warmup_ratio: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.1
    class_weights: bool = False
    batch_size: int = 32
    micro_batch_size: int | None = None
    update_batchnorm: bool = False
    refit: bool = False
    wise_alpha: float | None = None
    lora_rank: int = 8
    seed: int = 0
    precision: str = "auto"
    num_workers: int = 0
    augment: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        if not LAYERS_PATTERN.fullmatch(self.layers):
            raise FinetuneError(f"layers must be head, last-N (e.g. last-2), first-N, all or lora, not {self.layers!r}")
        _check_range("epochs", self.epochs, 0, 10_000)
        _check_range("patience", self.patience, 1, 10_000)
        _check_range("layer_decay", self.layer_decay, 0.01, 1)
        _check_range("warmup_ratio", self.warmup_ratio, 0, 1)
        _check_range("weight_decay", self.weight_decay, 0, 10)
        _check_range("label_smoothing", self.label_smoothing, 0, 0.9)
        _check_range("batch_size", self.batch_size, 1, 65_536)
        _check_range("micro_batch_size", 1 if self.micro_batch_size is None else self.micro_batch_size, 1, 65_536)
        _check_range("wise_alpha", 1 if self.wise_alpha is None else self.wise_alpha, 0, 1)
        _check_range("lora_rank", self.lora_rank, 1, 1024)
        _check_range("num_workers", self.num_workers, 0, 256)
        if self.lr is not None and not 0 < self.lr < 10:
            raise FinetuneError(f"lr must be above 0 and below 10, not {self.lr:g}")
        if self.precision not in ("auto", "fp32", "fp16", "bf16"):
            raise FinetuneError(f"precision must be auto, fp32, fp16 or bf16, not {self.precision!r}")
        if self.head_init is HeadInit.RANDOM:
            self._check_random_head()

    def _check_random_head(self) -> None:
        """Refuse mixtures with the old network where its head is random and cannot classify."""
        if self.weight_average is WeightAverage.WISE:
            raise FinetuneError(
                "weight_average wise mixes the new network with the old one, whose head is random; "
                "with head_init random use weight_average ema or none"
            )
        if self.wise_alpha is not None:
            raise FinetuneError(
                "wise_alpha mixes the new network with the old one, whose head is random; "
                "leave it out, or use head_init probe"
            )

    def to_json(self) -> dict[str, Any]:
        """Return plain values under the keys that checkpoints, runs and run keys store."""
        values = asdict(self)
        augment = values.pop("augment")
        return stored_keys(values) | {"augment": stored_keys(augment)}


STORED_KEYS = {
    "head_init": "start",
    "weight_average": "average",
    "selection_metric": "metric",
    "layer_decay": "decay",
    "warmup_ratio": "warmup",
    "label_smoothing": "smoothing",
    "batch_size": "batch",
    "micro_batch_size": "micro",
    "update_batchnorm": "bn",
    "wise_alpha": "alpha",
    "lora_rank": "rank",
    "num_workers": "workers",
    "min_crop_scale": "crop",
    "color_jitter": "colour",
    "min_jpeg_quality": "jpeg",
    "cutout": "erase",
}
"""Keys on disk of the fields that are stored under another name. The run key hashes them, so they never change."""


def stored_keys(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by field name under their keys on disk."""
    return {STORED_KEYS.get(k, k): v for k, v in values.items()}


class FinetuneOptions(TypedDict, total=False):
    """Keyword arguments of a run: the fields of :class:`FinetuneSettings` and :class:`AugmentationSettings`."""

    layers: str
    head_init: str
    weight_average: str
    selection_metric: str
    epochs: int
    patience: int
    lr: float | None
    layer_decay: float
    warmup_ratio: float
    weight_decay: float
    label_smoothing: float
    class_weights: bool
    batch_size: int
    micro_batch_size: int | None
    update_batchnorm: bool
    refit: bool
    wise_alpha: float | None
    lora_rank: int
    seed: int
    precision: str
    num_workers: int
    min_crop_scale: float | None
    flip: bool
    rotate: float
    color_jitter: float
    randaugment: int
    min_jpeg_quality: int
    cutout: float
    mixup: float
    cutmix: float


def parse_settings(values: dict[str, Any]) -> FinetuneSettings:
    """Return settings from plain values by field name.

    Args:
        values: fields of :class:`FinetuneSettings` and :class:`AugmentationSettings`, in one dictionary.

    Raises:
        FinetuneError: if a name is unknown, or a value has the wrong type or is out of range.
    """
    run_fields, augment_fields = FinetuneSettings.__dataclass_fields__, AugmentationSettings.__dataclass_fields__
    known = [n for n in (*run_fields, *augment_fields) if n != "augment"]
    for name in values:
        if name not in known:
            raise FinetuneError(f"fine-tuning has no setting {name!r}{did_you_mean(name, known)}")
    augment = _converted({k: v for k, v in values.items() if k in augment_fields}, augment_fields)
    options = _converted({k: v for k, v in values.items() if k in run_fields}, run_fields)
    return FinetuneSettings(**options, augment=AugmentationSettings(**augment))


_ENUMS: dict[str, type[StrEnum]] = {
    "HeadInit": HeadInit,
    "WeightAverage": WeightAverage,
    "SelectionMetric": SelectionMetric,
}


def _converted(values: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Convert each value to the type of its field: 1 and 1.0 are the same setting, and so the same run."""
    return {k: _convert(k, v, str(fields[k].type)) for k, v in values.items()}


def _convert(name: str, value: Any, annotation: str) -> Any:
    """Convert one value to the type that the annotation of its field names."""
    if annotation in _ENUMS:
        return _enum_member(_ENUMS[annotation], name, value)
    kind, _, optional = annotation.partition(" | ")
    if value is None and optional:
        return None
    number = isinstance(value, Real) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and isinstance(value, Integral):
        return int(value)
    if kind == "bool" and value in (False, True):
        return bool(value)
    if kind == "str" and isinstance(value, str):
        return value
    raise FinetuneError(f"{name} must be {TYPE_DESCRIPTIONS[kind]}, not {value!r}")


def _enum_member(kind: type[StrEnum], name: str, value: Any) -> StrEnum:
    """Return an enum member by its value."""
    try:
        return kind(value)
    except ValueError as e:
        raise FinetuneError(f"{name} must be {', '.join(m.value for m in kind)}, not {value!r}") from e


def _check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number out of range."""
    if not low <= value <= high:
        raise FinetuneError(f"{name} must be from {low:g} to {high:g}, not {value:g}")
