"""What calibration, abstention and sets of classes did on the held-out rows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class CalibrationEffect:
    """What calibration changed on the held-out rows.

    Attributes:
        method: the calibration method.
        rows: how many rows it was fitted on.
        log_loss_before: the log-loss without it.
        brier_score_before: the Brier score without it.
        calibration_error_before: the expected calibration error without it; None where there are too few rows.
        log_loss_after: the log-loss with it.
        brier_score_after: the Brier score with it.
        calibration_error_after: the expected calibration error with it; None where there are too few rows.
    """

    method: str
    rows: int
    log_loss_before: float
    brier_score_before: float
    calibration_error_before: float | None
    log_loss_after: float
    brier_score_after: float
    calibration_error_after: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class AbstentionEffect:
    """What a head that abstains answers of the held-out rows.

    Attributes:
        target_precision: the precision that was wanted.
        threshold: the probability below which it abstains; None where no threshold keeps the target.
        precision: the precision of its answers; None without answers.
        precision_interval: the 95% interval of the precision; None without answers.
        answered: how many rows it answers.
        coverage: the share of the rows that it answers.
        rows: how many rows the threshold was chosen on.
        groups: how many groups these belong to.
        rows_needed: about how many rows would show a threshold, where there is none and that is known.
    """

    target_precision: float
    threshold: float | None
    precision: float | None
    precision_interval: list[float] | None
    answered: int
    coverage: float
    rows: int
    groups: int
    rows_needed: int | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class ClassCoverage:
    """How often the sets of the held-out rows of one class hold it.

    Attributes:
        name: the class.
        rows: its held-out rows.
        coverage: the share of them whose set holds the class.
    """

    name: str
    rows: int
    coverage: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"class": self.name, "rows": self.rows, "coverage": self.coverage}


@dataclass(frozen=True)
class ConformalEffect:
    """How often sets of classes hold the true class of the held-out rows, and how large they are.

    Attributes:
        target_coverage: the share of sets that are to hold the true class.
        threshold: the probability that a class of a set has at least; by class where each has its own.
        coverage: the share of sets that hold the true class.
        coverage_interval: the 95% interval of the coverage; None without rows.
        coverage_by_class: the same of each class.
        mean_size: the mean number of classes in a set.
        empty: the share of sets without a class.
        single: the share of sets of one class.
        rows: how many rows the threshold was chosen on.
    """

    target_coverage: float
    threshold: float | dict[str, float]
    coverage: float
    coverage_interval: list[float] | None
    coverage_by_class: list[ClassCoverage]
    mean_size: float
    empty: float
    single: float
    rows: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self) | {"coverage_by_class": [c.to_json() for c in self.coverage_by_class]}
