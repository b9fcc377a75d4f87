"""An evaluation or a learning curve as a PNG file, drawn by matplotlib (``embedstore[viz]``)."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from embedstore import privacy
from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.classify.metrics import MetricName
from embedstore.errors import MissingExtra
from embedstore.reports import evaluation_text, regression_text
from embedstore.storage import durable_files
from embedstore.wording import counted

MAX_COUNTED_CLASSES = 20  # in a larger confusion matrix the counts do not fit into the cells


def evaluation_png(evaluation: Evaluation, path: Path) -> None:
    """Draw the confusion matrix; of a multilabel evaluation the average precision of every label.

    Args:
        evaluation: the result to draw.
        path: the path of the PNG file, 960 x 840 pixels; missing parent folders are made.

    Raises:
        MissingExtra: when matplotlib is not installed.
    """
    figure, axes = _new_figure()
    if evaluation.multilabel:
        _draw_average_precision(axes, evaluation)
    else:
        _draw_confusion(axes, evaluation)
    _save(figure, path)


def regression_png(evaluation: RegressionEvaluation, path: Path) -> None:
    """Draw predicted over true numbers with the line on which they are equal.

    Args:
        evaluation: the result to draw.
        path: the path of the PNG file, 960 x 840 pixels; missing parent folders are made.

    Raises:
        MissingExtra: when matplotlib is not installed.
    """
    figure, axes = _new_figure()
    rows = evaluation.held_out_predictions
    axes.scatter(rows.y, rows.predicted, s=12, alpha=0.5)
    ends = [float(min(rows.y.min(), rows.predicted.min())), float(max(rows.y.max(), rows.predicted.max()))]
    axes.plot(ends, ends, "--", color="gray")
    axes.set(
        xlabel=f"true {evaluation.label}",
        ylabel=f"predicted {evaluation.label}",
        title=regression_text.regression_title(evaluation),
    )
    _save(figure, path)


def learning_curve_png(curve: LearningCurve, path: Path) -> None:
    """Draw a learning curve with its standard deviation over the draws.

    Args:
        curve: the result to draw.
        path: the path of the PNG file, 960 x 840 pixels; missing parent folders are made.

    Raises:
        MissingExtra: when matplotlib is not installed.
    """
    figure, axes = _new_figure()
    x = np.arange(len(curve.points))
    reach = [[p.mean - p.low for p in curve.points], [p.high - p.mean for p in curve.points]]
    axes.errorbar(x, [p.mean for p in curve.points], reach, marker="o", capsize=3)
    axes.set_xticks(x, [evaluation_text.budget_name(p.labels_per_class) for p in curve.points])
    metric = evaluation_text.curve_metric(curve)
    axes.set(
        xlabel=evaluation_text.budget_unit(curve),
        ylabel=f"{metric} on {counted(curve.n_held_out, 'held-out item')}",
        title=f"{curve.head} on {curve.label}",
    )
    _save(figure, path)


def _draw_average_precision(axes: Any, e: Evaluation) -> None:
    """Draw one bar per label, the best on top, at most 40."""
    known = [c for c in e.report.per_class if evaluation_text.finite(c.average_precision) is not None]
    shown = sorted(known, key=lambda c: c.average_precision)[-evaluation_text.MAX_CONFUSION_CLASSES :]
    axes.barh([c.name for c in shown], [c.average_precision for c in shown])
    mean = e.scores[MetricName.AVERAGE_PRECISION].value
    axes.set(xlim=(0, 1), xlabel="average precision", title=f"{e.head} on {e.label}: mean average precision {mean:.3f}")


def _draw_confusion(axes: Any, e: Evaluation) -> None:
    """Draw the confusion matrix, shaded by the share of each true class."""
    names, matrix = evaluation_text.confusion_table(e)
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true", title=evaluation_text.evaluation_title(e))
    if len(names) > MAX_COUNTED_CLASSES:
        return
    for (i, j), count in np.ndenumerate(matrix):
        color = "white" if share[i, j] > 0.5 else "black"
        axes.text(j, i, int(count), ha="center", va="center", color=color, fontsize=8)


def _new_figure() -> tuple[Any, Any]:
    """Return a figure that needs no screen, and its axes."""
    try:
        privacy.use_temporary_matplotlib_folder()
        from matplotlib.figure import Figure
    except ImportError as e:
        raise MissingExtra("PNG drawings need matplotlib; run `pip install 'embedstore[viz]'`, or write .html") from e
    figure = Figure(figsize=(8, 7), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> None:
    """Write a figure as a whole or not at all."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    durable_files.write_output(path, data.getvalue())
