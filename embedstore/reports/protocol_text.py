"""Protocols in words and tables."""

from __future__ import annotations

from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.protocol_report import ProtocolReport
from embedstore.reports.evaluation_text import TextTable, interval
from embedstore.wording import counted

MAX_PRINTED_VALUES = 12  # a grid of 45 values is shown around the selected one; --json has all


def protocol_title(report: ProtocolReport) -> str:
    """Return the protocol, its source, and who selects, or the mean over its draws."""
    if report.mean_accuracy is not None:
        values = [c.accuracy.value for c in report.candidates if c.accuracy]
        return (
            f"protocol {report.name} ({report.source}): mean accuracy {report.mean_accuracy:.3f} over {len(values)} "
            f"draws of {counted(report.n_trained, 'training item')}, from {min(values):.3f} to {max(values):.3f}"
        )
    return (
        f"protocol {report.name} ({report.source}): {report.parameter} is selected on "
        f"{counted(report.n_choice, 'item')} "
        f"({report.chosen_on})"
    )


def protocol_table(report: ProtocolReport) -> TextTable:
    """Return the values that were tried, at most those around the selected one."""
    values = [c.value for c in report.candidates]
    place = values.index(report.selected)
    first = max(0, min(place - MAX_PRINTED_VALUES // 2, len(values) - MAX_PRINTED_VALUES))
    shown = report.candidates[first : first + MAX_PRINTED_VALUES]
    number = "{:.4g}".format
    columns: list[str] = [report.parameter, "selected", "accuracy where it selects"]
    rows: list[list[object]] = [
        [number(c.value), "*" if c.value == report.selected else None, c.choice_accuracy] for c in shown
    ]
    if any(c.accuracy for c in report.candidates):
        columns += ["accuracy", "95% interval", "top-5 accuracy"]
        for row, c in zip(rows, shown, strict=True):
            a = c.accuracy
            row += [a and a.value, a and interval(a.low, a.high), c.top5_accuracy and c.top5_accuracy.value]
    return TextTable(columns, rows)


def protocol_notes(e: Evaluation) -> list[str]:
    """Return what the figures of a protocol may be used for, and what differs from the published procedure."""
    report = e.protocol
    if report is None:
        return []
    out = list(report.notes)
    best = report.best_on_held_out
    if best is not None and best.accuracy is not None:
        out.append(
            f"the highest accuracy, {best.accuracy.value:.3f} at {report.parameter} = {best.value:g}, is picked on the "
            f"held-out items themselves and is no honest estimate; {report.parameter} = {report.selected:g}, selected "
            f"without them, has {e.accuracy:.3f}"
        )
    return out
