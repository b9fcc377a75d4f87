"""What a person may say of a fine-tuning run, checked before anything is loaded."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from numbers import Integral, Real
from typing import Any

from embedstore.errors import FinetuneError

LAYERS_PATTERN = re.compile(r"head|all|lora|(last|first)-[1-9][0-9]*")


TYPE_DESCRIPTIONS = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a word"}


class HeadInit(StrEnum):
    """What the classifier on top begins with."""

    PROBE = "probe"  # logistic regression on the cached features: LP-FT (Kumar et al. 2022)
    TEXT = "text"  # the classes' names through the text tower: WiSE-FT's zero-shot head (Wortsman et al. 2022)
    RANDOM = "random"  # zeros: plain fine-tuning


class WeightAverage(StrEnum):
    """Which weights of a run are the candidates; validation chooses among them."""

    NONE = "none"  # those at the end of each epoch
    EMA = "ema"  # their exponential moving average
    WISE = "wise"  # the straight line from the old weights to the best epoch's (Wortsman et al. 2022)


class SelectionMetric(StrEnum):
    """What validation compares; equal figures are decided by the log-loss."""

    ACCURACY = "accuracy"
    RECALL = "recall"  # averaged over the classes
    LOSS = "loss"


@dataclass(frozen=True)
class AugmentationSettings:
    """How training images are varied; evaluation never is.

    Attributes:
        crop: least share of the image's area that a random crop keeps; 1 is the evaluation's own crop. None is 0.6,
            and for inputs below 96 pixels the evaluation's crop shifted by up to an eighth.
        flip: mirror half of the images. rotate: at most so many degrees either way.
        colour: strength of random brightness, contrast and saturation; 0 is none.
        randaugment: magnitude (0 to 30) of RandAugment's two operations (Cubuk et al. 2020); 0 is none.
        jpeg: lowest quality at which half of the images are compressed again, at random up to 95; 0 is none.
        erase: side of a grey square put somewhere on every image, as a share of the input (Cutout, DeVries and Taylor
            2017); 0 is none.
        mixup, cutmix: alpha of the mixing of two images (Zhang et al. 2018, Yun et al. 2019); 0 is none.
    """

    crop: float | None = None
    flip: bool = True
    rotate: float = 0.0
    colour: float = 0.2
    randaugment: int = 0
    jpeg: int = 0
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        _within("crop", 1 if self.crop is None else self.crop, 0.05, 1)
        _within("rotate", self.rotate, 0, 180)
        _within("colour", self.colour, 0, 1)
        _within("randaugment", self.randaugment, 0, 30)
        _within("jpeg", self.jpeg, 0, 95)
        _within("erase", self.erase, 0, 0.9)
        _within("mixup", self.mixup, 0, 10)
        _within("cutmix", self.cutmix, 0, 10)


@dataclass(frozen=True)
class FinetuneSettings:
    """One run. The defaults are LP-FT of all layers with a low rate, smaller for earlier layers.

    Attributes:
        layers: ``head``, ``last-N`` blocks, ``first-N`` blocks (for images that are damaged and not of other things:
            Lee et al. 2023), ``all``, or ``lora``: adapters in the linear layers of the blocks.
        start: see :class:`Start`. average: see :class:`Average`. metric: see :class:`Metric`.
        epochs: at most. patience: epochs without a better validation figure before it stops.
        lr: of the last block, for AdamW; None is 1e-4 for convolutional networks and 1e-5 for transformers: ten and a
            hundred times below the usual 1e-3 (adapters: 1e-3, they begin at zero). decay: factor a block towards the
            input (layer-wise decay, Clark et al. 2020).
        warmup: share of the steps in which the rate rises from 0; after it, it falls as a cosine.
        weight_decay: on matrices and kernels only. smoothing: of the labels (Szegedy et al. 2016).
        class_weights: errors on rare classes count more, in inverse proportion to their number.
        batch: images a step. micro: images in memory at once; None begins with the batch and is halved when memory
            runs out; gradients are accumulated.
        bn: let the statistics of BatchNorm follow the training images; they stand still otherwise.
        refit: when validation has chosen the epoch, train once more, from the same start, on the training and
            validation items together and up to that epoch. Doubles the time.
        rank: of the adapters. seed: of everything random. precision: ``auto``, ``fp32``, ``fp16``, ``bf16``.
        alpha: share of the new weights in the network that is kept, the rest is the old network's; None lets ``wise``
            choose by validation, and keeps the new ones alone otherwise. Wortsman et al. 2022 find 0.5 near the best
            where validation cannot choose.
        workers: processes that prepare images; 0 does it here, and gives the same images.
    """

    layers: str = "all"
    start: HeadInit = HeadInit.PROBE
    average: WeightAverage = WeightAverage.EMA
    metric: SelectionMetric = SelectionMetric.ACCURACY
    epochs: int = 10
    patience: int = 4
    lr: float | None = None
    decay: float = 0.8
    warmup: float = 0.1
    weight_decay: float = 0.01
    smoothing: float = 0.1
    class_weights: bool = False
    batch: int = 32
    micro: int | None = None
    bn: bool = False
    refit: bool = False
    alpha: float | None = None
    rank: int = 8
    seed: int = 0
    precision: str = "auto"
    workers: int = 0
    augment: AugmentationSettings = field(default_factory=AugmentationSettings)

    def __post_init__(self) -> None:
        if not LAYERS_PATTERN.fullmatch(self.layers):
            raise FinetuneError(f"layers are head, last-N (such as last-2), first-N, all or lora, not {self.layers!r}")
        _within("epochs", self.epochs, 0, 10_000)
        _within("patience", self.patience, 1, 10_000)
        _within("decay", self.decay, 0.01, 1)
        _within("warmup", self.warmup, 0, 1)
        _within("weight_decay", self.weight_decay, 0, 10)
        _within("smoothing", self.smoothing, 0, 0.9)
        _within("batch", self.batch, 1, 65_536)
        _within("micro", 1 if self.micro is None else self.micro, 1, 65_536)
        _within("alpha", 1 if self.alpha is None else self.alpha, 0, 1)
        _within("rank", self.rank, 1, 1024)
        _within("workers", self.workers, 0, 256)
        if self.lr is not None and not 0 < self.lr < 10:
            raise FinetuneError(f"lr must be above 0 and below 10, not {self.lr:g}")
        if self.precision not in ("auto", "fp32", "fp16", "bf16"):
            raise FinetuneError(f"precision is auto, fp32, fp16 or bf16, not {self.precision!r}")
        if self.start is HeadInit.RANDOM and self.average is WeightAverage.WISE:
            raise FinetuneError(
                "wise mixes with a network that could classify before; with start random take ema or none"
            )
        if self.start is HeadInit.RANDOM and self.alpha is not None:
            raise FinetuneError("alpha mixes with a network that could classify before; leave it out with start random")

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def parse_settings(values: dict[str, Any]) -> FinetuneSettings:
    """Settings from plain values; names of :class:`Augment` may stand among them.

    Raises:
        FinetuneError: an unknown name or a value that does not fit.
    """
    from embedstore.errors import did_you_mean

    own, inner = FinetuneSettings.__dataclass_fields__, AugmentationSettings.__dataclass_fields__
    for name in values:
        if name not in own and name not in inner:
            raise FinetuneError(f"fine-tuning has no setting {name!r}{did_you_mean(name, [*own, *inner])}")
    varied = {k: v for k, v in values.items() if k in inner}
    plain = {k: v for k, v in values.items() if k in own}
    kinds: dict[str, type[StrEnum]] = {"start": HeadInit, "average": WeightAverage, "metric": SelectionMetric}
    for name, kind in kinds.items():
        if name in plain:
            plain[name] = _member(kind, name, plain[name])
    if varied:
        plain["augment"] = AugmentationSettings(**_fitting(varied, inner))
    return FinetuneSettings(**_fitting(plain, own))


def _fitting(given: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Every value in the kind of its field: 1 and 1.0 are one setting, and so one run.

    Raises:
        FinetuneError: a value of another kind.
    """
    return {k: _as(k, v, str(fields[k].type)) for k, v in given.items()}


def _as(name: str, value: Any, kind: str) -> Any:
    """One value as the annotation of its field says."""
    kind, _, optional = kind.partition(" | ")
    if kind not in TYPE_DESCRIPTIONS or (value is None and optional):
        return value
    number = isinstance(value, Real) and not isinstance(value, bool)
    if kind == "float" and number:
        return float(value)
    if kind == "int" and number and isinstance(value, Integral):
        return int(value)
    if kind == "bool" and value in (False, True):
        return bool(value)
    if kind == "str" and isinstance(value, str):
        return value
    raise FinetuneError(f"{name} is {TYPE_DESCRIPTIONS[kind]}, not {value!r}")


def run_digest(parts: dict[str, Any]) -> str:
    """16 hexadecimal digits of plain values: the same run has the same."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _member(kind: type[StrEnum], name: str, value: Any) -> StrEnum:
    """A choice by its word."""
    try:
        return kind(value)
    except ValueError as e:
        raise FinetuneError(f"{name} is {', '.join(m.value for m in kind)}, not {value!r}") from e


def _within(name: str, value: float, low: float, high: float) -> None:
    """Refuse a number out of range."""
    if not low <= value <= high:
        raise FinetuneError(f"{name} must be from {low:g} to {high:g}, not {value:g}")
