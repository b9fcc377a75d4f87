"""Results that several verbs print, as words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedstore.cli import console

if TYPE_CHECKING:
    from embedstore.operations.info import Counting
    from embedstore.reports.results import Hits
    from embedstore.store import Store


def print_info(store: Counting, as_json: bool) -> None:
    """The numbers of a store."""
    d = store.info()
    if as_json:
        console.print_json(d)
        return
    reasons = ", ".join(f"{n} {r}" for r, n in d["failure_reasons"].items())
    console.print_facts([
        ("store", d["path"]),
        ("items", f"{d['items']:,}" + (f" ({d['missing']:,} missing)" if d["missing"] else "")),
        ("contents", f"{d['contents']:,}"),
        ("failures", f"{d['failures']:,}" + (f" ({reasons})" if reasons else "")),
        ("bytes", console.format_bytes(d["bytes"])),
    ])  # fmt: skip
    for space in d["spaces"]:
        _print_space(space)
    for index in d["indexes"]:
        _index_line(index)
    if d["heads"]:
        print("heads: " + ", ".join(f"{h['head']} ({h['kind']} on {h['label']})" for h in d["heads"]))
    if d["labels"]:
        shown = list(d["labels"].items())
        more = ", …" if len(shown) > 12 else ""
        print(console.one_line("labels: " + ", ".join(f"{k} {n:,}" for k, n in shown[:12]) + more))
    if d["splits"]:
        print(console.one_line("splits: " + ", ".join(f"{k} {n:,}" for k, n in d["splits"].items())))


def _print_space(s: dict[str, Any]) -> None:
    """One space, on one line or two."""
    words = {
        "current": s["current"],
        "tuned": s["parent"],
        "same vectors as its parent": s["same_as_parent"],
        "RANDOM WEIGHTS": s["random"],
        "understands words": s["text"],
    }
    flags = ", ".join(word for word, on in words.items() if on)
    vectors = f"{s['vectors']:,} vectors of {s['dim']} {s['dtype']}"
    print(f"space {s['name']}: {vectors}, {s['backbone'] or 'precomputed'}" + (f" ({flags})" if flags else ""))
    if s["overrides"]:
        print(f"  preprocessing overridden: {', '.join(f'{k}={v}' for k, v in s['overrides'].items())}")


def _index_line(i: dict[str, Any]) -> None:
    """One index, on one line."""
    if "rows" not in i:
        print(f"index {i['file']} of {i['space']}: {i['why']}")
        return
    state = f"{i['rows_since']:,} rows added since" if i["usable"] else f"not used: it {i['why']}"
    print(f"index {i['setting']} of {i['space']}: {i['rows']:,} rows, recall@10 {i['recall']}, {i['ms']} ms; {state}")


def print_hits(hits: Hits) -> None:
    """Hits, one a line."""
    rows = [(h.rank, round(h.score, 4), h.item, h.label, h.split, h.uri) for h in hits]
    console.print_table(("rank", "score", "item", "label", "split", "uri"), rows)


def print_failures(store: Store, count: int) -> None:
    """The first failures of a run, on stderr."""
    if not count:
        return
    rows = store.sql("SELECT uri, reason, detail FROM failures ORDER BY failed DESC, uri LIMIT 10").rows
    for uri, reason, detail in rows[:count]:
        console.print_note("  " + console.one_line(f"{uri}: {reason}: {detail}"))
    if count > len(rows):
        console.print_note(f"  … {count - len(rows)} more: `embedstore failures {store.path}`")
