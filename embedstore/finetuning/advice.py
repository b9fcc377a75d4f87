"""Advice on whether fine-tuning is worth it: the table of the transfer-learning literature, read with measured figures.

Small or large data × similar or different domain is the table of Yosinski et al. 2014 and of later courses; the middle
row is ours. The thresholds were set on the data of docs/how-to/fine-tune.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.splits import train_test_split
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.leaks import LeakedScore
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings, learning_curve
from embedstore.classify.evaluation.settings import EvaluationSettings
from embedstore.errors import LabelError
from embedstore.tables import OneRow
from embedstore.wording import counted

MEDIUM_LABELS_PER_CLASS, LARGE_LABELS_PER_CLASS = 100, 1000  # labels per class from which data are medium and large
DIFFERENT_DOMAIN_DISTANCE = 0.3  # on MobileNetV2 ImageNet photos have 0.08, ants and bees 0.17, enlarged CIFAR 0.62
MIN_ACCURACY_LIFT = 0.15  # accuracy over a random twin below which the domain counts as different
MIN_WORTHWHILE_GAIN = 0.015  # accuracy: a strategy that can gain less is not worth the training
MIN_DOUBLING_GAIN = 0.015  # accuracy gained by the last doubling of the labels from which more labels are recommended
OVERFIT_GAP = 0.1  # between training and held-out accuracy from which the probe overfits
MAJORITY = 0.5  # of the images: from this fraction of low-quality JPEGs the domain counts as different


class TransferStrategy(StrEnum):
    """The four strategies of the literature."""

    FROZEN = "frozen features"
    NEW_HEAD = "frozen features with a new head"
    LAST_LAYERS = "tune the last layers"
    ALL_LAYERS = "tune all layers"


class DataSize(StrEnum):
    """Size of the labeled data, by the median class."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


STRATEGY_TABLE: dict[tuple[DataSize, bool], TransferStrategy] = {
    (DataSize.SMALL, False): TransferStrategy.FROZEN,
    (DataSize.SMALL, True): TransferStrategy.NEW_HEAD,
    (DataSize.MEDIUM, False): TransferStrategy.LAST_LAYERS,
    (DataSize.MEDIUM, True): TransferStrategy.ALL_LAYERS,
    (DataSize.LARGE, False): TransferStrategy.LAST_LAYERS,
    (DataSize.LARGE, True): TransferStrategy.ALL_LAYERS,
}
"""Strategy by size of the data and whether the domain is different."""

ERROR_REDUCTION: dict[TransferStrategy, tuple[float, float]] = {
    TransferStrategy.FROZEN: (0.0, 0.0),
    TransferStrategy.NEW_HEAD: (0.0, 0.15),
    TransferStrategy.LAST_LAYERS: (0.0, 0.2),
    TransferStrategy.ALL_LAYERS: (0.0, 0.4),
}
"""Fraction of the probe's error that a strategy removed where it was measured: a range, not a promise."""

STRATEGY_COMMANDS: dict[TransferStrategy, str] = {
    TransferStrategy.FROZEN: "embedstore probe STORE {label} --save NAME",
    TransferStrategy.NEW_HEAD: "embedstore probe STORE {label} --head mlp --save NAME",
    TransferStrategy.LAST_LAYERS: "embedstore finetune STORE {label} --layers last-2 --embed",
    TransferStrategy.ALL_LAYERS: "embedstore finetune STORE {label} --layers all --embed",
}

IMAGE_QUALITY_COMMAND = (
    "embedstore finetune STORE {label} --layers first-4 --lr 2e-3 --set layer_decay=1 --set update_batchnorm=true "
    "--set wise_alpha=0.6 --embed"
)
"""Image damage is best handled in the first blocks (Lee et al. 2023); measured in docs/how-to/fine-tune.md."""


@dataclass(frozen=True)
class DomainDifference:
    """How different the images are from those that the network was trained on.

    Attributes:
        measure: ``batchnorm`` (distance from the running statistics), ``twin`` (accuracy above that of the same
            network with random weights, for networks without such statistics) or ``unknown``.
        value: the measured figure; None for ``unknown``.
        n_images: images measured.
        low_quality_fraction: fraction of them that are low-quality JPEGs and not downscaled; see
            :mod:`embedstore.finetuning.jpeg_quality`.
    """

    measure: str
    value: float | None
    n_images: int
    low_quality_fraction: float = 0.0

    @property
    def is_different(self) -> bool:
        """Whether the subjects differ, or most images have visible compression damage."""
        return self.exceeds_threshold or self.has_low_quality

    @property
    def has_low_quality(self) -> bool:
        """Whether most images have visible compression damage."""
        return self.low_quality_fraction >= MAJORITY

    @property
    def exceeds_threshold(self) -> bool:
        """Whether the figure is beyond its threshold; an unknown domain counts as similar."""
        if self.value is None:
            return False
        return self.value > DIFFERENT_DOMAIN_DISTANCE if self.measure == "batchnorm" else self.value < MIN_ACCURACY_LIFT


@dataclass(frozen=True)
class FinetuningAdvice(OneRow):
    """A strategy, and the figures behind it.

    Attributes:
        label: the column.
        strategy: the recommended strategy.
        table_strategy: the strategy of the table alone.
        size: the size of the labeled data.
        domain: difference from the training domain.
        n_classes: number of classes.
        labels_per_class: ``(smallest class, median, largest)`` of the training items.
        accuracy: ``(value, low, high)`` of the frozen probe on held-out items, with its interval.
        train_accuracy: the accuracy of the probe on its own training items.
        last_doubling_gain: accuracy with all labels minus that with half of them; None where half cannot be drawn.
        expected_gain: range of accuracy that may be expected.
        leak: the accuracy on held-out items with and without a near-duplicate in training; None if none has one.
        notes: what was left out, and what a person should know about labels and sides of the split, one sentence each.
    """

    label: str
    strategy: TransferStrategy
    table_strategy: TransferStrategy
    size: DataSize
    domain: DomainDifference
    n_classes: int
    labels_per_class: tuple[int, int, int]
    accuracy: tuple[float, float, float]
    train_accuracy: float
    last_doubling_gain: float | None
    expected_gain: tuple[float, float]
    leak: LeakedScore | None
    notes: tuple[str, ...]

    @property
    def reasons(self) -> list[str]:
        """Why this strategy, one sentence each."""
        return _reasons(self)

    @property
    def targets_image_quality(self) -> bool:
        """Whether the damage of the images alone makes the domain different."""
        return self.strategy is TransferStrategy.ALL_LAYERS and not self.domain.exceeds_threshold

    @property
    def command(self) -> str:
        """The command to run; against image damage alone it tunes the first blocks."""
        if self.targets_image_quality:
            return IMAGE_QUALITY_COMMAND.format(label=self.label)
        return STRATEGY_COMMANDS[self.strategy].format(label=self.label)

    def to_json(self) -> dict[str, Any]:
        """Return the advice as a dict of plain values."""
        return {
            "label": self.label,
            "strategy": self.strategy.value,
            "table_says": self.table_strategy.value,
            "command": self.command,
            "expected_gain": list(self.expected_gain),
            "reasons": self.reasons,
            "notes": list(self.notes),
            "figures": {
                "classes": self.n_classes,
                "labels_a_class": dict(zip(("smallest", "median", "largest"), self.labels_per_class, strict=True)),
                "size": self.size.value,
                "domain": self.domain.measure,
                "domain_value": self.domain.value,
                "different": self.domain.is_different,
                "damaged_images": self.domain.low_quality_fraction,
                "images_looked_at": self.domain.n_images,
                "accuracy": list(self.accuracy),
                "leak": self.leak and self.leak.to_json(),
                "training_accuracy": self.train_accuracy,
                "gain_of_the_last_doubling": self.last_doubling_gain,
            },
            "table": [
                {"data": size.value, "domain": "different" if far else "similar", "strategy": s.value}
                for (size, far), s in STRATEGY_TABLE.items()
            ],
        }


def advise(data: Features, label: str, domain: DomainDifference, *, seed: int = 0) -> FinetuningAdvice:
    """Recommend a strategy from the measured figures.

    Args:
        data: labeled features of the frozen network.
        label: the column.
        domain: difference from the training domain.
        seed: random seed of the split and of the draws of the learning curve.

    Raises:
        LabelError: if the labels cannot support a probe, or items have several labels.
    """
    if data.multilabel:
        raise LabelError("advice needs one label per item; split the column into one column per label")
    settings = EvaluationSettings(seed=seed)
    data = settings.near_duplicate_options.join(data)  # once, so that every split below is the same one
    probe = evaluate_head("logistic", data, settings)
    train = data.take(train_test_split(data, seed=probe.seed).train)
    counts = np.unique(train.y.astype(str), return_counts=True)[1]
    smallest, median, largest = int(counts.min()), int(np.median(counts)), int(counts.max())
    predicted = np.asarray(probe.estimator.classes_)[heads.probabilities(probe.estimator, train.X).argmax(1)]
    size = _data_size(median)
    score = probe.scores["accuracy"]
    error = 1 - score.value
    table = STRATEGY_TABLE[size, domain.is_different]
    strategy = table if ERROR_REDUCTION[table][1] * error >= MIN_WORTHWHILE_GAIN else TransferStrategy.FROZEN
    low, high = ERROR_REDUCTION[strategy]
    return FinetuningAdvice(
        label=label,
        strategy=strategy,
        table_strategy=table,
        size=size,
        domain=domain,
        n_classes=len(counts),
        labels_per_class=(smallest, median, largest),
        accuracy=(score.value, score.low, score.high),
        train_accuracy=float((predicted.astype(str) == train.y.astype(str)).mean()),
        last_doubling_gain=_last_doubling_gain(data, median, probe.accuracy, seed),
        expected_gain=(round(low * error, 4), round(high * error, 4)),
        leak=probe.leak,
        notes=(*data.notes, *probe.split_notes),
    )


def _data_size(median_labels: int) -> DataSize:
    """Return the size of the data by the labels of the median class."""
    if median_labels >= LARGE_LABELS_PER_CLASS:
        return DataSize.LARGE
    return DataSize.MEDIUM if median_labels >= MEDIUM_LABELS_PER_CLASS else DataSize.SMALL


def _last_doubling_gain(data: Features, median: int, accuracy: float, seed: int) -> float | None:
    """Return the accuracy minus that with half of the labels, None where half cannot be drawn."""
    half = median // 2
    if half < 2:
        return None
    points = learning_curve("logistic", data, LearningCurveSettings((half,), repeats=3, seed=seed)).points
    return accuracy - points[0].mean if points[0].labels_per_class == half else None


def _reasons(a: FinetuningAdvice) -> list[str]:
    """Explain the recommendation, one sentence each."""
    accuracy, low, high = a.accuracy
    out = [
        f"{counted(a.labels_per_class[1], 'label')} in the median class: {a.size.value} data "
        f"(medium from {MEDIUM_LABELS_PER_CLASS}, large from {LARGE_LABELS_PER_CLASS})",
        f"the images are {'different from' if a.domain.is_different else 'similar to'} what the network was trained "
        f"on: {_explain_domain(a.domain)}",
        f"the frozen probe has accuracy {accuracy:.3f} [{low:.3f}, {high:.3f}] on held-out items",
    ]
    if a.strategy is not a.table_strategy:
        limit = ERROR_REDUCTION[a.table_strategy][1] * (1 - accuracy)
        out.append(f"the table says: {a.table_strategy.value}; the possible gain of {limit:.3f} is not worth the time")
    if a.targets_image_quality:
        out.append("only the damage of the images differs, so the command tunes the first blocks, next to the image")
    if a.train_accuracy - accuracy > OVERFIT_GAP:
        out.append(
            f"the probe has accuracy {a.train_accuracy:.3f} on its training items: it overfits, and more trained "
            "parameters would overfit more"
        )
    if a.last_doubling_gain is not None and a.last_doubling_gain > MIN_DOUBLING_GAIN:
        out.append(f"the last doubling of the labels gained {a.last_doubling_gain:+.3f}: labeling more still helps")
    return out


def _explain_domain(domain: DomainDifference) -> str:
    """Explain what was measured."""
    value = domain.value or 0
    text = {
        "batchnorm": f"activations are {value:.2f} from the network's BatchNorm statistics (different above "
        f"{DIFFERENT_DOMAIN_DISTANCE:g})",
        "twin": f"its features are {value:.2f} in accuracy above those of random weights (different below "
        f"{MIN_ACCURACY_LIFT:g})",
        "unknown": "nothing measures the difference for this network, so the domain counts as similar",
    }[domain.measure]
    if not domain.has_low_quality:
        return text
    return (
        f"{text}; {domain.low_quality_fraction:.0%} are JPEGs of low quality that are not downscaled, so their damage "
        "reaches the network and counts as different, unless it was trained on such files too"
    )
