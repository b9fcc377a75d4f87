"""Reports of classifiers that the page shows, kept in memory so that their parts open the items behind them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.slices import SliceValues
from embedstore.classify.evaluation import Evaluation, RegressionEvaluation
from embedstore.classify.evaluation.evaluation import HeldOutPredictions
from embedstore.classify.metrics.calibration_error import reliability_codes
from embedstore.errors import ItemNotFound, LabelError
from embedstore.operations.bounded_cache import BoundedCache

MAX_REPORTS = 20
MAX_REPORT_BYTES = 256 << 20  # of the predictions of all reports together
_ITEM_BYTES = 300  # about what a held-out item takes besides its probabilities: label, id, group, value of a slice


@dataclass(frozen=True)
class KeptReport:
    """A report, and by what it was split.

    Attributes:
        evaluation: the report.
        slices: the value of each item of the column by which it was split.
    """

    evaluation: Evaluation | RegressionEvaluation
    slices: SliceValues | None = None

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        found = self.evaluation
        probabilities = found.held_out_predictions.proba.nbytes if isinstance(found, Evaluation) else 0
        return probabilities + _ITEM_BYTES * len(found.held_out_predictions.ids)


class Reports:
    """The last reports of one server. Threads may share it."""

    def __init__(self) -> None:
        self._reports: BoundedCache[str, KeptReport] = BoundedCache(
            MAX_REPORT_BYTES, lambda report: report.nbytes, max_values=MAX_REPORTS
        )

    def add(self, report: KeptReport) -> str:
        """Keep a report, and return its handle."""
        handle = secrets.token_urlsafe(9)
        self._reports.put(handle, report)
        return handle

    def cell(self, handle: str, true: str | None, predicted: str | None) -> NDArray[np.int64]:
        """Return the held-out items of a cell of the confusion matrix.

        Args:
            handle: the handle of the report.
            true: the label; None takes every label.
            predicted: the predicted label; None takes every one.

        Raises:
            ItemNotFound: if there is no such report.
            LabelError: if the report has no such cells, or the labels are others.
        """
        rows = self._single_label_rows(handle)
        known = {str(c) for c in rows.classes} | {str(y) for y in rows.y}
        for name in (true, predicted):
            if name is not None and name not in known:
                raise LabelError(f"the report has no label {name!r}; it has {', '.join(sorted(known)[:20])}")
        chosen = np.array(rows.classes, dtype=object)[rows.proba.argmax(axis=1)]
        matches = np.ones(len(rows.ids), np.bool_)
        if true is not None:
            matches &= np.array([str(y) == true for y in rows.y], np.bool_)
        if predicted is not None:
            matches &= np.array([str(c) == predicted for c in chosen], np.bool_)
        return rows.ids[matches]

    def slice(self, handle: str, value: str | None, *, only_wrong: bool) -> NDArray[np.int64]:
        """Return the held-out items of a slice.

        Args:
            handle: the handle of the report.
            value: the value of the column; None for the items without one.
            only_wrong: only the items that were predicted wrongly.

        Raises:
            ItemNotFound: if there is no such report.
            LabelError: if the report was not split by a column, has no such slice, or is one on numbers and only wrong
                predictions are wanted.
        """
        kept = self._kept(handle)
        if kept.slices is None:
            raise LabelError("the report was not split by a column; make one with `by`")
        rows, of_item = kept.evaluation.held_out_predictions, kept.slices.by_item
        matches = np.array([of_item.get(item) == value for item in rows.ids.tolist()], np.bool_)
        if not matches.any():
            raise LabelError(f"the report has no items with the value {value!r} of {kept.slices.column!r}")
        return rows.ids[matches & ~self._correct(kept)] if only_wrong else rows.ids[matches]

    def bin(self, handle: str, number: int, *, only_wrong: bool) -> NDArray[np.int64]:
        """Return the held-out items of a bin of the reliability diagram, the least certain first.

        Args:
            handle: the handle of the report.
            number: the number of the bin, from 0, as the report lists them.
            only_wrong: only the items that were predicted wrongly.

        Raises:
            ItemNotFound: if there is no such report.
            LabelError: if the report has no such bin.
        """
        rows = self._single_label_rows(handle)
        if not rows.has_probabilities:
            raise LabelError("the scores of this classifier are no probabilities, so that the report has no bins")
        confidence = rows.proba.max(axis=1)
        matches = reliability_codes(confidence, rows.groups) == number
        if not matches.any():
            raise LabelError(f"the report has no bin {number}")
        matches &= ~rows.correct if only_wrong else True
        chosen = np.flatnonzero(matches)
        return rows.ids[chosen[np.argsort(confidence[chosen], kind="stable")]]

    def _kept(self, handle: str) -> KeptReport:
        """Return a report."""
        kept = self._reports.get(handle)
        if kept is None:
            raise ItemNotFound(f"there is no report {handle!r} any more; make it again")
        return kept

    def _single_label_rows(self, handle: str) -> HeldOutPredictions:
        """Return the predictions of a report of one label per item."""
        report = self._kept(handle).evaluation
        if not isinstance(report, Evaluation) or report.multilabel:
            raise LabelError("a report on numbers or several labels per item has no confusion matrix and no such bins")
        return report.held_out_predictions

    def _correct(self, kept: KeptReport) -> NDArray[np.bool_]:
        """Return which held-out items were predicted right."""
        if not isinstance(kept.evaluation, Evaluation):
            raise LabelError("a report on numbers has no wrong predictions; leave out `wrong`")
        return kept.evaluation.held_out_predictions.correct
