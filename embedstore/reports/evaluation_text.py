"""Evaluations in words and tables, for the terminal and for HTML pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedstore.classify.data.label_text import unlabeled_notes
from embedstore.classify.data.split_leaks import SplitNearDuplicates
from embedstore.classify.evaluation import Evaluation, ProbeResult
from embedstore.classify.evaluation.leaks import LeakedScore
from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.classify.evaluation.uncertainty import AbstentionEffect, ConformalEffect
from embedstore.classify.heads import HEAD_NAMES
from embedstore.classify.metrics import MIN_POSITIVES, MetricName
from embedstore.classify.metrics.regression import NumericMetric
from embedstore.wording import counted

MAX_CONFUSION_CLASSES = 40  # a larger confusion matrix is unreadable: the most confused classes are kept
MAX_LISTED_CLASSES = 10  # in a note
_METRIC_NAMES = {
    MetricName.ACCURACY.value: "accuracy",
    MetricName.AVERAGE_PRECISION.value: "mean average precision",
    NumericMetric.MAE.value: "mean absolute error",
    "R@1": "R@1",
}


class TextTable(NamedTuple):
    """Column names, and rows of text and numbers; None is an empty cell."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


def evaluation_title(e: Evaluation) -> str:
    """Return head, label and accuracy."""
    return f"{e.head} on {e.label}: accuracy {e.accuracy:.3f}"


def evaluation_summary(e: Evaluation) -> str:
    """Return one line on the head, the split and the selected hyper-parameters."""
    space = f" in space {e.space}" if e.space else ""
    selected = "".join(
        f", {k} = {v:.3g}" if isinstance(v, float) else f", {k} = {v}" for k, v in e.hyperparameters.items()
    )
    return (
        f"{e.head} on {e.label}{space}: {counted(e.n_held_out, 'held-out item')} ({e.split}), "
        f"{counted(e.n_train, 'training item')}, "
        f"{e.seconds:.2f} s{selected}"
    )


def evaluation_notes(e: Evaluation) -> list[str]:
    """Return what limits the figures, one sentence per fact."""
    out = split_notes(e) + near_duplicate_notes(e.near_duplicates)
    if e.unlearned_classes:
        names = ", ".join(e.unlearned_classes[:MAX_LISTED_CLASSES])
        out.append(f"classes without enough training examples, counted as wrong: {names}")
    if e.n_unused_validation:
        out.append(
            f"{counted(e.n_unused_validation, 'item of the split val was', 'items of the split val were')} not "
            f"used{_validation_cure(e)}"
        )
    out += _rows_notes(e)
    for name, value in e.grid_edges.items():
        option = {"C": "Cs", "gamma": "gammas"}.get(name) if not e.protocol else None
        cure = f"; --head-arg {option}=[...] tries others" if option else ""
        out.append(f"{name} = {value:g} is at the end of the values tried, and a better one may lie beyond it{cure}")
    return out + _uncertainty_notes(e)


def _validation_cure(e: Evaluation) -> str:
    """Return what this head could use the val items for, as the end of a note."""
    if e.protocol or e.head not in HEAD_NAMES:  # a protocol sets its rows, and words and shots are not fitted to more
        return ""
    selects_c = e.head == "logistic" and len(e.c_path) > 1
    return f"; {'--choose-on val selects C on them, ' if selects_c else ''}--refit trains on them"


def split_notes(e: ProbeResult) -> list[str]:
    """Return which items were left out or added, and what is to be known of the labels."""
    out = []
    if e.n_leaks:
        out.append(
            f"{counted(e.n_leaks, 'training item was', 'training items were')} left out: their content or group is "
            "held out"
        )
    out += [*unlabeled_notes(e.n_unlabeled, e.label), *e.label_notes, *e.split_notes]
    if e.n_train_without_split:
        one, several = "item without a split of its own trains", "items without a split of their own train"
        out.append(f"{counted(e.n_train_without_split, one, several)}, too")
    return out


def group_notes(e: ProbeResult) -> list[str]:
    """Return how many groups the held-out items are, where some of them share one."""
    n_groups = len(np.unique(e.held_out_predictions.groups))
    if n_groups == e.n_held_out:
        return []
    return [
        f"the {counted(e.n_held_out, 'held-out item is', 'held-out items are')} {counted(n_groups, 'group')}; a "
        "group is one draw in every interval"
    ]


def _rows_notes(e: Evaluation) -> list[str]:
    """Return what the held-out rows cannot show."""
    out = group_notes(e)
    if rare := e.report.rare_classes:
        names = ", ".join(rare[:MAX_LISTED_CLASSES]) + (", …" if len(rare) > MAX_LISTED_CLASSES else "")
        have = "class has" if len(rare) == 1 else "classes have"
        out.append(
            f"{len(rare)} {have} fewer than {MIN_POSITIVES} held-out items, too few for their average precision "
            f"and AUROC: {names}"
        )
    if e.label_thresholds is not None:
        thresholds = sorted(e.label_thresholds.values())
        out.append(
            f"each label has a threshold of its own, from {thresholds[0]:.3f} to {thresholds[-1]:.3f}, chosen for the "
            "highest F1 on items that are not held out; scores are scaled so that it is one half, and are no "
            "probabilities: log-loss, Brier score and calibration error are left out"
        )
    elif not e.held_out_predictions.has_probabilities:
        out.append(
            f"the scores of {e.head} are no probabilities: log-loss, Brier score and calibration error are left out; "
            "--calibrate makes probabilities of them"
        )
    return out


def near_duplicate_notes(near: SplitNearDuplicates | None) -> list[str]:
    """Return what near-duplicates there are, and what was done with them."""
    if near is None:
        return []
    found, out = near.found, []
    if near.count:
        effect = "were left out" if near.dropped else "stay in training; `--drop-near-duplicates` leaves them out"
        out.append(
            f"{counted(near.count, 'training item is', 'training items are')} near-duplicates of held-out items and "
            f"{effect}"
        )
    thresholds = ", ".join(f"{t:.3f}" for t in found.thresholds.values())
    if found.n_groups:
        out.append(
            f"{counted(found.n_grouped, 'item is', 'items are')} near-duplicates of another one (cosine >= "
            f"{thresholds}), in {counted(found.n_groups, 'group')} that no fold separates"
            + (
                f"; {counted(found.n_across_labels, 'pair has', 'pairs have')} different labels"
                if found.n_across_labels
                else ""
            )
        )
    if found.expected_false_pairs is not None and (found.n_groups or near.count):
        out.append(
            f"the cosine was chosen from the distances of all items: about {found.expected_false_pairs:g} pairs of "
            "different items are expected above it; `--near-duplicate-threshold` sets another, "
            "`--near-duplicates ignore` does without"
        )
    if found.separated_classes:
        names = ", ".join(found.separated_classes[:MAX_LISTED_CLASSES])
        out.append(f"classes whose items are all near-duplicates of each other were not kept together: {names}")
    return out


def leak_headline(leak: LeakedScore | None, qualifier: str = "") -> str | None:
    """Return how many held-out items have a near-duplicate in training, and what that does to the score.

    Args:
        leak: the scores on both kinds of items; None where no item has a near-duplicate.
        qualifier: which of several scores it is, such as ``with all labels``.
    """
    if leak is None:
        return None
    name = " ".join(part for part in (_METRIC_NAMES[leak.metric], qualifier) if part)
    scores = [
        f"{leak_score(leak, score)} on {items}"
        for score, items in ((leak.score_near, "them"), (leak.score_other, f"the other {leak.n_other}"))
        if score is not None
    ]
    return f"{leak_count(leak)}: {name} {', '.join(scores)}"


def comparison_leaks(results: Sequence[tuple[str, LeakedScore | None]]) -> str | None:
    """Return how many held-out items have a near-duplicate in training, and the scores of each classifier by name."""
    known = [(name, leak) for name, leak in results if leak is not None]
    if not known:
        return None
    first = known[0][1]
    scores = "; ".join(
        f"{name} {leak_score(leak, leak.score_near)} / {leak_score(leak, leak.score_other)}" for name, leak in known
    )
    return f"{leak_count(first)}: {_METRIC_NAMES[first.metric]} on them / on the others: {scores}"


def leak_score(leak: LeakedScore, score: float | None) -> str:
    """Return one of the scores in words."""
    if score is None:
        return "none"
    return f"{score:.4g}" if leak.metric == NumericMetric.MAE else f"{score:.3f}"


def leak_count(leak: LeakedScore) -> str:
    """Return how many held-out items have a near-duplicate in training, in words."""
    identical = f" ({leak.n_identical} identical)" if leak.n_identical else ""
    total = leak.n_near + leak.n_other
    if leak.metric == "R@1":
        queries = counted(total, "query", "queries")
        return f"{leak.n_near} of {queries} have a near copy in the gallery{identical}, which is no candidate"
    effect = ", which was left out of training" if leak.dropped else ""
    return f"{leak.n_near} of {counted(total, 'held-out item')} have a near copy in training{identical}{effect}"


def _uncertainty_notes(e: Evaluation) -> list[str]:
    out = []
    if c := e.calibration:
        out.append(
            f"calibrated by {c.method} on {counted(c.rows, 'item')}: log-loss {c.log_loss_before:.4f} -> "
            f"{c.log_loss_after:.4f}, Brier score {c.brier_score_before:.4f} -> {c.brier_score_after:.4f}"
        )
    if a := e.abstain:
        out.append(_abstention_note(a))
    if s := e.conformal:
        out.append(
            f"answers with sets of classes (chosen for coverage {s.target_coverage:g} on "
            f"{counted(s.rows, 'item')}): "
            f"{s.coverage:.3f} {_interval(s.coverage_interval)} of the sets hold the true class; "
            f"{s.mean_size:.2f} classes per set on average, "
            f"{s.single:.3f} of the sets have one class, {s.empty:.3f} none"
        )
        out += _low_coverage_notes(s)
    return out


def _abstention_note(a: AbstentionEffect) -> str:
    """Return what a head that abstains promises, and what it did on the held-out items."""
    promise = f"precision of at least {a.target_precision:g} on new items, in 95% of such samples"
    if a.threshold is None:
        needed = a.rows_needed
        unit = "item" if a.groups == a.rows else "group"
        cure = (
            f"about {counted(needed, unit)} would show one" if needed else "the head reaches it on no part of the items"
        )
        rows = counted(a.rows, "item shows", "items show")
        if unit == "group":
            rows = f"{counted(a.rows, 'item')} of {counted(a.groups, 'group shows', 'groups show')}"
        return f"answers nothing: {rows} no threshold with a {promise}; {cure}"
    precision = "none" if a.precision is None else f"{a.precision:.3f} {_interval(a.precision_interval)}"
    return (
        f"abstains below {a.threshold:.3f} (chosen on {counted(a.rows, 'item')} for a {promise}): answers "
        f"{a.coverage:.3f} of the held-out items with precision {precision}"
    )


def _low_coverage_notes(s: ConformalEffect) -> list[str]:
    """Return the classes whose sets hold the true class more rarely than luck explains."""
    target = s.target_coverage
    low = [c for c in s.coverage_by_class if target - c.coverage > 2 * math.sqrt(target * (1 - target) / c.rows)]
    if not low:
        return []
    low.sort(key=lambda c: c.coverage)
    names = ", ".join(f"{c.name} {c.coverage:.3f} of {c.rows}" for c in low[:MAX_LISTED_CLASSES])
    return [f"the coverage holds on average, not in every class (`--conformal-by-class` does that): {names}"]


def score_table(e: Evaluation) -> TextTable:
    """Return every metric with its interval."""
    rows = [(name, finite(s.value), interval(s.low, s.high)) for name, s in e.scores.items()]
    return TextTable(("metric", "value", "95% interval"), rows)


def class_table(e: Evaluation) -> TextTable:
    """Return the metrics of every class."""
    rows = [
        (
            c.name,
            c.support,
            c.predicted,
            *map(finite, (c.precision, c.recall)),
            interval(c.recall_low, c.recall_high),
            *map(finite, (c.f1, c.average_precision)),
        )
        for c in e.report.per_class
    ]
    columns = ("class", "items", "predicted", "precision", "recall", "95% interval", "F1", "average precision")
    return TextTable(columns, rows)


def reliability_table(e: Evaluation) -> TextTable:
    """Return the bins of the reliability diagram."""
    rows = [(b.rows, b.confidence, b.accuracy, interval(b.low, b.high)) for b in e.report.reliability]
    return TextTable(("items", "confidence", "accuracy", "95% interval"), rows)


def interval(low: float, high: float) -> str | None:
    """Return an interval as text, or None where there is none."""
    return f"[{low:.3f}, {high:.3f}]" if math.isfinite(low + high) else None


def _interval(bounds: Sequence[float] | None) -> str | None:
    """Return an interval as text, or None where there is none."""
    return interval(*bounds) if bounds else None


def all_pairs(count: int) -> str:
    """Return that an interval holds for several pairs together, as the end of a note; no text for a single pair."""
    return f"; the interval holds for all {count:,} pairs together" if count > 1 else ""


def finite(value: float) -> float | None:
    """Return a number, or None for NaN and infinity."""
    return value if math.isfinite(value) else None


def confusion_table(e: Evaluation) -> tuple[list[str], NDArray[np.int64]]:
    """Return the classes of the confusion matrix and their counts; of more than 40 classes the most confused 40."""
    counts, names = np.array(e.confusion, dtype=np.int64), list(e.report.classes)
    if len(names) <= MAX_CONFUSION_CLASSES:
        return names, counts
    errors = counts - np.diag(np.diag(counts))
    most = np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:MAX_CONFUSION_CLASSES]
    rows = np.sort(most)
    return [names[i] for i in rows], counts[np.ix_(rows, rows)]


def curve_title(curve: LearningCurve) -> str:
    """Return head, label and metric."""
    return f"{curve.head} on {curve.label}: {curve_metric(curve)} over {budget_unit(curve)}"


def budget_unit(curve: LearningCurve) -> str:
    """Return what the label budgets count."""
    return "labels" if curve.metric == NumericMetric.MAE else "labels per class"


def curve_leak_headline(curve: LearningCurve) -> str | None:
    """Return how many held-out items have a near-duplicate in training, and what that does to the last point."""
    return leak_headline(curve.leak, "with all labels")


def curve_summary(curve: LearningCurve) -> str:
    """Return the held-out side and the time."""
    return f"{counted(curve.n_held_out, 'held-out item')} ({curve.split}), {curve.seconds:.2f} s"


def curve_metric(curve: LearningCurve) -> str:
    """Return the metric of a learning curve in words."""
    return _METRIC_NAMES[curve.metric]


def curve_table(curve: LearningCurve) -> TextTable:
    """Return the mean, its interval over draws and held-out items, and the standard deviation of the draws."""
    columns = (
        budget_unit(curve), "training items", curve_metric(curve), "95% interval", "std of draws", "draws",
    )  # fmt: skip
    return TextTable(
        columns,
        [
            (
                budget_name(p.labels_per_class),
                p.n_train,
                p.mean,
                f"[{p.low:.4g}, {p.high:.4g}]" if curve.metric == NumericMetric.MAE else f"[{p.low:.3f}, {p.high:.3f}]",
                p.std if len(p.values) > 1 else None,
                len(p.values),
            )
            for p in curve.points
        ],
    )


def curve_notes(curve: LearningCurve) -> list[str]:
    """Return what was left out, and the label budgets that were skipped, once for each reason."""
    unit, budgets = budget_unit(curve), dict[str, list[str]]()
    for budget, reason in curve.skipped_budgets:
        budgets.setdefault(reason, []).append(f"{budget:,}")
    one = f"{unit.replace('labels', 'label', 1)} was"
    return [
        *curve.notes,
        *(
            f"{', '.join(skipped)} {one if skipped == ['1'] else f'{unit} were'} skipped: {reason}"
            for reason, skipped in budgets.items()
        ),
    ]


def budget_name(labels_per_class: int | None) -> str:
    """Return a label budget in words."""
    return "all" if labels_per_class is None else str(labels_per_class)
