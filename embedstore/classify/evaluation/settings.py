"""How a head is evaluated and what it adds to its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from embedstore.classify.data.near_duplicates import NearDuplicateOptions, NearDuplicatePolicy
from embedstore.classify.data.slices import SliceValues
from embedstore.classify.metrics import MetricName
from embedstore.errors import BadHead, LabelError

MAX_FOLDS = 1000  # each is a fit; as many as there are items take hours on a large store
_SEEDS = 2**32  # scikit-learn's random_state
CALIBRATION_METHODS = ("temperature", "isotonic")
_RECORDED_KEYS = {
    "near_duplicate_threshold": "near",
    "drop_near_duplicates": "drop_leaks",
    "abstain_precision": "abstain",
    "conformal_alpha": "conformal",
    "labels_per_class": "budgets",
    "repeats": "seeds",
}


def check_seed(seed: int) -> None:
    """Refuse a seed that is no whole number from 0 to 4,294,967,295.

    Raises:
        LabelError: if it is not.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < _SEEDS:
        raise LabelError(f"seed must be a whole number from 0 to {_SEEDS - 1:,}, not {seed!r}")


class ChoiceRows(StrEnum):
    """Which rows select C."""

    FOLDS = "folds"
    VAL = "val"


class LabelThreshold(StrEnum):
    """From which probability a label is predicted where an item may have several."""

    HALF = "half"
    CHOSEN = "chosen"


@dataclass(frozen=True)
class HeldOutFigures:
    """What else is computed of the held-out rows.

    Attributes:
        weighted: compute metrics over weighted rows too.
        slice_values: the values of a column by which the figures are split; None splits nothing.
        slice_metric: the figure that ranks the values, ``accuracy`` or ``mean_per_class_recall``.
    """

    weighted: bool = False
    slice_values: SliceValues | None = None
    slice_metric: str = MetricName.ACCURACY.value


@dataclass(frozen=True)
class EvaluationSettings:
    """How a head is evaluated.

    Attributes:
        folds: number of cross-validation folds over all rows; 0 evaluates on the train-test split.
        seed: the random seed of the hashed split, the folds and the heads.
        near_duplicates: ``group`` keeps near-duplicates together in every split and fold that is drawn, ``ignore``
            does not search for them, ``drop`` also leaves those of held-out rows out of training.
        near_duplicate_threshold: cosine in [0, 1] from which two rows count as near-duplicates; None chooses it from
            the vectors of the space; 0 is ``ignore``.
        drop_near_duplicates: another way to say ``drop``.
        calibrate: ``temperature`` or ``isotonic``, fitted on rows of neither side, else out of fold.
        abstain_precision: target precision in (0, 1] of a head that may answer "none of these".
        conformal_alpha: share in (0, 0.5] of the items whose set of classes may miss the true class; the head answers
            with sets.
        conformal_by_class: keep this share within every class, also a rare one.
        choose_on: ``folds`` of the training rows, or the ``val`` rows, select C of logistic regression.
        refit: train the evaluated head on the ``val`` rows, too, after everything is selected.
        label_thresholds: with several labels per item the probability from which a label is predicted: ``half``, or
            ``chosen`` for each label on rows of neither side, else out of fold.
        figures: what else is computed of the held-out rows; not recorded.
    """

    folds: int = 0
    seed: int = 0
    near_duplicates: str = NearDuplicatePolicy.GROUP.value
    near_duplicate_threshold: float | None = None
    drop_near_duplicates: bool = False
    calibrate: str | None = None
    abstain_precision: float | None = None
    conformal_alpha: float | None = None
    conformal_by_class: bool = False
    choose_on: str = ChoiceRows.FOLDS.value
    refit: bool = False
    label_thresholds: str = LabelThreshold.HALF.value
    figures: HeldOutFigures = HeldOutFigures()

    def __post_init__(self) -> None:
        abstain, alpha = self.abstain_precision, self.conformal_alpha
        self.near_duplicate_options  # noqa: B018 - refuses what it cannot be
        check_seed(self.seed)
        if self.folds < 0 or self.folds == 1:
            raise LabelError(f"folds must be 0 (the train-test split) or at least 2, not {self.folds}")
        if self.folds > MAX_FOLDS:
            raise LabelError(f"folds must be at most {MAX_FOLDS:,}, not {self.folds:,}; give fewer, such as 10")
        if self.calibrate not in (None, *CALIBRATION_METHODS):
            raise BadHead(f"calibrate must be {' or '.join(CALIBRATION_METHODS)}, not {self.calibrate!r}")
        if self.label_thresholds not in [t.value for t in LabelThreshold]:
            raise BadHead(f"label_thresholds must be half or chosen, not {self.label_thresholds!r}")
        if abstain is not None and not 0 < abstain <= 1:
            raise BadHead(f"abstain_precision must be a precision in (0, 1], not {abstain:g}")
        if alpha is not None and not 0 < alpha <= 0.5:
            raise BadHead(
                "conformal_alpha must be the share of items whose set may miss the true class, above 0 and at most "
                f"0.5: 0.1 gives a coverage of 90%, not {alpha:g}"
            )
        if abstain is not None and alpha is not None:
            raise BadHead("abstain_precision and conformal_alpha exclude each other: give one")
        if self.conformal_by_class and alpha is None:
            raise BadHead("conformal_by_class needs conformal_alpha, e.g. 0.1")
        self._check_validation()

    def _check_validation(self) -> None:
        """Refuse what the ``val`` rows cannot be used for."""
        if self.choose_on not in [c.value for c in ChoiceRows]:
            raise BadHead(f"choose_on must be folds or val, not {self.choose_on!r}")
        if not self.uses_validation:
            return
        if self.folds:
            raise LabelError("with folds every item is held out once, and there are no val items: leave out folds")
        if self.needs_calibration:
            raise BadHead(
                "the val items calibrate, and a head that was fitted or selected on them would look better there than "
                "it is: leave out choose_on and refit, or calibrate, abstain_precision, conformal_alpha and chosen "
                "label_thresholds"
            )

    @property
    def uses_validation(self) -> bool:
        """Return whether the ``val`` rows select C or train."""
        return self.choose_on == ChoiceRows.VAL or self.refit

    @property
    def near_duplicate_options(self) -> NearDuplicateOptions:
        """Return how near-duplicates are found, and what is done with them."""
        policy = NearDuplicatePolicy.DROP.value if self.drop_near_duplicates else self.near_duplicates
        return NearDuplicateOptions(policy, self.near_duplicate_threshold)

    @property
    def needs_calibration(self) -> bool:
        """Return whether the head is calibrated, abstains or answers with sets."""
        wrappers = (self.calibrate, self.abstain_precision, self.conformal_alpha)
        return wrappers != (None, None, None) or self.chooses_thresholds

    @property
    def chooses_thresholds(self) -> bool:
        """Return whether each label has a threshold of its own."""
        return self.label_thresholds == LabelThreshold.CHOSEN


def recorded_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of an evaluation or a learning curve under the keys that the ``runs`` table records them with."""
    return {_RECORDED_KEYS.get(name, name): value for name, value in settings.items() if name != "figures"}
