"""An evaluation as one self-contained HTML page, or as a PNG; a learning curve likewise.

The page's drawings are SVG made here, so it needs no drawing package; PNG files need matplotlib, ``embedstore[viz]``.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embedstore.classify.evaluation import Evaluation
from embedstore.classify.evaluation.compare_heads import HeadComparison
from embedstore.classify.evaluation.learning_curve import LearningCurve
from embedstore.classify.metrics import MetricName
from embedstore.errors import MissingExtra
from embedstore.reports import contact_sheet, svg
from embedstore.types import Hit

MAX_CONFUSION_CLASSES = 40  # in the confusion matrix: more are unreadable, the most confused are kept


def evaluation_page(evaluation: Evaluation, uris: Mapping[int, str], *, curve: LearningCurve | None = None) -> str:
    """Metrics with intervals, confusion matrix, classes, C path, learning curve and the most confident mistakes.

    Args:
        evaluation: what to show. uris: where the images of :attr:`Evaluation.mistakes` are. curve: if there is one.
    """
    e = evaluation
    title = f"{e.head} on {e.label}: accuracy {e.accuracy:.3f}"
    parts = [f"<h1>{_t(title)}</h1>", f"<p>{_t(evaluation_summary(e))}</p>", _notes(e), _metrics(e)]
    if e.confusion:
        parts.append(_confusion(e))
    parts.append(_classes(e))
    if len(e.c_path) > 1:
        drawn = svg.line_chart(
            [(math.log10(c), loss) for c, loss, _ in e.c_path], x_label="log10 C", y_label="log-loss out of fold"
        )
        rough = "<p>Exact at the best value and beside it, elsewhere as far as it takes to see that it is worse.</p>"
        parts.append(f"<h2>C, chosen inside the training items</h2>{drawn}{rough}")
    if curve is not None:
        parts.append(f"<h2>Labels a class</h2>{_curve(curve)}")
    parts.append(_mistakes(e, uris))
    return _document(title, parts)


def learning_curve_page(curve: LearningCurve) -> str:
    """A learning curve as a page of its own."""
    title = f"{curve.head} on {curve.label}: {_metric(curve)} over labels a class"
    facts = f"{curve.n_held_out} held-out items ({curve.split}), {curve.seconds:.1f} s"
    return _document(title, [f"<h1>{_t(title)}</h1>", f"<p>{_t(facts)}</p>", _curve(curve)])


COMPARISON_COLUMNS = (
    "space", "head", "accuracy", "95% interval", "mean recall", "log-loss", "behind the best", "p", "seconds",
    "images/s", "bytes/item",
)  # fmt: skip


def comparison_page(comparison: HeadComparison) -> str:
    """A comparison as a page of its own."""
    title = (
        f"{comparison.label}: {len(comparison.results)} classifiers on {comparison.n_held_out} held-out items "
        f"({comparison.split}), {comparison.n_train} trained on"
    )
    notes = "".join(f'<p class="note">{_t(n)}</p>' for n in comparison_notes(comparison))
    rows = [[_cell(v) for v in r] for r in comparison_rows(comparison)]
    curves = (
        [f"<h2>Labels a class</h2>{_table(*learning_curve_table(comparison))}"]
        if learning_curve_table(comparison)[1]
        else []
    )
    return _document(title, [f"<h1>{_t(title)}</h1>", _table(COMPARISON_COLUMNS, rows), notes, *curves])


def comparison_rows(comparison: HeadComparison) -> list[tuple[Any, ...]]:
    """One row a contestant, best first, in the order of :data:`COLUMNS`; None where there is nothing to say."""
    rows: list[tuple[Any, ...]] = []
    for x in comparison.results:
        scores, b = x.evaluation.scores, x.accuracy_gap
        rows.append((
            x.evaluation.space,
            x.evaluation.head,
            f"{x.evaluation.accuracy:.4f}",
            f"[{scores['accuracy'].low:.3f}, {scores['accuracy'].high:.3f}]",
            scores[MetricName.MEAN_PER_CLASS_RECALL].value if MetricName.MEAN_PER_CLASS_RECALL in scores else None,
            scores[MetricName.LOG_LOSS].value if MetricName.LOG_LOSS in scores else None,
            b and f"{b.value:.3f} [{b.low:.3f}, {b.high:.3f}]",
            None if x.p_value is None else f"{x.p_value:.3g}",
            round(x.evaluation.seconds, 3),
            x.cost.images_per_second,
            x.cost.bytes_per_item,
        ))  # fmt: skip
    return rows


def learning_curve_table(comparison: HeadComparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows of the learning curves: mean and standard deviation over the draws at each budget."""
    curves = [(x.evaluation, x.learning_curve) for x in comparison.results if x.learning_curve]
    budgets = sorted(
        {p.labels_per_class for _, curve in curves for p in curve.points if p.labels_per_class is not None}
    )
    rows = []
    for e, curve in curves:
        at = {
            p.labels_per_class: f"{p.mean:.3f} ± {p.std:.3f}" if p.labels_per_class else f"{p.mean:.3f}"
            for p in curve.points
        }
        rows.append([e.space, e.head, *(at.get(b, "") for b in (*budgets, None))])
    return ["space", "head", *(f"{b} a class" for b in budgets), "all"], rows


def comparison_notes(comparison: HeadComparison) -> list[str]:
    """How to read it, one sentence each."""
    out = ["p: McNemar's exact test against the first, corrected for the number of rows (Holm)"]
    if comparison.n_without_shared_vector:
        out.append(
            f"{comparison.n_without_shared_vector} labelled items lack a vector in one of the spaces and were left out"
        )
    return out


def evaluation_summary(evaluation: Evaluation) -> str:
    """One line: what was judged on what."""
    chosen = "".join(
        f", {k} = {v:.3g}" if isinstance(v, float) else f", {k} = {v}" for k, v in evaluation.hyperparameters.items()
    )
    space = f" in space {evaluation.space}" if evaluation.space else ""
    return (
        f"{evaluation.head} on {evaluation.label}{space}: {evaluation.n_held_out} held-out items "
        f"({evaluation.split}), {evaluation.n_train} trained on, "
        f"{evaluation.seconds:.2f} s{chosen}"
    )


def evaluation_notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know beside the figures, one sentence each."""
    out = []
    if evaluation.n_leaks:
        out.append(f"{evaluation.n_leaks} training items were left out: the same content or group is held out")
    if evaluation.near_duplicates is not None and not evaluation.near_duplicates.searched:
        out.append(
            "near-duplicates were not looked for: the search is long; ask with "
            f"--near-duplicate-threshold {evaluation.near_duplicates.threshold:g}"
        )
    elif evaluation.near_duplicates is not None and evaluation.near_duplicates.count:
        done = (
            "were left out" if evaluation.near_duplicates.dropped else "trained; --drop-near-duplicates leaves them out"
        )
        out.append(
            f"{evaluation.near_duplicates.count} training items have a near-duplicate among the held-out ones "
            f"(cosine >= {evaluation.near_duplicates.threshold:g}) and {done}"
        )
    if evaluation.n_unlabeled:
        out.append(f"{evaluation.n_unlabeled} items have no {evaluation.label} and were left out")
    if evaluation.unlearned_classes:
        out.append(
            "classes without enough training examples, counted as wrong: "
            + ", ".join(evaluation.unlearned_classes[:10])
        )
    if evaluation.calibration:
        c = evaluation.calibration
        out.append(
            f"calibrated ({c['method']}, {c['rows']} items): expected calibration error "
            f"{c['expected_calibration_error_before']:.4f} -> {c['expected_calibration_error_after']:.4f}"
        )
    if evaluation.abstain:
        a = evaluation.abstain
        precision = "none" if a["precision"] is None else f"{a['precision']:.3f}"
        out.append(
            f"abstains below {a['threshold']:.3f} (chosen for precision {a['target_precision']:g} on {a['rows']} "
            f"items): answers {a['coverage']:.3f} of the held-out items with precision {precision}"
        )
    if evaluation.conformal:
        c = evaluation.conformal
        out.append(
            f"answers with sets (chosen for coverage {c['target_coverage']:g} on {c['rows']} items): "
            f"{c['coverage']:.3f} of the held-out items' sets hold the true class; {c['mean_size']:.2f} classes a set "
            f"on average, {c['single']:.3f} of the sets have one, {c['empty']:.3f} none"
        )
    return out


def evaluation_png(evaluation: Evaluation, path: Path) -> None:
    """The confusion matrix as a picture; of several labels an item, average precision by label.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure, axis = _axes()
    if evaluation.multilabel:
        _bars(axis, evaluation)
    else:
        _matrix(axis, evaluation)
    _save(figure, path)


def _bars(axis: Any, e: Evaluation) -> None:
    """Average precision of the labels, the best of at most 40 on top."""
    known = [c for c in e.report.per_class if math.isfinite(c.average_precision)]
    rows = sorted(known, key=lambda c: c.average_precision)[-MAX_CONFUSION_CLASSES:]
    axis.barh([c.name for c in rows], [c.average_precision for c in rows])
    axis.set_xlim(0, 1)
    axis.set_xlabel("average precision")
    axis.set_title(f"{e.head} on {e.label}: mean average precision {e.report['average_precision_macro']:.3f}")


def _matrix(axis: Any, e: Evaluation) -> None:
    names, matrix = confusion_table(e)
    axis.imshow(matrix / np.maximum(matrix.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(len(names)), names, rotation=90)
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(f"{e.head} on {e.label}: accuracy {e.accuracy:.3f}")
    if len(names) <= 20:
        for i, row in enumerate(matrix):
            for j, count in enumerate(row):
                light = count > row.sum() / 2
                axis.text(j, i, int(count), ha="center", va="center", color="white" if light else "black", fontsize=8)


def learning_curve_png(curve: LearningCurve, path: Path) -> None:
    """The learning curve as a picture, with the spread over seeds.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    figure, axis = _axes()
    places = np.arange(len(curve.points))
    axis.errorbar(places, [p.mean for p in curve.points], [p.std for p in curve.points], marker="o", capsize=3)
    axis.set_xticks(places, [_budget(p.labels_per_class) for p in curve.points])
    axis.set_xlabel("labels a class")
    axis.set_ylabel(f"{_metric(curve)} on {curve.n_held_out} held-out items")
    axis.set_title(f"{curve.head} on {curve.label}")
    _save(figure, path)


def confusion_table(evaluation: Evaluation) -> tuple[list[str], Any]:
    """The classes of the confusion matrix and their counts; of more than 40 classes the most confused 40."""
    matrix = np.array(evaluation.confusion)
    names = list(evaluation.report.classes)
    if len(names) <= MAX_CONFUSION_CLASSES:
        return names, matrix
    off = matrix - np.diag(np.diag(matrix))
    kept = np.sort(np.argsort(-(off.sum(0) + off.sum(1)), kind="stable")[:MAX_CONFUSION_CLASSES])
    return [names[i] for i in kept], matrix[np.ix_(kept, kept)]


def _notes(e: Evaluation) -> str:
    return "".join(f'<p class="note">{_t(n)}</p>' for n in evaluation_notes(e))


def _metrics(e: Evaluation) -> str:
    rows = [(name, _n(s.value), f"[{_n(s.low)}, {_n(s.high)}]") for name, s in e.scores.items()]
    folds = ", ".join(f"{a:.3f}" for a in e.fold_accuracy)
    return (
        "<h2>Metrics</h2>"
        + _table(("metric", "value", "95% interval"), rows)
        + (f"<p>accuracy of the folds: {folds}</p>" if folds else "")
    )


def _confusion(e: Evaluation) -> str:
    names, matrix = confusion_table(e)
    left = len(e.report.classes) - len(names)
    head = "".join(f'<th class="up"><span>{_t(n)}</span></th>' for n in names)
    rows = []
    for name, row in zip(names, matrix, strict=True):
        total = max(int(row.sum()), 1)
        cells = "".join(f'<td style="{_shade(count / total)}">{int(count) or ""}</td>' for count in row)
        rows.append(f"<tr><th>{_t(name)}</th>{cells}</tr>")
    note = f"<p>the {len(names)} most confused classes; {left} others are not shown</p>" if left else ""
    return (
        f'<h2>Confusion: true class in rows, predicted in columns</h2>{note}<table class="confusion">'
        f"<tr><th></th>{head}</tr>{''.join(rows)}</table>"
    )


def _shade(share: float) -> str:
    """A cell's colours: the more of its row, the darker, with letters that stand out."""
    letters = ";color:#fff" if share > 0.5 else ""
    return f"background:rgba(20,90,200,{share:.2f}){letters}"


def _classes(e: Evaluation) -> str:
    rows = [
        (c.name, str(c.support), str(c.predicted), _n(c.precision), _n(c.recall), _n(c.f1), _n(c.average_precision))
        for c in e.report.per_class
    ]
    return "<h2>Classes</h2>" + _table(
        ("class", "items", "predicted", "precision", "recall", "F1", "average precision"), rows
    )


def _curve(curve: LearningCurve) -> str:
    points = [(float(i), p.mean) for i, p in enumerate(curve.points)]
    ticks = [_budget(p.labels_per_class) for p in curve.points]
    drawn = svg.line_chart(
        points,
        x_label="labels a class",
        y_label=_metric(curve),
        tick_labels=ticks,
        error_bars=[p.std for p in curve.points],
    )
    rows = [
        (
            _budget(p.labels_per_class),
            str(p.n_train),
            _n(p.mean),
            _n(p.std) if len(p.values) > 1 else "",
            str(len(p.values)),
        )
        for p in curve.points
    ]
    return drawn + _table(("labels a class", "trained on", _metric(curve), "standard deviation", "seeds"), rows)


def _mistakes(e: Evaluation, uris: Mapping[int, str]) -> str:
    if not e.mistakes:
        return ""
    hits = [
        Hit(
            i,
            m.score,
            m.item,
            uris.get(m.item, ""),
            f"{m.true_label}{'; said ' if e.multilabel else ', not '}{m.predicted_label}",
            None,
        )
        for i, m in enumerate(e.mistakes, 1)
    ]
    return f"<h2>Most confident mistakes</h2>{contact_sheet.contact_sheet_fragment(hits)}"


def _metric(curve: LearningCurve) -> str:
    return {MetricName.ACCURACY.value: "accuracy", MetricName.AVERAGE_PRECISION.value: "mean average precision"}[
        curve.metric
    ]


def _budget(shots: int | None) -> str:
    return "all" if shots is None else str(shots)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{_t(n)}</th>" for n in names)
    body = "".join(f"<tr>{''.join(f'<td>{_t(v)}</td>' for v in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _document(title: str, parts: Sequence[str]) -> str:
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_t(title)}</title>\n<style>{_STYLE}</style></head>\n<body>{chr(10).join(parts)}</body></html>\n"
    )


def _t(text: str) -> str:
    return html.escape(str(text))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _n(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "none"


def _axes() -> tuple[Any, Any]:
    """A figure that needs no screen."""
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise MissingExtra("PNG drawings need matplotlib; run `pip install 'embedstore[viz]'`, or use --html") from e
    figure = Figure(figsize=(8, 7), layout="constrained")
    return figure, figure.add_subplot()


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


_STYLE = """
html{color-scheme:light dark}
html body{margin:24px;max-width:1100px;font:14px/1.45 system-ui,sans-serif;color:#111;background:#fff}
h1{font-size:20px} h2{font-size:16px;margin:26px 0 8px}
table{border-collapse:collapse}
td,th{padding:2px 9px;text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left} tr:nth-child(odd) td{background:#f5f7fa}
.confusion td{width:26px;padding:3px 4px;text-align:center;font-size:12px}
.confusion th{font-weight:400;font-size:12px} .up span{writing-mode:vertical-rl;transform:rotate(180deg)}
.note{margin:3px 0;color:#8a4b00} svg{max-width:100%;height:auto}
@media (prefers-color-scheme:dark){html body{color:#eee;background:#181818} tr:nth-child(odd) td{background:#222}
.note{color:#f0b060} [stroke="#1a5fb4"]{stroke:#62a0ea} [fill="#1a5fb4"]{fill:#62a0ea}}
"""
