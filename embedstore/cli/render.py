"""Print results that several verbs share."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any

from embedstore.cli import console
from embedstore.cli.item_texts import print_items, text_begin, texts_of_hits
from embedstore.storage.queries.query_texts import RECENT_FAILURES
from embedstore.wording import counted

if TYPE_CHECKING:
    from embedstore.operations.results import StoreInfo, TableEdit
    from embedstore.pipeline.import_vectors import ImportReport
    from embedstore.pipeline.report import EmbedReport
    from embedstore.reports.classified import ClassifiedImages
    from embedstore.reports.results import Hits
    from embedstore.search.index.build import IndexInfo
    from embedstore.storage.inbox.state import PlanInfo
    from embedstore.storage.info import SpaceInfo
    from embedstore.storage.queries.computed_columns import ComputedColumnState
    from embedstore.store import Store


def print_info(info: StoreInfo, as_json: bool) -> None:
    """Print what a store holds."""
    if as_json:
        console.print_json(info.to_json())
        return
    reasons = ", ".join(f"{n} {r}" for r, n in info.failure_reasons.items())
    console.print_facts([
        ("store", info.path),
        ("items", f"{info.items:,}" + (f" ({info.missing:,} missing)" if info.missing else "")),
        ("contents", f"{info.contents:,}"),
        ("failures", f"{info.failures:,}" + (f" ({reasons})" if reasons else "")),
        ("bytes", console.format_bytes(info.bytes)),
    ])  # fmt: skip
    for space in info.spaces:
        _print_space(space)
    for index in info.indexes:
        _print_index(index)
    for r in info.replicas:
        behind = f", {counted(r.behind, 'change')} behind" if r.behind else ""
        console.print_line(f"replica {r.name} of {r.space}: {counted(r.rows, 'row')} in {r.kind}{behind}")
    for plan in info.parts:
        _print_plan(plan)
    if info.heads:
        console.print_line("heads: " + ", ".join(f"{h.head} ({h.kind} on {h.label})" for h in info.heads))
    for column in info.computed:
        _print_computed_column(column)
    if info.labels:
        shown = list(info.labels.items())
        more = ", …" if len(shown) > 12 else ""
        console.print_line("labels: " + ", ".join(f"{k} {n:,}" for k, n in shown[:12]) + more)
    if info.splits:
        console.print_line("splits: " + ", ".join(f"{k} {n:,}" for k, n in info.splits.items()))


def _print_plan(p: PlanInfo) -> None:
    """Print one plan of parts."""
    if p.problem:
        console.print_line(f"plan of parts of {p.space}: {p.problem}")
        return
    state = f"{p.registered:,} of {p.parts:,} registered, {p.waiting:,} wait"
    cure = " for `embedstore register STORE`" if p.waiting else ""
    console.print_line(f"plan of parts of {p.space}: {p.source}, {counted(p.files, 'file')}; {state}{cure}")


def _print_space(s: SpaceInfo) -> None:
    """Print one space."""
    flags = {
        "default": s.current,
        "fine-tuned": s.parent,
        "same vectors as its parent": s.same_as_parent,
        "RANDOM WEIGHTS": s.random,
        "text queries": s.text,
    }
    shown = ", ".join(flag for flag, on in flags.items() if on)
    vectors = f"{counted(s.vectors, 'vector')} of {s.dim} {s.dtype}"
    console.print_line(f"space {s.name}: {vectors}, {s.backbone or 'precomputed'}" + (f" ({shown})" if shown else ""))
    if s.backbone:
        license_ = f", license {s.licence}" if s.licence else ""
        console.print_line(f"  weights from {s.origin or 'an unknown place'}, {s.weights}{license_}")
    if s.overrides:
        console.print_line(f"  preprocessing overridden: {', '.join(f'{k}={v}' for k, v in s.overrides.items())}")


def _print_computed_column(c: ComputedColumnState) -> None:
    """Print one column that a run computed, and what changed since."""
    changes = [(c.cleared, "values cleared"), (c.added, "items added")]
    stale = ", ".join(f"{n:,} {what} since" for n, what in changes if n)
    edited = "; edited since" if c.edited else ""
    run = f"run {c.run}, {c.verb}, {str(c.computed)[:10]}"
    console.print_line(f"computed column {c.column} ({run}): {counted(c.items, 'item')}" + edited
          + (f"; stale: {stale}" if stale else ""))  # fmt: skip


def _print_index(i: IndexInfo) -> None:
    """Print one index."""
    if i.sidecar is None:
        console.print_line(f"index {i.file} of {i.space}: {i.why}")
        return
    state = f"{counted(i.rows_since or 0, 'row')} added since" if i.usable else f"not used: it {i.why}"
    console.print_line(
        f"index {i.sidecar.setting} of {i.space}: {counted(i.sidecar.rows, 'row')}, recall@10 {i.sidecar.recall}, "
        f"{i.sidecar.ms} ms; {state}"
    )


def print_embed_report(store: Store, report: EmbedReport, as_json: bool) -> None:
    """Print what an embedding run did, and its first failures."""
    if as_json:
        console.print_json(report.to_json())
        return
    for notice in report.notices:
        if notice not in store.notices:  # those were printed when the store was opened
            console.print_note(notice)
    console.print_line(report.summary())
    if report.bottleneck:
        console.print_line(report.bottleneck)
    _print_failures(store, report.failures)


def print_watch_event(store: Store, as_json: bool, event: EmbedReport | str) -> None:
    """Print a report of a watch at once, also to a pipe, and on stderr why there was no run."""
    if isinstance(event, str):
        console.print_note(event)
    else:
        print_embed_report(store, event, as_json)
    sys.stdout.flush()


def print_counts(counts: ImportReport | TableEdit, as_json: bool) -> None:
    """Print counts, and on stderr what a person should know about the table that they come from."""
    for notice in counts.notices:
        console.print_note(notice)
    console.print_result(counts.to_json(), as_json)


def print_hits(hits: Hits) -> None:
    """Print one hit per line."""
    rows = [(h.rank, round(h.score, 4), h.item, h.label, h.split, h.uri) for h in hits]
    print_items(("rank", "score", "item", "label", "split", "uri"), rows, texts_of_hits(hits))


def _print_failures(store: Store, count: int) -> None:
    """Print the first failures of a run to stderr."""
    if not count:
        return
    rows = store.sql(RECENT_FAILURES).rows
    for uri, reason, detail in rows[:count]:
        console.print_note("  " + f"{uri}: {reason}: {detail}")
    if count > len(rows):
        console.print_note(f"  … {count - len(rows)} more: `embedstore failures {shlex.quote(str(store.path))}`")


def print_classified(result: ClassifiedImages) -> None:
    """Print the prediction of each image, and why an image has none."""
    predicted = [r | {"image": _shown_name(r)} for r in result.records() if r["failure"] is None]
    if predicted and predicted[0]["number"] is not None:
        rows = [(r["image"], r["label"], f"{r['low']:g}", f"{r['high']:g}", _nearest(r)) for r in predicted]
        console.print_table((result.singular, result.label, "low", "high", "nearest labeled item"), rows)
    elif predicted:
        rows = [
            (r["image"], r["label"] or "none of these", f"{r['score']:.3f}", _second(r), _nearest(r)) for r in predicted
        ]
        console.print_table((result.singular, result.label, "probability", "next", "nearest labeled item"), rows)
    for image in result.failures:
        console.print_note(f"{image.image}: {image.failure}")
    for notice in result.notices:
        console.print_note(notice)
    console.print_note(
        f"{counted(len(result), result.singular)} in {result.seconds:.2f} s by head {result.head}; nothing was stored"
    )


def _shown_name(record: dict[str, Any]) -> str:
    """Return the begin of a text of a table, and the name of anything else."""
    return text_begin(record.get("text", "")) or str(record["image"])


def _second(record: dict[str, Any]) -> str:
    """Return the second most probable class."""
    return "" if record["second_label"] is None else f"{record['second_label']} {record['second_score']:.3f}"


def _nearest(record: dict[str, Any]) -> str:
    """Return the nearest labeled item: its label, similarity and file name."""
    if record["nearest"] is None:
        return ""
    return f"{record['nearest_label']} {record['nearest_score']:.3f} {record['nearest'].rpartition('/')[2]}"
