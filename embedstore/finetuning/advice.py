"""Whether tuning is worth it: the transfer-learning literature's table, read with the figures of the person's own data.

Small or large data × similar or different domain is the table of Yosinski et al. 2014 and of the courses after it; a
middle row is ours. The bounds were set on the data of docs/finetune.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from embedstore.classify import heads
from embedstore.classify.data.features import Features
from embedstore.classify.data.splits import train_test_split
from embedstore.classify.evaluation.evaluation import Evaluation
from embedstore.classify.evaluation.holdout import evaluate_head
from embedstore.classify.evaluation.learning_curve import LearningCurveSettings, learning_curve
from embedstore.errors import LabelError

MEDIUM_LABELS_PER_CLASS, LARGE_LABELS_PER_CLASS = 100, 1000  # labels a class from which data are medium, and large
DIFFERENT_DOMAIN_DISTANCE = (
    0.3  # of the shift: ImageNet photos 0.08 and ants and bees 0.17 on MobileNetV2, enlarged CIFAR 0.62
)
MIN_ACCURACY_LIFT = 0.15  # of accuracy over a random twin below which features are called foreign
MIN_WORTHWHILE_GAIN = 0.015  # of accuracy: a strategy that can gain less than this is not worth a day
MIN_DOUBLING_GAIN = 0.015  # of accuracy, by the last doubling of the labels, from which labelling more is said to pay
OVERFIT_GAP = 0.1  # between training and held-out accuracy from which the probe overfits


class TransferStrategy(StrEnum):
    """The four that the literature knows."""

    FROZEN = "frozen features"
    NEW_HEAD = "frozen features with a new head"
    LAST_LAYERS = "tune the last layers"
    ALL_LAYERS = "tune all layers"


class DataSize(StrEnum):
    """Of the labelled data, by the median class."""

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
"""By size of the data and whether the domain is different."""

ERROR_REDUCTION: dict[TransferStrategy, tuple[float, float]] = {
    TransferStrategy.FROZEN: (0.0, 0.0),
    TransferStrategy.NEW_HEAD: (0.0, 0.15),
    TransferStrategy.LAST_LAYERS: (0.0, 0.2),
    TransferStrategy.ALL_LAYERS: (0.0, 0.4),
}
"""Share of the probe's error that a strategy took away where it was measured: a range, not a promise."""

STRATEGY_COMMANDS: dict[TransferStrategy, str] = {
    TransferStrategy.FROZEN: "embedstore probe STORE {label} --save NAME",
    TransferStrategy.NEW_HEAD: "embedstore probe STORE {label} --head mlp --save NAME",
    TransferStrategy.LAST_LAYERS: "embedstore finetune STORE {label} --layers last-2 --embed",
    TransferStrategy.ALL_LAYERS: "embedstore finetune STORE {label} --layers all --embed",
}

IMAGE_QUALITY_COMMAND = (
    "embedstore finetune STORE {label} --layers first-4 --lr 2e-3 --set decay=1 --set bn=true --set alpha=0.6 --embed"
)
"""Damage is met where the pixels come in (Lee et al. 2023); measured in docs/finetune.md."""


@dataclass(frozen=True)
class DomainDifference:
    """How foreign the images are to the network.

    Attributes:
        kind: ``batchnorm`` (distance from the running statistics), ``twin`` (accuracy above that of the same
            network with random weights, for networks without such statistics) or ``unknown``.
        value: the figure; None where it is unknown. images: looked at.
        damaged: share of them that are poor JPEGs and not made smaller, see :mod:`embedstore.finetuning.jpeg_quality`.
    """

    kind: str
    value: float | None
    images: int
    damaged: float = 0.0

    @property
    def different(self) -> bool:
        """Other subjects, or the damage of compression."""
        return self.exceeds_threshold or self.damaged >= 0.5

    @property
    def exceeds_threshold(self) -> bool:
        """Beyond the bound; what is unknown is taken to be similar."""
        if self.value is None:
            return False
        return self.value > DIFFERENT_DOMAIN_DISTANCE if self.kind == "batchnorm" else self.value < MIN_ACCURACY_LIFT


@dataclass(frozen=True)
class FinetuningAdvice:
    """What to do, and the figures behind it.

    Attributes:
        strategy: of the four. table: what the table alone says. reasons: one sentence each.
        labels: ``(smallest class, median, largest)`` of the training items. classes: how many.
        accuracy: of the probe on held-out items, with low and high. trained: on its own training items.
        doubling: accuracy with all labels minus that with half of them; None where half cannot be drawn.
        gain: range of accuracy that may be expected.
    """

    label: str
    strategy: TransferStrategy
    table: TransferStrategy
    size: DataSize
    domain: DomainDifference
    classes: int
    labels: tuple[int, int, int]
    accuracy: tuple[float, float, float]
    trained: float
    doubling: float | None
    gain: tuple[float, float]
    reasons: tuple[str, ...]

    @property
    def targets_image_quality(self) -> bool:
        """Damage alone makes the domain different."""
        return self.strategy is TransferStrategy.ALL_LAYERS and not self.domain.exceeds_threshold

    @property
    def command(self) -> str:
        """What to run; against damage alone the blocks next to the image learn."""
        if self.targets_image_quality:
            return IMAGE_QUALITY_COMMAND.format(label=self.label)
        return STRATEGY_COMMANDS[self.strategy].format(label=self.label)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "label": self.label,
            "strategy": self.strategy.value,
            "table_says": self.table.value,
            "command": self.command,
            "expected_gain": list(self.gain),
            "reasons": list(self.reasons),
            "figures": {
                "classes": self.classes,
                "labels_a_class": dict(zip(("smallest", "median", "largest"), self.labels, strict=True)),
                "size": self.size.value,
                "domain": self.domain.kind,
                "domain_value": self.domain.value,
                "different": self.domain.different,
                "damaged_images": self.domain.damaged,
                "images_looked_at": self.domain.images,
                "accuracy": list(self.accuracy),
                "training_accuracy": self.trained,
                "gain_of_the_last_doubling": self.doubling,
            },
            "table": [
                {"data": size.value, "domain": "different" if far else "similar", "strategy": s.value}
                for (size, far), s in STRATEGY_TABLE.items()
            ],
        }


def advise(data: Features, label: str, domain: DomainDifference, *, seed: int = 0) -> FinetuningAdvice:
    """Read the figures and choose a strategy.

    Args:
        data: labelled features of the frozen network. label: the column. domain: measured by the caller.
        seed: of the split and the draws.

    Raises:
        LabelError: the labels cannot support a probe; several labels an item.
    """
    if data.multilabel:
        raise LabelError("advice wants one label an item; cut the column into one a label")
    probe = evaluate_head("logistic", data)
    rows = _training(data, probe)
    counts = np.unique(data.y[rows].astype(str), return_counts=True)[1]
    labels = int(counts.min()), int(np.median(counts)), int(counts.max())
    size = (
        DataSize.LARGE
        if labels[1] >= LARGE_LABELS_PER_CLASS
        else DataSize.MEDIUM
        if labels[1] >= MEDIUM_LABELS_PER_CLASS
        else DataSize.SMALL
    )
    said = np.asarray(probe.estimator.classes_)[heads.probabilities(probe.estimator, data.X[rows]).argmax(1)]
    score = probe.scores["accuracy"]
    table = STRATEGY_TABLE[size, domain.different]
    error = 1 - score.value
    strategy = table if ERROR_REDUCTION[table][1] * error >= MIN_WORTHWHILE_GAIN else TransferStrategy.FROZEN
    low, high = ERROR_REDUCTION[strategy]
    made = FinetuningAdvice(
        label=label,
        strategy=strategy,
        table=table,
        size=size,
        domain=domain,
        classes=len(counts),
        labels=labels,
        accuracy=(score.value, score.low, score.high),
        trained=float((said.astype(str) == data.y[rows].astype(str)).mean()),
        doubling=_doubling(data, labels[1], probe.accuracy, seed),
        gain=(round(low * error, 4), round(high * error, 4)),
        reasons=(),
    )
    return FinetuningAdvice(**{**made.__dict__, "reasons": tuple(_reasons(made))})


def _training(data: Features, probe: Evaluation) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The rows that the probe learned from."""
    return train_test_split(data, seed=probe.seed).train


def _doubling(data: Features, median: int, full: float, seed: int) -> float | None:
    """What the second half of the labels was worth."""
    half = median // 2
    if half < 2:
        return None
    points = learning_curve("logistic", data, LearningCurveSettings((half,), repeats=3, seed=seed)).points
    return full - points[0].mean if points[0].labels_per_class == half else None


def _reasons(a: FinetuningAdvice) -> list[str]:
    """Why, one sentence each."""
    far = "different from" if a.domain.different else "similar to"
    out = [
        f"{a.labels[1]} labels in the median class: {a.size.value} data "
        f"(medium from {MEDIUM_LABELS_PER_CLASS}, large from {LARGE_LABELS_PER_CLASS})",
        f"the images are {far} what the network was trained on: {_why(a.domain)}",
        f"the frozen probe has {a.accuracy[0]:.3f} [{a.accuracy[1]:.3f}, {a.accuracy[2]:.3f}] on held-out items",
    ]
    if a.strategy is not a.table:
        most = ERROR_REDUCTION[a.table][1] * (1 - a.accuracy[0])
        out.append(f"the table says {a.table.value}, but at most {most:.3f} could be gained: not worth it")
    if a.targets_image_quality:
        out.append("against damage alone the command tunes the blocks next to the image, where it is met")
    if a.trained - a.accuracy[0] > OVERFIT_GAP:
        out.append(f"on its training items it has {a.trained:.3f}: it overfits, and more parameters would more")
    if a.doubling is not None and a.doubling > MIN_DOUBLING_GAIN:
        out.append(f"the last doubling of the labels gave {a.doubling:+.3f}: labelling more still pays")
    return out


def _why(domain: DomainDifference) -> str:
    """How near or far was measured."""
    found = {
        "batchnorm": f"activations are {domain.value or 0:.2f} from the network's own statistics "
        f"(bound {DIFFERENT_DOMAIN_DISTANCE:g})",
        "twin": f"its features are {domain.value or 0:.2f} of accuracy above a random twin's "
        f"(bound {MIN_ACCURACY_LIFT:g})",
        "unknown": "nothing measures it here, so it is taken to be similar",
    }[domain.kind]
    if domain.damaged < 0.5:
        return found
    return (
        f"{found}; {domain.damaged:.0%} are JPEGs of low quality that are not made smaller, so that their damage "
        "reaches it, which counts as different: where it was trained on such files too, it is not"
    )
