"""Comparisons of classifiers in words and tables, for the terminal and for HTML pages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.compare_heads import HeadComparison
from embedstore.classify.evaluation.paired_comparison import ComparisonPower
from embedstore.classify.heads import HEAD_NAMES
from embedstore.classify.metrics import MetricName
from embedstore.reports.evaluation_text import TextTable, comparison_leaks, group_notes, split_notes
from embedstore.wording import counted


def comparison_leak_headline(comparison: HeadComparison) -> str | None:
    """Return how many held-out items have a near-duplicate in training, and the accuracies of each classifier."""
    evaluations = [r.evaluation for r in comparison.results]
    return comparison_leaks([(f"{e.head} in {e.space}", e.leak) for e in evaluations])


def comparison_summary(comparison: HeadComparison) -> str:
    """Return one line on the label and the split."""
    c = comparison
    return (
        f"{c.label}: {len(c.results)} classifiers on {counted(c.n_held_out, 'held-out item')} ({c.split}), "
        f"{counted(c.n_train, 'training item')}"
    )


def comparison_table(comparison: HeadComparison) -> TextTable:
    """Return one row per space and head, the best first."""
    columns = (
        "space", "head", "accuracy", "95% interval", "mean recall", "log-loss", "gap to the best", "p", "items needed",
        "seconds", "items/s", "bytes/item",
    )  # fmt: skip
    rows = []
    for result in comparison.results:
        e, gap = result.evaluation, result.accuracy_gap
        accuracy = e.scores[MetricName.ACCURACY]
        others = [e.scores.get(m) for m in (MetricName.MEAN_PER_CLASS_RECALL, MetricName.LOG_LOSS)]
        rows.append((
            e.space,
            e.head,
            f"{accuracy.value:.4f}",
            f"[{accuracy.low:.3f}, {accuracy.high:.3f}]",
            *(score and score.value for score in others),
            gap and f"{gap.value:.3f} [{gap.low:.3f}, {gap.high:.3f}]",
            None if result.p_value is None else f"{result.p_value:.3g}",
            result.items_needed,
            round(e.seconds, 3),
            result.cost.images_per_second,
            result.cost.bytes_per_item,
        ))  # fmt: skip
    return TextTable(columns, rows)


def comparison_curve_table(comparison: HeadComparison) -> TextTable:
    """Return the learning curves of a comparison: the mean and its 95% interval at each label budget."""
    curves = [r.learning_curve for r in comparison.results if r.learning_curve]
    budgets = sorted({p.labels_per_class for c in curves for p in c.points if p.labels_per_class is not None})
    rows = []
    for curve in curves:
        cells = {p.labels_per_class: f"{p.mean:.3f} [{p.low:.3f}, {p.high:.3f}]" for p in curve.points}
        rows.append([curve.space, curve.head, *(cells.get(b, "") for b in (*budgets, None))])
    return TextTable(["space", "head", *(f"{b} per class" for b in budgets), "all"], rows)


def comparison_notes(comparison: HeadComparison) -> list[str]:
    """Return how to read the comparison, one sentence per fact."""
    c = comparison
    out = []
    if c.power is not None:
        out = [
            f"gap and p hold for all pairs of the {len(c.results)} classifiers together; p is that of McNemar's exact "
            "test with Holm's correction",
            *power_notes(c.power, c.n_held_out),
            f"the first accuracy is the highest of {len(c.results)}, and so too high by selection: evaluate the chosen "
            "classifier on other items before you state it",
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
    out += _comparison_row_notes(evaluations)
    without = sorted({e.head for e in evaluations if not e.held_out_predictions.has_probabilities})
    if without:
        out.append(f"no log-loss for {', '.join(without)}: no probabilities; --calibrate makes probabilities of scores")
    return out


def _comparison_row_notes(evaluations: Sequence[Evaluation]) -> list[str]:
    """Return which items were left out, which no classifier was fitted to, and what the held-out ones are."""
    out: list[str] = []
    idle = [e for e in evaluations if e.n_unused_validation and e.head in HEAD_NAMES]
    if idle:
        names = ", ".join(dict.fromkeys(e.head for e in idle))
        n = max(e.n_unused_validation for e in idle)
        out.append(
            f"{counted(n, 'item of the split val was', 'items of the split val were')} not used by {names}; --refit "
            "trains on them"
        )
    return [*out, *dict.fromkeys(note for e in evaluations for note in (*split_notes(e), *group_notes(e)))]


def power_notes(power: ComparisonPower, n_held_out: int) -> list[str]:
    """Return which differences the held-out items can show."""
    if not math.isfinite(power.detectable_difference):
        return [f"{counted(n_held_out, 'held-out item')} of one group show no difference; label items of other groups"]
    if power.detectable_difference > 1:
        return [
            f"{counted(n_held_out, 'held-out item')} of so few groups show no difference; for one point about "
            f"{power.items_for_one_point:,} would be needed"
        ]
    return [
        f"{counted(n_held_out, 'held-out item shows', 'held-out items show')} a true difference of "
        f"{100 * power.detectable_difference:.1f} points or more "
        f"in four of five cases; for one point about {power.items_for_one_point:,} would be needed"
    ]
