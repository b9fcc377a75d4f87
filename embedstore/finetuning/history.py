"""What is known of a run while it goes on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from embedstore.finetuning.settings import SelectionMetric


@dataclass(frozen=True)
class FinetuneScore:
    """What validation says: top-1 accuracy, mean recall of the classes, mean log-loss in nats."""

    accuracy: float
    recall: float
    loss: float

    def sort_key(self, metric: SelectionMetric) -> tuple[float, float]:
        """Higher is better; the loss decides between equals."""
        if metric is SelectionMetric.LOSS:
            return -self.loss, self.accuracy
        return (self.accuracy if metric is SelectionMetric.ACCURACY else self.recall), -self.loss


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images; number 0 is the network before any.

    Attributes:
        loss: mean training loss, None before the first. rate: of the last block at its end. val: of the weights that
            are candidates (averaged ones with EMA). seconds: wall time.
    """

    number: int
    loss: float | None
    rate: float
    val: FinetuneScore
    seconds: float


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """Where a run stands, after a step."""

    epoch: int
    step: int
    steps: int
    loss: float


@dataclass
class TrainingHistory:
    """A run so far.

    Attributes:
        epochs: in order, 0 first. best: number of the best. stopped: why it ended before the last epoch, or "".
        micro: images in memory at once. begun: training loss of the first step. done: nothing is left to train.
    """

    epochs: list[Epoch] = field(default_factory=list)
    best: int = 0
    stopped: str = ""
    micro: int = 0
    begun: float | None = None
    done: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, d: dict[str, Any]) -> TrainingHistory:
        """The inverse of :meth:`to_json`."""
        return cls(**{**d, "epochs": [Epoch(**{**e, "val": FinetuneScore(**e["val"])}) for e in d["epochs"]]})
