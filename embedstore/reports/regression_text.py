"""Evaluations of predicted numbers in words and tables, for the terminal and for HTML pages."""

from __future__ import annotations

import math

import numpy as np

from embedstore.classify.evaluation.regression.compare import RegressionComparison
from embedstore.classify.evaluation.regression.evaluation import RegressionEvaluation
from embedstore.classify.evaluation.regression.slice_report import NumericSliceReport
from embedstore.classify.evaluation.slice_report import MIN_SLICE_GROUPS
from embedstore.classify.evaluation.weighted_metrics import WEIGHTED_MAE, WEIGHTED_RMSE
from embedstore.classify.metrics.regression import MIN_GROUPS, NumericMetric
from embedstore.reports.evaluation_text import (
    MAX_LISTED_CLASSES,
    TextTable,
    all_pairs,
    comparison_leaks,
    finite,
    group_notes,
    near_duplicate_notes,
    split_notes,
)
from embedstore.wording import counted

_NO_VALUE = "(no value)"
_METHODS = {
    "split": "the val items",
    "cv+": "folds of the training items",
    "folds": "folds of the training items, predicted by one head for all (no guarantee)",
}


def regression_title(e: RegressionEvaluation) -> str:
    """Return head, label and the main metric."""
    return f"{e.head} on {e.label}: {_name(e.main_metric)} {e.report[e.main_metric]:.3f}"


def regression_summary(e: RegressionEvaluation) -> str:
    """Return one line on the head, the split and the selected hyper-parameters."""
    space = f" in space {e.space}" if e.space else ""
    selected = "".join(f", {k} = {v:.3g}" for k, v in e.hyperparameters.items())
    return (
        f"{e.head} on {e.label}{space} ({e.task}): {counted(e.n_held_out, 'held-out item')} ({e.split}), {e.n_train} "
        "training "
        f"items, {e.seconds:.2f} s{selected}"
    )


def regression_table(e: RegressionEvaluation) -> TextTable:
    """Return every metric with its interval, and the errors of the mean of the training items."""
    rows = [
        (_name(name), finite(s.value), number_interval(s.low, s.high), e.report.baseline.get(name))
        for name, s in e.scores.items()
    ]
    return TextTable(("metric", "value", "95% interval", "training mean instead"), rows)


def largest_error_table(e: RegressionEvaluation, uris: dict[int, str]) -> TextTable:
    """Return the items with the largest errors."""
    rows = [
        (uris.get(m.item, str(m.item)), f"{m.true:.10g}", f"{m.predicted:.5g}", number_interval(m.low, m.high))
        for m in e.largest_errors
    ]
    return TextTable(("item", "true", "predicted", "prediction interval"), rows)


def regression_notes(e: RegressionEvaluation) -> list[str]:
    """Return what limits the figures, one sentence per fact."""
    out = split_notes(e)
    out += near_duplicate_notes(e.near_duplicates)
    out += group_notes(e)
    n_groups = len(np.unique(e.held_out_predictions.groups))
    if n_groups < MIN_GROUPS:
        out.append(
            f"{counted(n_groups, 'group of held-out items is', 'groups of held-out items are')} too few for "
            f"intervals of {_name(e.main_metric)}"
        )
    for name, value in e.grid_edges.items():
        out.append(
            f"{name} = {value:.3g} is at the end of the values tried, and a better one may lie beyond it; --head-arg "
            f"{name}s=[...] tries others"
        )
    return [*out, _interval_note(e)]


def _interval_note(e: RegressionEvaluation) -> str:
    i = e.interval
    if i.mean_width is None:
        return (
            "the prediction intervals are unbounded: "
            f"{counted(i.groups, 'independent item calibrates', 'independent items calibrate')} them, and a coverage "
            f"of {i.target_coverage:g} needs {i.groups_needed}; label more, or give a larger --conformal-alpha"
        )
    return (
        f"prediction intervals for {i.target_coverage:g} of new items, calibrated on {counted(i.rows, 'item')} "
        f"({_METHODS[i.method]}): they hold {i.coverage.value:.3f} "
        f"{number_interval(i.coverage.low, i.coverage.high)} of the held-out numbers, and are {i.mean_width:.4g} long "
        "on average"
    )


def number_slice_table(report: NumericSliceReport) -> TextTable:
    """Return the errors of every slice; a slice with few items has no rank."""
    rows = [
        (
            _value(s.value),
            number if s.ranked else None,
            s.rows,
            s.groups,
            s.mae.value,
            number_interval(s.mae.low, s.mae.high),
            s.bias,
        )
        for number, s in enumerate(report.slices, 1)
    ]
    columns = (report.column, "rank", "items", "groups", "mean absolute error", "95% interval", "predicted - true")
    return TextTable(columns, rows)


def number_slice_notes(report: NumericSliceReport) -> list[str]:
    """Return the largest gap, and what was not compared, one sentence per fact."""
    out = list(report.value_notes)
    small = [s for s in report.slices if not s.ranked]
    if small:
        names = ", ".join(f"{_value(s.value)} ({s.groups})" for s in small[:MAX_LISTED_CLASSES])
        out.append(
            f"not ranked, for fewer than {MIN_SLICE_GROUPS} independent held-out items: "
            f"{counted(len(small), 'value')} of "
            f"{report.column}: {names}"
        )
    if report.n_cut_values:
        out.append(
            f"left out: {counted(report.n_cut_values, 'value')} of {report.column}, with "
            f"{counted(report.n_cut_rows, 'held-out item')}; "
            "the most frequent values are kept"
        )
    if not report.gaps:
        return [f"no gap by {report.column}: fewer than two values have held-out items enough", *out]
    gap = report.gaps[0]
    shown = "" if gap.is_shown else ", and does not show a difference"
    return [
        f"largest gap in mean absolute error: {_value(gap.high)} over {_value(gap.low)} by {gap.gap:.4g} "
        f"{number_interval(gap.gap_low, gap.gap_high)}{all_pairs(len(report.gaps))}" + shown,
        *out,
    ]


def regression_comparison_summary(c: RegressionComparison) -> str:
    """Return one line on the label and the split."""
    return (
        f"{c.label} ({c.task}): {counted(len(c.results), 'head')} on {counted(c.n_held_out, 'held-out item')} "
        f"({c.split}), {c.n_train} "
        "training items"
    )


def regression_comparison_leak_headline(c: RegressionComparison) -> str | None:
    """Return how many held-out items have a near-duplicate in training, and the errors of each head."""
    return comparison_leaks([(f"{r.evaluation.head} in {r.evaluation.space}", r.evaluation.leak) for r in c.results])


def regression_comparison_table(c: RegressionComparison) -> TextTable:
    """Return one row per space and head, the smallest mean absolute error first."""
    rows = []
    for result in c.results:
        e, gap = result.evaluation, result.error_gap
        main, mae = e.scores[e.main_metric], e.scores[NumericMetric.MAE]
        rows.append((
            e.space,
            e.head,
            mae.value,
            number_interval(mae.low, mae.high),
            finite(main.value),
            number_interval(main.low, main.high),
            gap and f"{gap.value:.4g} {number_interval(gap.low, gap.high)}",
            round(e.seconds, 3),
            result.cost.bytes_per_item,
        ))  # fmt: skip
    main_name = _name(c.results[0].evaluation.main_metric)
    columns = (
        "space", "head", "mean absolute error", "95% interval", main_name, "95% interval", "gap to the best", "seconds",
        "bytes/item",
    )  # fmt: skip
    return TextTable(columns, rows)


def regression_comparison_notes(c: RegressionComparison) -> list[str]:
    """Return how to read the comparison, one sentence per fact."""
    baseline = c.results[0].evaluation.report.baseline[NumericMetric.MAE]
    out = [f"the mean of the training items has a mean absolute error of {baseline:.4g}"]
    if len(c.results) > 1:
        out += [
            f"the gaps of the mean absolute errors hold for all pairs of the {counted(len(c.results), 'head')} "
            "together",
            "the first error is the lowest of several, and so too low by selection: evaluate the chosen head on other "
            "items before you state it",
        ]
    if n := c.n_without_shared_vector:
        out.append(
            counted(
                n,
                "labeled item has no vector in one of the spaces and was left out",
                "labeled items have no vector in one of the spaces and were left out",
            )
        )
    evaluations = [r.evaluation for r in c.results]
    return [*dict.fromkeys(n for e in evaluations for n in (*split_notes(e), *group_notes(e))), *out]


def number_interval(low: float, high: float) -> str | None:
    """Return an interval as text, or None where there is none."""
    return None if math.isnan(low + high) else f"[{low:.4g}, {high:.4g}]"


def _name(metric: str) -> str:
    """Return a metric in words."""
    weighted = {WEIGHTED_MAE: "weighted mean absolute error", WEIGHTED_RMSE: "weighted root mean squared error"}
    return weighted.get(metric) or _NAMES[NumericMetric(metric)]


def _value(value: str | None) -> str:
    return _NO_VALUE if value is None else value


_NAMES = {
    NumericMetric.R2: "R²",
    NumericMetric.MAE: "mean absolute error",
    NumericMetric.RMSE: "root mean squared error",
    NumericMetric.PEARSON: "Pearson correlation",
    NumericMetric.SPEARMAN: "Spearman correlation",
    NumericMetric.QUADRATIC_KAPPA: "quadratic kappa",
    NumericMetric.WITHIN_ONE: "accuracy within one level",
    NumericMetric.ACCURACY: "accuracy",
}
