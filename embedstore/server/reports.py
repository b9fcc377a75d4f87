"""Reports of classifiers that the page shows, kept in memory so that their cells open the items behind them."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.evaluation import Evaluation, RegressionEvaluation
from embedstore.errors import ItemNotFound, LabelError

MAX_REPORTS = 20  # about 100 bytes per held-out item and class each


class Reports:
    """The last reports of one server. Threads may share it."""

    def __init__(self) -> None:
        self._reports: OrderedDict[str, Evaluation | RegressionEvaluation] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, report: Evaluation | RegressionEvaluation) -> str:
        """Keep a report, and return its handle."""
        handle = secrets.token_urlsafe(9)
        with self._lock:
            self._reports[handle] = report
            while len(self._reports) > MAX_REPORTS:
                self._reports.popitem(last=False)
        return handle

    def cell(self, handle: str, true: str | None, predicted: str | None) -> NDArray[np.int64]:
        """Return the held-out items of a cell of the confusion matrix.

        Args:
            handle: of the report.
            true: the label; None takes every label.
            predicted: the predicted label; None takes every one.

        Raises:
            ItemNotFound: if there is no such report.
            LabelError: if the report has no such cells, or the labels are others.
        """
        with self._lock:
            report = self._reports.get(handle)
        if report is None:
            raise ItemNotFound(f"there is no report {handle!r} any more; make it again")
        if not isinstance(report, Evaluation) or report.multilabel:
            raise LabelError("a report on numbers or several labels per item has no confusion matrix")
        rows = report.held_out_predictions
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
